"""Writes a folder of recordings with a manifest for the rehearsal: coloured noise in WAV files."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

from rtsr.timing import SAMPLE_RATE


def main(folder: Path) -> None:
    """Make six recordings to learn from and two to score on."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    for number in range(8):
        split = "valid" if number > 5 else "train"
        domain = ("music", "effects")[number % 2]
        white = np.fft.rfft(random.standard_normal(4 * SAMPLE_RATE))
        sound = np.fft.irfft(white / np.sqrt(np.arange(len(white)) + 100.0), 4 * SAMPLE_RATE)
        path = f"{split}-{number}.wav"
        soundfile.write(folder / path, 0.1 * sound / sound.std(), SAMPLE_RATE)
        rows.append({"path": path, "split": split, "domain": domain, "speaker_or_group": path})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

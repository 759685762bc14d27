"""Learn a colour of your voice and microphone, and try on another recording what it is worth.

    python examples/own_microphone.py yesterday.wav today.wav -o me.json
    python examples/own_microphone.py yesterday.wav today.wav -o me.json --rate 16000 --listen tried

Both are full-band recordings of the same voice, the first at least 10 s long. The second is made as
narrow as a call makes it, enhanced without the colour and with it, and compared with what it was:
ViSQOL says how alike they sound (5 is the same), `level_bias_db` by how much the new bands are too
loud or too quiet. The file is what `--colour` of `rtsr live`, `pipe`, `enhance` and `call` takes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtsr import Colour, RtsrError, enhance_file, learn_colour
from rtsr.audio.reader import native_name
from rtsr.colour.bands import NARROW_RATES
from rtsr.colour.degrade import degrade
from rtsr.colour_learning import read_recording
from rtsr.quality.audio import read_native
from rtsr.quality.evaluation import evaluate
from rtsr.whole_file import check_different, check_writable

RATE = 48000
NARROW = "narrow.wav"
CASES = {"without": "without.wav", "with colour": "with-colour.wav"}
METRICS = ("visqol", "lsd", "level_bias_db")


def main() -> None:
    """Learn, write, try."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("learnt_from", type=Path, metavar="YESTERDAY.wav")
    parser.add_argument("tried_on", type=Path, metavar="TODAY.wav")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="ME.json")
    parser.add_argument("--rate", type=int, choices=NARROW_RATES, default=8000, help="of the call")
    parser.add_argument("--listen", type=Path, metavar="FOLDER", help="where to put what was tried")
    asked = parser.parse_args()
    written = [asked.output]
    if asked.listen:
        written += [asked.listen / name for name in (NARROW, *CASES.values())]
    for recording in (asked.learnt_from, asked.tried_on):
        for target in written:
            check_different(recording, target)
    check_writable(asked.output)
    # Before learning, which takes a minute.
    sound = read_tried(asked.tried_on)
    colour = learn_colour([asked.learnt_from])
    colour.save(asked.output)
    print(f"learnt from {colour.seconds:.1f} s of sound, written to '{asked.output}'")
    with tempfile.TemporaryDirectory() as folder:
        rows = try_on(sound, colour, asked.rate, asked.listen or Path(folder))
    print(f"{'':14}" + "".join(f"{name:>15}" for name in METRICS))
    for case, scores in rows.items():
        print(f"{case:14}" + "".join(f"{scores[name]:15.2f}" for name in METRICS))


def read_tried(path: Path) -> NDArray[np.float32]:
    """Read the first channel of a full-band recording at 48 kHz, ``(samples, 1)``."""
    samples, rate = read_native(path)
    sound, _ = read_recording(samples[:, :1].astype(np.float32), rate, f"Recording '{path}'")
    return sound


def try_on(
    sound: NDArray[np.float32], colour: Colour, rate: int, folder: Path
) -> dict[str, dict[str, float]]:
    """Return the metrics of a recording that went through a narrow call, without and with a colour.

    Args:
        sound: the recording at 48 kHz, ``(samples, 1)``.
        colour: of its voice.
        rate: of the call in Hz.
        folder: where the narrow sound and what was made of it go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    narrow = folder / NARROW
    soundfile.write(native_name(narrow), degrade(sound, rate), rate, subtype="PCM_16")
    rows = {}
    for (case, name), used in zip(CASES.items(), (None, colour), strict=True):
        wide = folder / name
        enhance_file(narrow, wide, colour=used)
        rows[case] = evaluate(
            sound[:, 0], soundfile.read(native_name(wide))[0], rate / 2.0, METRICS
        )
    return rows


if __name__ == "__main__":
    try:
        main()
    except (RtsrError, OSError) as error:
        sys.exit(f"own_microphone: {error}")

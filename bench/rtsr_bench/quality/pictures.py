"""Spectrograms of a report: of each domain one clip, as every system makes it."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rtsr.errors import MissingDependencyError
from rtsr.quality.audio import read_audio
from rtsr.quality.spectrogram import save_spectrograms
from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE
from rtsr.train.excerpt import loudest_start
from rtsr_bench.corpus import DOMAINS
from rtsr_bench.progress import Show
from rtsr_bench.quality.systems import System

SHOWN_SECONDS = 2.5


def check_drawing() -> None:
    """Fail now and not after an hour of scoring.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError("Drawing pictures", "eval")


def choose_clips(references: Mapping[str, Path], cutoff_hz: float) -> list[str]:
    """Return of each domain the name of the clip with most of its energy above the cutoff."""
    shares = {name: _share_above(_mono(path), cutoff_hz) for name, path in references.items()}
    brightest = {name.split("/")[0]: name for name in sorted(shares, key=shares.__getitem__)}
    return [brightest[domain] for domain in DOMAINS if domain in brightest]


def save_spectrograms_of_clips(
    out: Path,
    systems: Sequence[System],
    references: Mapping[str, Path],
    inputs: Mapping[str, Path],
    cutoff_hz: float,
    show: Show = lambda what, done, total: None,
) -> list[dict[str, str]]:
    """Enhance one clip of each domain once more and draw the loudest moment of every output.

    Returns:
        ``file`` and ``title`` of each picture.
    """
    pictures = []
    chosen, length = choose_clips(references, cutoff_hz), round(SHOWN_SECONDS * SAMPLE_RATE)
    for done, name in enumerate(chosen):
        show("drawing", done, len(chosen))
        with tempfile.TemporaryDirectory() as folder:
            panels = [
                (system.name, _mono(system.enhance(inputs[name], Path(folder), cutoff_hz)))
                for system in systems
            ]
        panels.append(("reference", _mono(references[name])))
        start = loudest_start(panels[-1][1], length)
        excerpts = [(label, signal[start : start + length]) for label, signal in panels]
        file = f"spectrogram-{name.replace('/', '-')}.png"
        title = f"{name}, input up to {cutoff_hz / 1000:g} kHz"
        save_spectrograms(out / file, excerpts, title=title, cutoff_hz=cutoff_hz)
        pictures.append({"file": file, "title": title})
    return pictures


def _mono(path: Path) -> Signal:
    return np.asarray(read_audio(path)[:, 0])


def _share_above(signal: Signal, cutoff_hz: float) -> float:
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequencies = np.fft.rfftfreq(signal.size, 1.0 / SAMPLE_RATE)
    return float(power[frequencies >= cutoff_hz].sum() / max(power.sum(), 1e-12))

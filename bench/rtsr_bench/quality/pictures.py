"""Spectrograms of a report: of which clips, and their panels."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ArgumentError, MissingDependencyError
from rtsr.quality.audio import read_audio
from rtsr.quality.spectrogram import save_spectrograms
from rtsr.timing import SAMPLE_RATE
from rtsr.train.excerpt import loudest_start
from rtsr_bench.corpus import DOMAINS
from rtsr_bench.progress import Show
from rtsr_bench.quality.systems import System

Signal = NDArray[np.float64]

SHOWN_SECONDS = 2.5


def check_drawing() -> None:
    """Fail now and not after an hour of scoring.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError("Drawing pictures", "eval")


def check_picture(path: Path | None) -> None:
    """Raise before the work where no picture of that name can be drawn; ``None`` is none.

    Raises:
        ArgumentError: the name does not end in ``.png``.
        MissingDependencyError: matplotlib is not installed.
    """
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise ArgumentError(f"--plot draws a PNG; give a name that ends in .png, not '{path}'.")
    check_drawing()


def save_excerpts(
    path: Path,
    panels: Sequence[tuple[str, Signal]],
    title: str,
    cutoff_hz: float,
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """Draw the loudest moments of the last panel, which is the reference, in every panel.

    Args:
        path: PNG file to write.
        panels: (label, signal of shape (samples,) at ``sample_rate``), aligned.
        title: above everything.
        cutoff_hz: of the input, drawn as a dashed line.
        sample_rate: Hz of the signals.
    """
    length = round(SHOWN_SECONDS * sample_rate)
    start = loudest_start(panels[-1][1], length)
    excerpts = [(label, signal[start : start + length]) for label, signal in panels]
    save_spectrograms(path, excerpts, title=title, cutoff_hz=cutoff_hz, sample_rate=sample_rate)


def choose_clips(
    references: Mapping[str, Path], cutoff_hz: float, wanted: Sequence[str] | None = None
) -> list[str]:
    """Names of the clips to draw: of each domain the one with most of its energy above the cutoff.

    Args:
        references: full-band files by ``domain/clip``.
        cutoff_hz: of the inputs.
        wanted: parts of names; every clip that holds one of them is drawn instead.

    Raises:
        ArgumentError: a part fits no clip.
    """
    for part in wanted or ():
        if not any(part in name for name in references):
            raise ArgumentError(f"No clip of the report has {part!r} in its name.")
    if wanted:
        return [name for name in references if any(part in name for part in wanted)]
    shares = {name: _share_above(_mono(path), cutoff_hz) for name, path in references.items()}
    brightest = {name.split("/")[0]: name for name in sorted(shares, key=shares.__getitem__)}
    return [brightest[domain] for domain in DOMAINS if domain in brightest]


def save_spectrograms_of_clips(
    out: Path,
    chosen: Sequence[str],
    systems: Sequence[System],
    references: Mapping[str, Path],
    inputs: Mapping[str, Path],
    cutoff_hz: float,
    show: Show = lambda what, done, total: None,
) -> list[dict[str, str]]:
    """Enhance the clips of these names once more and draw them: input, every system, reference.

    Returns:
        ``file`` and ``title`` of each picture.
    """
    pictures = []
    for done, name in enumerate(chosen):
        show("drawing", done, len(chosen))
        with tempfile.TemporaryDirectory() as folder:
            panels = [
                (system.name, _mono(system.enhance(inputs[name], Path(folder), cutoff_hz)))
                for system in systems
            ]
        panels.append(("reference", _mono(references[name])))
        file = f"spectrogram-{name.replace('/', '-')}.png"
        title = f"{name}, input up to {cutoff_hz / 1000:g} kHz"
        save_excerpts(out / file, panels, title, cutoff_hz)
        pictures.append({"file": file, "title": title})
    return pictures


def _mono(path: Path) -> Signal:
    return np.asarray(read_audio(path)[:, 0])


def _share_above(signal: Signal, cutoff_hz: float) -> float:
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequencies = np.fft.rfftfreq(signal.size, 1.0 / SAMPLE_RATE)
    return float(power[frequencies >= cutoff_hz].sum() / max(power.sum(), 1e-12))

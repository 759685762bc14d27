"""Which clips a quality report draws, and their panels: input, every system, reference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rtsr.errors import ArgumentError
from rtsr.quality.audio import read_audio
from rtsr_bench.quality.pictures import Signal, save_side_by_side, tonality
from rtsr_bench.quality.systems import System

#: How many clips of each domain are drawn if none is asked for.
CHOSEN = {"speech": 1, "music": 2, "effects": 1, "unknown": 2}


def choose_clips(
    references: Mapping[str, Path], cutoff_hz: float, wanted: Sequence[str] | None = None
) -> list[str]:
    """Names of the clips to draw.

    Of speech and music those with the clearest partials on both sides of the cutoff (a vowel, a
    bowed string), of effects the one with the largest share of its energy above the cutoff.

    Args:
        references: full-band files by ``domain/clip``.
        cutoff_hz: of the inputs.
        wanted: parts of names; every clip that holds one of them is drawn instead.

    Raises:
        ArgumentError: a part fits no clip.
    """
    if wanted:
        for part in wanted:
            if not any(part in name for name in references):
                raise ArgumentError(f"No clip of the report has {part!r} in its name.")
        return [name for name in references if any(part in name for part in wanted)]
    chosen = []
    for domain, count in CHOSEN.items():
        measure = _brightness if domain == "effects" else _partials
        ranks = {
            name: measure(_mono(path), cutoff_hz)
            for name, path in references.items()
            if name.startswith(f"{domain}/")
        }
        chosen += sorted(ranks, key=lambda name: -ranks[name])[:count]
    return chosen


def save_spectrograms_of_clips(
    out: Path,
    chosen: Sequence[str],
    systems: Sequence[System],
    references: Mapping[str, Path],
    inputs: Mapping[str, Path],
    cutoff_hz: float,
    show: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, str]]:
    """Enhance the clips of these names once more and draw them.

    Returns:
        ``file`` and ``title`` of each picture.
    """
    pictures = []
    for done, name in enumerate(chosen):
        if show:
            show("drawing", done, len(chosen))
        panels = []
        with tempfile.TemporaryDirectory() as folder:
            for system in systems:
                output = inputs[name]
                enhance = system.enhancer(cutoff_hz)
                if enhance is not None:
                    output = Path(folder) / f"{system.name}.wav"
                    enhance(inputs[name], output)
                panels.append((system.name, _mono(output)))
        panels.append(("reference", _mono(references[name])))
        file = f"spectrogram-{name.replace('/', '-')}.png"
        title = f"{name}, input up to {cutoff_hz / 1000:g} kHz"
        save_side_by_side(out / file, panels, title, cutoff_hz)
        pictures.append({"file": file, "title": title})
    return pictures


def _mono(path: Path) -> Signal:
    return np.asarray(read_audio(path)[:, 0])


def _partials(signal: Signal, cutoff_hz: float) -> float:
    below = tonality(signal, 200.0, cutoff_hz)
    # Partials that cannot be seen do not make a picture.
    audible = min(1.0, 100.0 * _brightness(signal, cutoff_hz))
    return below * tonality(signal, cutoff_hz, 1.5 * cutoff_hz) * audible


def _brightness(signal: Signal, cutoff_hz: float) -> float:
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequencies = np.fft.rfftfreq(signal.size, 1.0 / 48000)
    return float(power[frequencies >= cutoff_hz].sum() / max(power.sum(), 1e-12))

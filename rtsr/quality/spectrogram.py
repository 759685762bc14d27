"""Spectrogram pictures: reference, estimate and, if wanted, the input, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.spectra.stft import Signal, power_chunks
from rtsr.timing import SAMPLE_RATE

_FFT = 2048
_FINEST_HOP = 256
_MAX_COLUMNS = 3000
_FLOOR_DB = -100.0


def level_picture(signal: Signal) -> tuple[Signal, int]:
    """Levels in dB of a full-scale sine, clamped at -100, and the hop in samples they are apart.

    Args:
        signal: shape (samples,).

    Returns:
        shape (bins, frames); the hop grows with the length, so that long files stay drawable.
    """
    hop = max(_FINEST_HOP, -(-signal.size // _MAX_COLUMNS))
    power = np.concatenate(list(power_chunks(signal, _FFT, hop)))
    level = 10.0 * np.log10(np.maximum(power / (_FFT / 4) ** 2, 10.0 ** (_FLOOR_DB / 10.0)))
    return level.T, hop


def save_spectrograms(
    path: str | Path,
    panels: Sequence[tuple[str, Signal]],
    *,
    title: str,
    cutoff_hz: float | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """Write a PNG with one spectrogram per panel: 0 Hz to half the rate, -100 to 0 dB.

    Args:
        path: the picture to write.
        panels: (label, signal) from top to bottom; signals of shape (samples,) or
            (samples, channels), of which the first channel is drawn.
        title: above all panels.
        cutoff_hz: drawn as a dashed line where given.
        sample_rate: of all signals, in Hz.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RtsrError: the picture cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("Drawing a spectrogram", "eval") from error

    figure = Figure(figsize=(11.0, 0.8 + 2.7 * len(panels)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    image = None
    for axis, (label, signal) in zip(axes, panels, strict=True):
        channel = np.asarray(signal if signal.ndim == 1 else signal[:, 0], dtype=np.float64)
        level, hop = level_picture(channel)
        seconds = (level.shape[1] - 1) * hop / sample_rate
        half_hop = 0.5 * hop / sample_rate
        image = axis.imshow(
            level,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap="magma",
            vmin=_FLOOR_DB,
            vmax=0.0,
            extent=(-half_hop, seconds + half_hop, 0.0, sample_rate / 2000.0),
        )
        axis.set_title(label, loc="left", fontsize="medium")
        axis.set_ylabel("frequency in kHz")
        axis.set_xlim(0.0, max(axis.get_xlim()[1], seconds))
        if cutoff_hz is not None:
            axis.axhline(cutoff_hz / 1000.0, color="white", linestyle="--", linewidth=0.8)
    axes[-1].set_xlabel("time in s")
    if image is not None:
        figure.colorbar(image, ax=list(axes), label="dB of a full-scale sine", pad=0.01)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise RtsrError(
            f"The picture {path} cannot be written ({error.strerror or error}); "
            "choose a folder that exists and can be written to."
        ) from error

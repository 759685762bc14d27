"""Whole files as 48 kHz arrays, for judging them; the streaming reader is :mod:`rtsr.files`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rtsr.audio.reader import UnreadableFileError, open_input
from rtsr.errors import AudioFormatError, MissingDependencyError, RtsrError
from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE


def read_native(path: str | Path) -> tuple[Signal, int]:
    """Read a file's samples at its own rate: shape (samples, channels), and the rate in Hz.

    They are those of `rtsr enhance`, which has 24 bits of each.

    Raises:
        AudioFormatError: the file is missing, not audio, empty, or holds NaN or infinity.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioFormatError(f"There is no file {path}; give the path of an audio file.")
    samples, rate = _decoded(path)
    if samples.shape[0] == 0:
        raise AudioFormatError(f"{path} is damaged: no samples of it can be decoded.")
    if not np.isfinite(samples).all():
        raise AudioFormatError(f"{path} holds NaN or infinite samples and cannot be used.")
    return samples, int(rate)


def _decoded(path: Path) -> tuple[Signal, int]:
    """Read a file as `rtsr enhance` does, so that channels stand in the same order."""
    try:
        with open_input(path) as file:
            blocks: list[Signal] = [np.zeros((0, file.channels))]
            blocks += [block.astype(np.float64) for block in file.blocks()]
            return np.concatenate(blocks), file.rate
    except UnreadableFileError:
        raise
    except RtsrError as error:
        raise AudioFormatError(
            f"{path} cannot be read as audio; convert it to WAV or FLAC first."
        ) from error


def to_rate(samples: Signal, rate: int, new_rate: int = SAMPLE_RATE) -> Signal:
    """Resample ``samples`` (samples, channels), time-aligned (linear phase, "VHQ").

    Raises:
        MissingDependencyError: the rates differ and soxr is not installed.
    """
    if rate == new_rate:
        return samples
    try:
        import soxr
    except ImportError as error:
        raise MissingDependencyError(f"Judging a file of {rate} Hz", "eval") from error
    return np.asarray(soxr.resample(samples, rate, new_rate, quality="VHQ"), dtype=np.float64)


def read_audio(path: str | Path) -> Signal:
    """Read a file's samples at 48 kHz, shape (samples, channels), float64.

    Raises:
        AudioFormatError: as :func:`read_native`.
        MissingDependencyError: as :func:`to_rate`.
    """
    return to_rate(*read_native(path))

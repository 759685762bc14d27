"""Blocks as callers hand them over: which are accepted, and what is repaired in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import AudioFormatError
from rtsr.runtime.statistics import Statistics

Audio = NDArray[np.float32]

# Far above integer samples stored as floats (2**31), far below where squares leave float32.
LARGEST_SAMPLE = np.float32(1e10)


def as_frames(block: NDArray[Any], channels: int, taker: str) -> Audio:
    """The block as C-contiguous float32 ``(samples, channels)``, without a copy where it is so.

    Args:
        block: float ``(samples, channels)``, or ``(samples,)`` where there is one channel.
        taker: what takes the block, for the error: "this Upsampler".

    Raises:
        AudioFormatError: another shape, or integers.
    """
    audio = np.asarray(block)
    if audio.dtype.kind != "f":
        raise AudioFormatError(
            f"Blocks are floating-point samples in [-1, 1], not {audio.dtype}; "
            "divide 16-bit integers by 32768."
        )
    if audio.ndim == 1 and channels == 1:
        audio = audio[:, None]
    if audio.ndim != 2 or audio.shape[1] != channels:
        one = "(samples,) or " if channels == 1 else ""
        raise AudioFormatError(
            f"A block of shape {np.shape(block)} does not fit; "
            f"{taker} takes {one}(samples, {channels})."
        )
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(audio, dtype=np.float32)


def repaired(audio: Audio, clean: Audio, statistics: Statistics) -> Audio:
    """``audio`` itself if all its samples are usable numbers, else a copy in ``clean`` that is.

    Samples that are not numbers, or beyond 1e10 in magnitude, become 0 and are counted in
    ``statistics.repaired_samples``.

    Args:
        audio: ``(samples, channels)``.
        clean: at least as many samples, the same channels.
    """
    # A NaN fails both comparisons.
    if not len(audio) or (audio.max() <= LARGEST_SAMPLE and audio.min() >= -LARGEST_SAMPLE):
        return audio
    clean = clean[: len(audio)]
    np.copyto(clean, audio)
    # A NaN fails this comparison, too.
    broken = ~(np.abs(clean) <= LARGEST_SAMPLE)
    clean[broken] = 0.0
    statistics.repaired_samples += int(broken.sum())
    return clean

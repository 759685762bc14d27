"""Overlap-add of synthesis frames that are longer than their hop, without allocation."""

from __future__ import annotations

import numpy as np
from numba import void

from .compiled import AUDIO, AUDIO_IN, kernel


@kernel(void(AUDIO_IN, AUDIO, AUDIO))
def overlap_add(frame: np.ndarray, tail: np.ndarray, out: np.ndarray) -> None:
    """Add one windowed synthesis frame to what earlier frames left and emit the finished hop.

    `frame` is `(length, channels)`, `out` `(hop, channels)` receives the oldest `hop` samples of
    the sum, `tail` `(length - hop, channels)` is carried from call to call and starts as zeros. All
    are float32; the arrays do not overlap in memory. The overlap may be longer than the hop.

    Raises `ValueError` if the shapes do not fit together.
    """
    length, channels = frame.shape
    hop = out.shape[0]
    overlap = tail.shape[0]
    if hop + overlap != length or out.shape[1] != channels or tail.shape[1] != channels:
        raise ValueError("overlap_add: frame must be as long as out and tail together")
    for i in range(hop):
        for channel in range(channels):
            carried = tail[i, channel] if i < overlap else np.float32(0.0)
            out[i, channel] = frame[i, channel] + carried
    for i in range(overlap):
        for channel in range(channels):
            carried = tail[hop + i, channel] if hop + i < overlap else np.float32(0.0)
            tail[i, channel] = frame[hop + i, channel] + carried

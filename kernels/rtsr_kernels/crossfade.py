"""Cross-fades between two signals, without allocation.

Linear for signals that are alike (the same audio from two fallback levels: amplitudes add),
equal-power for signals that are not (two noises: powers add). The gains are sampled in the middle
of each step, `(i + 1/2) / length`, so that a fade and its reverse are mirror images.

`a`, `b` and `out` are C-contiguous float32 `(frames, channels)` of one shape, otherwise
`ValueError` is raised. `out` may be `a` or `b` itself.
"""

from __future__ import annotations

import math

import numpy as np
from numba import int64, void

from .compiled import AUDIO, AUDIO_IN, kernel


@kernel(void(AUDIO_IN, AUDIO_IN, AUDIO, int64, int64))
def crossfade_linear_ramp(
    a: np.ndarray, b: np.ndarray, out: np.ndarray, position: int, length: int
) -> None:
    """Apply part of a linear fade of `length` frames, from `position` frames after its start.

    Before the fade (`position` < 0) `out` is exactly `a`, after it exactly `b`; `length` 0 cuts.
    """
    if a.shape != b.shape or a.shape != out.shape:
        raise ValueError("cross-fade: a, b and out differ in shape")
    frames, channels = a.shape
    for i in range(frames):
        instant = position + i
        if instant < 0:
            for channel in range(channels):
                out[i, channel] = a[i, channel]
        elif instant >= length:
            for channel in range(channels):
                out[i, channel] = b[i, channel]
        else:
            share = (instant + 0.5) / length
            for channel in range(channels):
                # Written as a difference, so that two identical signals fade into the same bits.
                old = a[i, channel]
                out[i, channel] = old + share * (float(b[i, channel]) - old)


@kernel(void(AUDIO_IN, AUDIO_IN, AUDIO, int64, int64))
def crossfade_equal_power_ramp(
    a: np.ndarray, b: np.ndarray, out: np.ndarray, position: int, length: int
) -> None:
    """Apply part of an equal-power fade of `length` frames, from `position` frames after its start.

    Gains are the cosine and sine of a quarter turn. Outside the fade as `crossfade_linear_ramp`.
    """
    if a.shape != b.shape or a.shape != out.shape:
        raise ValueError("cross-fade: a, b and out differ in shape")
    frames, channels = a.shape
    for i in range(frames):
        instant = position + i
        if instant < 0:
            for channel in range(channels):
                out[i, channel] = a[i, channel]
        elif instant >= length:
            for channel in range(channels):
                out[i, channel] = b[i, channel]
        else:
            angle = (instant + 0.5) / length * (math.pi / 2.0)
            gain_a = math.cos(angle)
            gain_b = math.sin(angle)
            for channel in range(channels):
                out[i, channel] = gain_a * a[i, channel] + gain_b * b[i, channel]


@kernel(void(AUDIO_IN, AUDIO_IN, AUDIO))
def crossfade_linear(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Fade linearly from `a` to `b` over the whole block."""
    crossfade_linear_ramp(a, b, out, 0, a.shape[0])


@kernel(void(AUDIO_IN, AUDIO_IN, AUDIO))
def crossfade_equal_power(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Fade with constant power from `a` to `b` over the whole block."""
    crossfade_equal_power_ramp(a, b, out, 0, a.shape[0])

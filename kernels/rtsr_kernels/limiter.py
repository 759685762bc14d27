"""Peak limiter without look-ahead: transparent below -1 dBFS, never beyond full scale.

One gain serves all channels, so that the stereo image stays. It falls at once and recovers with a
time constant of 50 ms; a sample above the knee at `KNEE` goes at most to
``KNEE + (1 - KNEE) tanh(...)``, whose slope at the knee is 1. Where nothing is above the knee and
the gain has recovered, samples pass bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int64, types

from .compiled import VECTOR, kernel

#: -1 dBFS.
KNEE = 10.0 ** (-1.0 / 20.0)
RELEASE_MS = 50.0
#: From here on the gain counts as recovered.
_RECOVERED = 0.9999

_FRAMES = types.Array(float32, 2, "A")


@kernel(int64(_FRAMES, VECTOR, float64, float64))
def limit(block: np.ndarray, gain: np.ndarray, knee: float, sample_rate: float) -> int:
    """Limit ``(frames, channels)`` in place; return how many frames were turned down.

    Args:
        block: float32, of any layout.
        gain: ``(1,)`` float64, carried from block to block; 1 at first.
        knee: linear level above which gain is reduced, 1 only holds what is beyond full scale.
        sample_rate: Hz.
    """
    frames, channels = block.shape
    loudest = float32(0.0)
    for channel in range(channels):
        for i in range(frames):
            loudest = max(loudest, abs(block[i, channel]))
    if gain[0] == 1.0 and loudest <= knee:
        return 0
    recovery = 1.0 - math.exp(-1000.0 / (RELEASE_MS * sample_rate))
    now = gain[0]
    count = 0
    for i in range(frames):
        peak = 0.0
        for channel in range(channels):
            peak = max(peak, abs(float(block[i, channel])))
        if now < 1.0:
            now += recovery * (1.0 - now)
            if now > _RECOVERED:
                now = 1.0
        if peak > knee:
            room = 1.0 - knee
            most = 1.0 if room <= 0.0 else knee + room * math.tanh((peak - knee) / room)
            now = min(now, most / peak)
        if now < 1.0:
            count += 1
            for channel in range(channels):
                value = float32(now * block[i, channel])
                block[i, channel] = min(max(value, float32(-1.0)), float32(1.0))
    gain[0] = now
    return count

"""How much what was heard resembles what was said."""

from __future__ import annotations

import numpy as np
from scipy.signal import correlate, firwin, oaconvolve

_TAPS = firwin(1025, [300.0, 3000.0], fs=48000, pass_zero=False)
_MOST_LAG = 960


def resemblance(heard: np.ndarray, said: np.ndarray) -> float:
    """Correlation of two aligned sounds at 48 kHz from 300 to 3000 Hz, the median over seconds.

    In each second it is the largest within 20 ms, for jitter buffers lengthen and shorten pauses.
    """
    both = [oaconvolve(sound, _TAPS, "same") for sound in (heard, said)]
    found = []
    for start in range(_MOST_LAG, min(len(heard), len(said)) - 48000 - _MOST_LAG, 48000):
        one = both[0][start : start + 48000]
        around = both[1][start - _MOST_LAG : start + 48000 + _MOST_LAG]
        energy = np.convolve(around**2, np.ones(len(one)), "valid")
        products = correlate(around, one, "valid")
        found.append(np.max(products / np.sqrt(energy * (one @ one) + 1e-20)))
    return float(np.median(found))

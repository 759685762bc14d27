"""Speed up recordings, which moves where they end upwards.

A voice that is played faster is another voice, and one that ended at 16 kHz then reaches 24: it
teaches the top octave that its coder or microphone had kept from it.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

#: Speeds are whole multiples of this, so that lengths of transforms are products of small numbers.
STEP = 0.05


def draw_speed(rng: np.random.Generator, highest: float) -> float:
    """Draw a speed of 1.05, 1.1, ... up to ``highest``; 1 where there is none."""
    steps = int((highest - 1.0) / STEP + 1e-6)
    return 1.0 + STEP * int(rng.integers(1, steps + 1)) if steps else 1.0


def speed_up(audio: np.ndarray, samples: int) -> np.ndarray:
    """Play ``(longer,)`` samples in ``(samples,)``: resampling by the discrete Fourier transform.

    What would lie above the Nyquist frequency is left out.
    """
    spectrum = fft.rfft(audio.astype(np.float32))[: samples // 2 + 1]
    return fft.irfft(spectrum, samples) * np.float32(samples / len(audio))

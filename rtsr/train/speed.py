"""Play recordings faster or slower.

A voice that is played at another speed is another voice, and one that ended at 16 kHz reaches 24 at
one and a half times its speed: it teaches the top octave that its coder or microphone had kept
from it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Speeds are whole multiples of this, so that lengths of transforms are products of small numbers.
STEP = 0.05


def draw_speed(rng: np.random.Generator, lowest: float, highest: float) -> float:
    """Draw a whole multiple of 0.05 from ``lowest`` to ``highest``."""
    first, last = round(lowest / STEP + 0.49), round(highest / STEP - 0.49)
    return STEP * int(rng.integers(first, last + 1))


def change_speed(audio: Tensor, samples: int) -> Tensor:
    """Play all of ``audio`` ``(rows, length)`` in ``samples``.

    Resamples by the discrete Fourier transform; content above the Nyquist frequency is left out.
    """
    spectrum = torch.fft.rfft(audio)[:, : samples // 2 + 1]
    return torch.fft.irfft(spectrum, samples) * (samples / audio.shape[1])

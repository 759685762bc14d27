"""The crossover as training sees it: the run-time's recursive high-pass, applied to long blocks.

Live, :mod:`rtsr_kernels.highpass` runs sample by sample. A long block is multiplied with the same
filter's frequency response instead, which is the same result up to rounding and differentiable.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rtsr.model.config import SAMPLE_RATE
from rtsr_kernels.highpass import highpass_sos

CUTOFF_GRID_HZ = 25.0
# Long enough for the filter's ringing to die inside the padding instead of wrapping around.
TAIL_SAMPLES = 4096


@lru_cache(maxsize=1024)
def _response(cutoff_hz: float, size: int) -> np.ndarray:
    """Frequency response of the sections at the ``size / 2 + 1`` bins, complex64."""
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    response = np.ones_like(z)
    for b0, b1, b2, a0, a1, a2 in highpass_sos(cutoff_hz):
        response *= (b0 + z * (b1 + z * b2)) / (a0 + z * (a1 + z * a2))
    return response.astype(np.complex64)


def high_pass(high_band: Tensor, cutoffs: list[float]) -> Tensor:
    """Filter ``(batch, 1, samples)``, item ``i`` above ``cutoffs[i]`` Hz (to the next 25 Hz)."""
    samples = high_band.shape[2]
    size = samples + TAIL_SAMPLES
    size += -size % 4800
    snapped = [
        min(max(round(cutoff / CUTOFF_GRID_HZ) * CUTOFF_GRID_HZ, 100.0), SAMPLE_RATE / 2)
        for cutoff in cutoffs
    ]
    responses = torch.from_numpy(np.stack([_response(cutoff, size) for cutoff in snapped]))
    spectrum = torch.fft.rfft(high_band[:, 0], size) * responses.to(high_band.device)
    return torch.fft.irfft(spectrum, size)[:, None, :samples]

"""Mel bands of a power spectrum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rtsr.timing import SAMPLE_RATE


def mel_bank(bands: int, n_fft: int) -> tuple[Tensor, Tensor]:
    """Triangular mel bands ``(n_fft / 2 + 1, bands)`` of unit sum, and their centres in Hz."""
    top = 2595.0 * math.log10(1.0 + 0.5 * SAMPLE_RATE / 700.0)
    mel = torch.linspace(0.0, top, bands + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    # Narrow bands at the bottom still get at least one bin.
    width = SAMPLE_RATE / n_fft
    low = torch.minimum(edges[:-2], edges[1:-1] - width)
    high = torch.maximum(edges[2:], edges[1:-1] + width)
    frequency = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * width
    rising = (frequency - low) / (edges[1:-1] - low)
    falling = (high - frequency) / (high - edges[1:-1])
    bank = torch.minimum(rising, falling).clamp(min=0.0)
    return (bank / bank.sum(0)).float(), edges[1:-1].float()

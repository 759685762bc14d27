"""The mel bands in which levels are measured, predicted and set."""

from __future__ import annotations

import torch
from torch import Tensor

from rtsr.model.config import NYQUIST


def _mel(hz: Tensor) -> Tensor:
    return 2595.0 * torch.log10(1.0 + hz / 700.0)


def band_interpolation(bands: int, bins: int) -> Tensor:
    """Return triangles on the mel scale (O'Shaughnessy 1987) that sum to one, ``(bands, bins)``."""
    position = _mel(torch.linspace(0.0, NYQUIST, bins)) / _mel(torch.tensor(NYQUIST))
    distance = position[None] * (bands - 1) - torch.arange(bands)[:, None]
    return (1.0 - distance.abs()).clamp(min=0.0)


def band_centres(bands: int) -> Tensor:
    """Return the peak frequencies in Hz ``(bands,)`` of :func:`band_interpolation`'s triangles."""
    top = _mel(torch.tensor(NYQUIST))
    return 700.0 * (10.0 ** (top * torch.linspace(0.0, 1.0, bands) / 2595.0) - 1.0)


def band_means(bands: int, bins: int) -> Tensor:
    """Return the matrix ``(bins, bands)`` from powers of bins to each band's mean power."""
    triangles = band_interpolation(bands, bins)
    return (triangles / triangles.sum(dim=1, keepdim=True)).T.contiguous()

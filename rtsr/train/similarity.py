"""Structural similarity of smoothed band energies, the way a listener compares two sounds.

NSIM (Hines and Harte 2012, eq. 3) is SSIM without its contrast term on a spectrogram in decibels:
how alike two 3 x 3 neighbourhoods are in level and in shape. Differences of energies alone leave
open which of two equally large errors keeps the contours of the sound.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

# Bands further below a frame's loudest one are taken to be masked and are not compared.
AUDIBLE_RANGE_DB = 45.0
_DECIBEL = 10.0 / math.log(10.0)
_KERNEL = (0.0113, 0.0838, 0.0113, 0.0838, 0.6196, 0.0838, 0.0113, 0.0838, 0.0113)
# In dB**2. The metric's own constants are far smaller and would let the slope explode where both
# sounds are flat.
LEVEL_SLACK = 1.0
SHAPE_SLACK = 0.5
_LEAST_VARIANCE = 1e-3


def dissimilarity(
    estimate: Tensor,
    reference: Tensor,
    weights: Tensor,
    slack: tuple[float, float] = (LEVEL_SLACK, SHAPE_SLACK),
) -> Tensor:
    """One minus NSIM of each clip, the weighted mean over the bands; 0 for equal sounds.

    Args:
        estimate: natural logarithms of band powers ``(batch, frames, bands)``.
        reference: likewise.
        weights: of the bands, ``(batch, 1, bands)``; zero where they are not compared.
        slack: up to which level and contours count as flat, in dB**2.
    """
    a, b = _DECIBEL * estimate, _DECIBEL * reference
    threshold = torch.maximum(a.detach(), b).amax(2, keepdim=True) - AUDIBLE_RANGE_DB
    # Decibels above the lowest threshold, as the metric counts level.
    above = threshold - threshold.amin(1, keepdim=True)
    a, b = (a - threshold).relu() + above, (b - threshold).relu() + above
    planes = torch.stack([a, b, a * a, b * b, a * b]).flatten(0, 1)
    means, squares, product = _local_mean(planes).unflatten(0, (5, -1)).split([2, 2, 1])
    squared_means, mean_product = means * means, means[0] * means[1]
    # Rounding may leave a variance a little below zero.
    variance = (squares - squared_means).clamp(min=0.0) + _LEAST_VARIANCE
    level = (2.0 * mean_product + slack[0]) / (squared_means.sum(dim=0) + slack[0])
    deviations = (variance[0] * variance[1]).sqrt()
    covariance = product[0] - mean_product
    shape = (covariance + (_LEAST_VARIANCE + slack[1])) / (deviations + slack[1])
    weight = weights.sum((1, 2)) * a.shape[1] + 1e-3
    return ((1.0 - level * shape) * weights).sum((1, 2)) / weight


def _local_mean(values: Tensor) -> Tensor:
    """Gaussian mean over 3 x 3 neighbours, ``(batch, frames, bands)``; edges are repeated."""
    # Clips as the channels of one image: a batch of images with one channel takes a CPU 30 times
    # as long.
    count = len(values)
    padded = functional.pad(values[None], (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, _kernel(values.device).expand(count, 1, 3, 3), groups=count)[0]


@lru_cache(maxsize=4)
def _kernel(device: torch.device) -> Tensor:
    kernel = torch.tensor(_KERNEL).view(1, 1, 3, 3)
    return (kernel / kernel.sum()).to(device)

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
    """One minus NSIM, the weighted mean over the bands; 0 for equal sounds.

    Args:
        estimate: natural logarithms of band powers ``(batch, frames, bands)``.
        reference: likewise.
        weights: of the bands, ``(batch, 1, bands)``; zero where they are not compared.
        slack: up to which level and contours count as flat, in dB**2.
    """
    a, b = _DECIBEL * estimate, _DECIBEL * reference
    loudest = torch.maximum(a, b).amax(2, keepdim=True).detach()
    threshold = loudest - AUDIBLE_RANGE_DB
    # Decibels above the lowest threshold, as the metric counts level.
    lowest = threshold.amin(1, keepdim=True)
    a, b = torch.maximum(a, threshold) - lowest, torch.maximum(b, threshold) - lowest
    means = _local_mean(torch.stack([a, b, a * a, b * b, a * b]).flatten(0, 1))
    mean_a, mean_b, square_a, square_b, product = means.unflatten(0, (5, -1)).unbind()
    # Rounding may leave a variance a little below zero.
    variance_a = (square_a - mean_a * mean_a).clamp(min=0.0)
    variance_b = (square_b - mean_b * mean_b).clamp(min=0.0)
    covariance = product - mean_a * mean_b
    level = (2.0 * mean_a * mean_b + slack[0]) / (mean_a.square() + mean_b.square() + slack[0])
    deviations = ((variance_a + _LEAST_VARIANCE) * (variance_b + _LEAST_VARIANCE)).sqrt()
    shape = (covariance + _LEAST_VARIANCE + slack[1]) / (deviations + slack[1])
    weight = weights.sum((1, 2)) * a.shape[1] + 1e-3
    per_clip = ((1.0 - level * shape) * weights).sum((1, 2)) / weight
    return per_clip.mean()


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

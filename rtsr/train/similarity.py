"""Structural similarity of smoothed band energies, the way a listener compares two sounds.

NSIM (Hines and Harte 2012, eq. 3) is SSIM without its contrast term on a spectrogram in decibels:
how alike two 3 x 3 neighbourhoods are in level and in shape. Differences of energies alone leave
open which of two equally large errors keeps the contours of the sound.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# Below this much under a frame's loudest band nothing is heard, and nothing is compared.
AUDIBLE_RANGE_DB = 45.0
_DECIBEL = 10.0 / math.log(10.0)
_KERNEL = (0.0113, 0.0838, 0.0113, 0.0838, 0.6196, 0.0838, 0.0113, 0.0838, 0.0113)
# In dB**2. The metric's own constants are far smaller and would let the slope explode where both
# sounds are flat.
_LEVEL_SLACK = 1.0
_SHAPE_SLACK = 0.5
_LEAST_VARIANCE = 1e-3


def dissimilarity(estimate: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """One minus NSIM, the mean over the bands that the mask keeps; 0 for equal sounds.

    Args:
        estimate, truth: natural logarithms of band powers ``(batch, frames, bands)``.
        mask: one or zero, ``(batch, 1, bands)``.
    """
    a, b = _DECIBEL * estimate, _DECIBEL * truth
    loudest = torch.maximum(a, b).amax(2, keepdim=True).detach()
    floor = loudest - AUDIBLE_RANGE_DB
    # Decibels above the quietest floor, as the metric counts level.
    lowest = floor.amin(1, keepdim=True)
    a, b = torch.maximum(a, floor) - lowest, torch.maximum(b, floor) - lowest
    mean_a, mean_b = _local_mean(a), _local_mean(b)
    # Rounding may leave a variance a little below zero.
    variance_a = (_local_mean(a * a) - mean_a * mean_a).clamp(min=0.0)
    variance_b = (_local_mean(b * b) - mean_b * mean_b).clamp(min=0.0)
    covariance = _local_mean(a * b) - mean_a * mean_b
    level = (2.0 * mean_a * mean_b + _LEVEL_SLACK) / (
        mean_a.square() + mean_b.square() + _LEVEL_SLACK
    )
    deviations = ((variance_a + _LEAST_VARIANCE) * (variance_b + _LEAST_VARIANCE)).sqrt()
    shape = (covariance + _LEAST_VARIANCE + _SHAPE_SLACK) / (deviations + _SHAPE_SLACK)
    per_clip = ((1.0 - level * shape) * mask).sum((1, 2)) / (mask.sum((1, 2)) * a.shape[1] + 1e-3)
    return per_clip.mean()


def _local_mean(values: Tensor) -> Tensor:
    """Gaussian mean over 3 x 3 neighbours, ``(batch, frames, bands)``; edges are repeated."""
    kernel = torch.tensor(_KERNEL, device=values.device).view(1, 1, 3, 3)
    padded = functional.pad(values[:, None], (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, kernel / kernel.sum())[:, 0]

"""A loss on how tonal each band is: lines where the reference has lines, noise where it has noise.

Losses on band energies make no difference between a partial and a band of noise as loud, and a
distance of single bins forgives neither a line in the wrong place nor a hole, so that it teaches
fog. How far the mean of the power lies above the mean of its logarithm does not ask where a line
lies, only whether there is one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rtsr.timing import SAMPLE_RATE

N_FFT = 2048
#: 562 Hz
BAND_BINS = 24
#: frames that are averaged: chance varies a single one by half as much as noise lies above fog
FRAMES = 8
STEP = 4
AUDIBLE_RANGE = 10.0**-4.5
LEAST_POWER = 1e-10
_BANDS = N_FFT // 2 // BAND_BINS
_BAND_HZ = BAND_BINS * SAMPLE_RATE / N_FFT


def _in_bands(power: Tensor) -> Tensor:
    """``(batch, frames, 1025)`` to ``(batch, frames, 42, 24)``."""
    return power[..., : _BANDS * BAND_BINS].unflatten(2, (_BANDS, BAND_BINS))


def _averaged(values: Tensor) -> Tensor:
    """``(batch, frames, bands)``, averages over 8 frames, every fourth."""
    return functional.avg_pool1d(values.transpose(1, 2), FRAMES, STEP).transpose(1, 2)


def tonality(power: Tensor) -> Tensor:
    """Logarithm of the spectral flatness, negated: 0 is flat, 0.58 noise, above 1 lines.

    The ratio of arithmetic and geometric mean (Gray and Markel 1974, eq. 6) of the bins of a band.

    Args:
        power: ``(batch, frames, 1025)``.

    Returns:
        ``(batch, frames, 42)``, natural logarithms, averages over 8 frames.
    """
    bins = _in_bands(power) + LEAST_POWER
    return _averaged(bins.mean(dim=3).log() - bins.log().mean(dim=3))


def tonal_difference(powers: tuple[Tensor, Tensor], f_prior: Tensor, f_end: Tensor) -> Tensor:
    """Mean absolute difference of :func:`tonality`, every clip with the same weight.

    Compared are bands that lie whole between cutoff and end, where the reference is no more than
    45 dB below the loudest band of its frames: a coder's holes look like lines.

    Args:
        powers: spectra of estimate and reference ``(batch, frames, 1025)``.
        f_prior: lower limit of the compared bands in Hz, ``(batch,)``.
        f_end: upper limit, likewise.
    """
    estimate, reference = powers
    with torch.no_grad():
        level = _averaged(_in_bands(reference).mean(dim=3))
        audible = level > AUDIBLE_RANGE * level.amax(dim=2, keepdim=True) + LEAST_POWER
        low = torch.arange(_BANDS, device=reference.device) * _BAND_HZ
        inside = (low > f_prior[:, None]) & (low + _BAND_HZ < 0.98 * f_end[:, None])
        mask = (audible & inside[:, None]).float()
    difference = (tonality(estimate) - tonality(reference)).abs()
    return ((difference * mask).sum((1, 2)) / (mask.sum((1, 2)) + 1e-3)).mean()

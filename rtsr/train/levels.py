"""A loss on band levels, computed from the gains without synthesis.

The carriers are flat and of unit power, so a band's gain is its level. Comparing that with the
reference's energies needs no synthesis and one transform instead of seven, so that a step covers
many times as much audio as one that compares waveforms' spectra.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rtsr.model.bands import band_centres, band_means
from rtsr.model.config import SYNTHESIS_FRAME
from rtsr.timing import HOP, OVERLAP
from rtsr.train.gammatone import gammatone_powers, gammatone_weights
from rtsr.train.losses import band_mask
from rtsr.train.similarity import dissimilarity

#: samples of the reference that are compared with one frame, around that frame's own 600
WINDOW = 960
DECIBEL = 10.0 / math.log(10.0)
#: of the possible levels, what gains and the level path learn: above the median, as loud parts
#: matter more
QUANTILE = 0.6
#: the same where loud bands of loud frames are nearly all that counts
CELL_QUANTILE = 0.55
#: there a band's level has half of its weight so far below the loudest, and less over so many dB
CELL_RANGE_DB, CELL_SLOPE_DB = 35.0, 10.0
LEAST_CELL_WEIGHT = 0.15
#: share of the frames whose loudest bands are louder than what counts as the loudest
LOUDEST_SHARE = 0.05
#: frames this far below their clip's loudest, in dB, or further have the least weight
QUIET_RANGE_DB = 40.0
LEAST_WEIGHT, MOST_WEIGHT = 0.3, 2.0
#: frames at the start of a clip, where the state has seen little input, have less weight
FRESH_FRAMES = 32
FRESH_WEIGHT = 0.2
#: contours are compared over 80 ms, every 20
CONTOUR_FRAMES, CONTOUR_STEP = 8, 2
#: smallest power of a gammatone filter that is told from silence, -45 dB of amplitude
LEAST_HEARD = 1e-9
#: frames at the start of a clip that are not compared as they are heard, if it is long enough
UNHEARD_FRAMES = 16
#: in dB**2 of amplitude, up to which level and contours count as flat: near ViSQOL's own
HEARD_SLACK = (1e-4, 0.02)


class LevelLoss(nn.Module):
    """Compares predicted levels with those of the reference.

    Levels are ``(batch, frames, bands)``, natural logarithms of amplitude relative to the running
    level.
    """

    window: Tensor
    means: Tensor
    centres: Tensor
    filters: Tensor
    filter_weights: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        window = torch.hann_window(WINDOW)
        window = window / window.square().mean().sqrt() * WINDOW**-0.5
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("means", band_means(bands, WINDOW // 2 + 1), persistent=False)
        self.register_buffer("centres", band_centres(bands), persistent=False)
        self.register_buffer("filters", gammatone_powers(bands), persistent=False)
        self.register_buffer("filter_weights", gammatone_weights(), persistent=False)

    def powers(self, reference: Tensor) -> Tensor:
        """Compute the mean power per bin in each band of the reference ``(batch, 1, samples)``.

        Frame ``t`` is about where the synthesis puts its own, samples ``480 t - 120`` to
        ``480 t + 480``. White noise of unit variance has power one.
        """
        before = OVERLAP + (WINDOW - SYNTHESIS_FRAME) // 2
        padded = nn.functional.pad(reference[:, 0], (before, WINDOW - HOP - before))
        frames = padded.unfold(1, WINDOW, HOP) * self.window
        spectrum = torch.fft.rfft(frames)
        return (spectrum.real.square() + spectrum.imag.square()) @ self.means

    def forward(
        self,
        estimate: Tensor,
        reference: Tensor,
        level: Tensor,
        limits: tuple[Tensor, Tensor],
        noise_floor: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compare levels frame by frame, and their contours over time.

        Args:
            estimate: of several models of levels, ``(models, batch, frames, bands)``.
            reference: :meth:`powers` of the reference.
            level: running level ``(batch, frames, 1)``.
            limits: ``f_prior`` and where the reference ends in Hz, ``(batch,)`` each.
            noise_floor: power below which the reference is not reliable, ``(batch,)``; levels
                below it count as equal.

        Returns:
            Per model, the mean weighted error in dB, and the dissimilarity of the contours, 0 to 1.
        """
        floors = noise_floor[:, None, None]
        mask = band_mask(self.centres, *limits)
        power = (2.0 * (estimate + level.log())).exp() + floors
        reference = reference + floors
        error = self._error(power, reference, mask)
        return error, self._contours(torch.where(mask > 0.0, power, reference), reference, mask)

    def cell_error(
        self,
        power: Tensor,
        reference: Tensor,
        limits: tuple[Tensor, Tensor],
        noise_floor: Tensor,
    ) -> Tensor:
        """Compare powers band by band; return the mean weighted error in dB.

        The weight of a band in a frame follows its own level, not that of its frame: what is far
        below the loudest sound of a clip is not heard beside it. ViSQOL counts nothing that lies
        45 dB below its frame's peak (Chinen et al. 2020, arXiv 2004.09584).

        Args:
            power: ``(batch, frames, bands)``, and so is ``reference``.
            reference: :meth:`powers` of the reference.
            limits: as for :meth:`forward`.
            noise_floor: as there, but ``(batch, 1, bands)``.
        """
        mask = band_mask(self.centres, *limits)
        target = DECIBEL * (reference + noise_floor).log()
        error = DECIBEL * (power + noise_floor).log() - target
        loudest = (target - 1e3 * (1.0 - mask)).amax(dim=2)
        top = torch.quantile(loudest, 1.0 - LOUDEST_SHARE, dim=1)[:, None, None]
        nearness = ((target - top + CELL_RANGE_DB) / CELL_SLOPE_DB).sigmoid()
        return _mean(_tilted(error, CELL_QUANTILE), mask * (nearness + LEAST_CELL_WEIGHT))

    def heard_dissimilarity(
        self,
        power: Tensor,
        reference: Tensor,
        limits: tuple[Tensor, Tensor],
        noise_floor: Tensor,
    ) -> Tensor:
        """Compare powers as ViSQOL compares the spectrograms of what they stand for; 0 to 1.

        Outside the limits the reference stands in for the estimate, and a filter counts by how much
        of its power comes from within. Arguments as for :meth:`cell_error`.
        """
        mask = (band_mask(self.centres, *limits) > 0.5).float()
        heard = torch.where(mask > 0.0, power, reference) + noise_floor
        logs = [
            0.5 * (_smooth(one @ self.filters) + LEAST_HEARD).log()
            for one in (heard, reference + noise_floor)
        ]
        open_share = mask @ self.filters / self.filters.sum(dim=0)
        first = min(UNHEARD_FRAMES // CONTOUR_STEP, logs[0].shape[1] // 2)
        weights = self.filter_weights * open_share
        return dissimilarity(logs[0][:, first:], logs[1][:, first:], weights, HEARD_SLACK).mean()

    def mean_error(
        self,
        power: Tensor,
        reference: Tensor,
        limits: tuple[Tensor, Tensor],
        noise_floor: Tensor,
    ) -> Tensor:
        """Compare powers band by band, loud or not; return the mean error in dB.

        What is learnt is the median, so that nothing is made louder than it mostly is. Arguments as
        for :meth:`cell_error`.
        """
        error = DECIBEL * ((power + noise_floor).log() - (reference + noise_floor).log())
        return _mean(error.abs(), band_mask(self.centres, *limits).expand_as(power))

    @staticmethod
    def _error(power: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        target = DECIBEL * reference.log()
        error = DECIBEL * power.log() - target
        loudest = (target - 1e3 * (1.0 - mask)).amax(dim=2, keepdim=True)
        range_db = loudest - loudest.amax(dim=1, keepdim=True) + QUIET_RANGE_DB
        steepness = (MOST_WEIGHT - LEAST_WEIGHT) / QUIET_RANGE_DB
        weight = mask * (LEAST_WEIGHT + steepness * range_db).clamp(min=LEAST_WEIGHT)
        return _mean(_tilted(error, QUANTILE), weight)

    @staticmethod
    def _contours(power: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        logs = _smooth(power.flatten(0, 1)).log(), _smooth(reference).log()
        models = len(power)
        per_clip = dissimilarity(logs[0], logs[1].repeat(models, 1, 1), mask.repeat(models, 1, 1))
        return per_clip.unflatten(0, (models, -1)).mean(dim=1)


def _smooth(power: Tensor) -> Tensor:
    """Return means over 80 ms, every 20, of ``(batch, frames, bands)``."""
    smooth = nn.functional.avg_pool1d(power.transpose(1, 2), CONTOUR_FRAMES, CONTOUR_STEP)
    return smooth.transpose(1, 2)


def _mean(error: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean over ``(batch, frames, bands)``; fresh frames count less."""
    weight = torch.cat([weight[:, :FRESH_FRAMES] * FRESH_WEIGHT, weight[:, FRESH_FRAMES:]], dim=1)
    return (error * weight).sum((-3, -2, -1)) / (weight.sum() + 1e-3)


def _tilted(error: Tensor, quantile: float) -> Tensor:
    """Return twice the quantile loss (Koenker and Bassett 1978, "Regression quantiles")."""
    return error * torch.where(error < 0.0, -2.0 * quantile, 2.0 * (1.0 - quantile))

"""A loss on band levels, told from gains before there is any sound.

The carriers are flat and of unit power, so a band's gain says how loud it will be. Comparing that
with the truth's energies needs no synthesis and one transform instead of seven, so that a step
hears many times the sound of one that compares waveforms' spectra.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rtsr.model.bands import band_centres, band_means
from rtsr.model.config import SYNTHESIS_FRAME
from rtsr.timing import HOP, OVERLAP
from rtsr.train.losses import band_mask
from rtsr.train.similarity import dissimilarity

#: samples of the truth that are compared with one frame, around that frame's own 600
WINDOW = 960
DECIBEL = 10.0 / math.log(10.0)
#: which of the levels that may follow is learnt: one above the median, since what is loud is heard
QUANTILE = 0.6
#: a frame this far below its clip's loudest, in dB, and less, weighs least; the loudest most
QUIET_RANGE_DB = 40.0
LEAST_WEIGHT, MOST_WEIGHT = 0.3, 2.0
#: frames at the start of a clip, where a fresh state has heard little, weigh less
FRESH_FRAMES = 32
FRESH_WEIGHT = 0.2
#: contours are compared over 80 ms, every 20
CONTOUR_FRAMES, CONTOUR_STEP = 8, 2


class LevelLoss(nn.Module):
    """Compares levels ``(batch, frames, bands)``, natural logarithms of amplitude relative to the
    running level, with those of the truth."""

    window: Tensor
    means: Tensor
    centres: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        window = torch.hann_window(WINDOW)
        window = window / window.square().mean().sqrt() * WINDOW**-0.5
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("means", band_means(bands, WINDOW // 2 + 1), persistent=False)
        self.register_buffer("centres", band_centres(bands), persistent=False)

    def powers(self, truth: Tensor) -> Tensor:
        """Mean power of a bin in each band of the truth ``(batch, 1, samples)``.

        Frame ``t`` is about where the synthesis puts its own, samples ``480 t - 120`` to
        ``480 t + 480``. White noise of unit variance has power one.
        """
        before = OVERLAP + (WINDOW - SYNTHESIS_FRAME) // 2
        padded = nn.functional.pad(truth[:, 0], (before, WINDOW - HOP - before))
        frames = padded.unfold(1, WINDOW, HOP) * self.window
        spectrum = torch.fft.rfft(frames)
        return (spectrum.real.square() + spectrum.imag.square()) @ self.means

    def forward(
        self,
        estimate: Tensor,
        truth: Tensor,
        level: Tensor,
        limits: tuple[Tensor, Tensor],
        floor: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compare levels frame by frame, and their contours as a listener does.

        Args:
            estimate: ``(batch, frames, bands)``.
            truth: :meth:`powers` of the truth.
            level: running level ``(batch, frames, 1)``.
            limits: ``f_prior`` and where the truth ends in Hz, ``(batch,)`` each.
            floor: power below which the truth says nothing, ``(batch,)``: neither of two levels
                below it is the better one.

        Returns:
            The mean weighted error in dB, and the dissimilarity of the contours, 0 to 1.
        """
        floors = floor[:, None, None]
        mask = band_mask(self.centres, *limits)
        power = (2.0 * (estimate + level.log())).exp()
        return self._error(power + floors, truth + floors, mask), self._contours(
            torch.where(mask > 0.0, power, truth) + floors, truth + floors, mask
        )

    @staticmethod
    def _error(power: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
        target = DECIBEL * truth.log()
        error = DECIBEL * power.log() - target
        quantile = torch.where(error < 0.0, -2.0 * QUANTILE, 2.0 * (1.0 - QUANTILE))
        loudest = (target - 1e3 * (1.0 - mask)).amax(dim=2, keepdim=True)
        range_db = loudest - loudest.amax(dim=1, keepdim=True) + QUIET_RANGE_DB
        steepness = (MOST_WEIGHT - LEAST_WEIGHT) / QUIET_RANGE_DB
        weight = mask * (LEAST_WEIGHT + steepness * range_db).clamp(min=LEAST_WEIGHT)
        weight[:, :FRESH_FRAMES] *= FRESH_WEIGHT
        return ((quantile * error) * weight).sum() / (weight.sum() + 1e-3)

    @staticmethod
    def _contours(power: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
        logs = []
        for side in (power, truth):
            smooth = nn.functional.avg_pool1d(side.transpose(1, 2), CONTOUR_FRAMES, CONTOUR_STEP)
            logs.append(smooth.transpose(1, 2).log())
        return dissimilarity(logs[0], logs[1], mask)

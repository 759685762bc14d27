"""Degradation in the band domain: inputs and references as powers of bands, for the band predictor.

What an equaliser, a low-pass, a noise floor or a coder's noise does to the power of a band takes
one multiplication or addition there, so that a batch costs little beside the network's own step.
What depends on phase, or on the order of samples, is left to :mod:`rtsr.train.degrade`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rtsr.model.analysis import ANALYSIS_FRAME, analysis_window, below
from rtsr.model.bands import band_means
from rtsr.timing import HOP
from rtsr.train.corpus import Crops
from rtsr.train.degrade import (
    KNOTS,
    LOSSLESS_NOISE_FLOOR,
    LOSSY_NOISE_FLOOR,
    TELEPHONE_HZ,
    DegradeConfig,
    amplitude,
    draw_cutoffs,
    draw_floor,
    draw_knots,
    frequency_axis,
    mix,
)
from rtsr.train.device import placed
from rtsr.train.levels import LevelLoss
from rtsr.train.low_passes import low_pass_gains

BINS = ANALYSIS_FRAME // 2 + 1
#: range of gains in dB, on recordings near full scale and on quieter ones
GAINS_DB = (-30.0, 10.0)
#: mean power of a bin of rounding to 24, 16 and 12 bits (a step's square over 12, and dither's)
ROUNDING = tuple((2.0 ** (1 - bits)) ** 2 / 4.0 for bits in (24, 16, 12))
ROUNDING_SHARES = (0.2, 0.7, 0.1)
#: of telephones: where their high-pass begins, its dB per octave, and G.711's distance of its noise
#: from the signal in dB
HIGH_PASS_HZ = (120.0, 320.0)
HIGH_PASS_SLOPES = (12.0, 24.0, 48.0)
COMPANDING_DB = (30.0, 42.0)

DrawCutoffs = Callable[[np.ndarray, DegradeConfig, np.random.Generator], np.ndarray]


@dataclass
class Bands:
    """One batch of band powers, mean powers of a bin: white noise of unit variance has one.

    ``power`` of the input and ``reference`` ``(batch, frames, bands)``; per clip, ``f_prior`` in Hz
    as the run-time would measure it and ``f_end`` where the reference ends, ``(batch,)``; the
    ``noise_floor`` below which the reference is not reliable, ``(batch, 1, bands)``; one where the
    clip is speech and zero elsewhere, ``is_speech`` ``(batch,)``.
    """

    power: Tensor
    reference: Tensor
    f_prior: Tensor
    f_end: Tensor
    noise_floor: Tensor
    is_speech: Tensor

    @property
    def cutoffs(self) -> Tensor:
        """``f_prior`` of every frame, ``(batch, frames, 1)``."""
        clips, frames, _ = self.power.shape
        return self.f_prior[:, None, None].expand(clips, frames, 1)


class BandDomain:
    """Makes batches of band powers from full-band clips.

    Args:
        levels: measures references.
        bands: of the model.
        config: shares of the degradations. Rooms, analog filters of their own and coded versions
            are not made in this domain.
        device: of the clips.
    """

    def __init__(
        self, levels: LevelLoss, bands: int, config: DegradeConfig, device: torch.device
    ) -> None:
        self.levels, self.config, self.device = levels, config, device
        self.window = analysis_window().to(device) * ANALYSIS_FRAME**-0.5
        self.means = band_means(bands, BINS).to(device)
        self.frequencies, self.octaves, self.hats = frequency_axis(ANALYSIS_FRAME, device)
        # How many independent bins a band's power is the mean of.
        self.freedom = 1.0 / self.means.square().sum(dim=0)

    def spectra(self, clips: Tensor) -> Tensor:
        """Return the powers of bins ``(batch, frames, 513)`` that the model analyses."""
        padded = functional.pad(clips, (ANALYSIS_FRAME - HOP, 0))
        spectrum = torch.fft.rfft(padded.unfold(1, ANALYSIS_FRAME, HOP) * self.window)
        return spectrum.real.square() + spectrum.imag.square()

    def degrade(
        self, crops: Crops, rng: np.random.Generator, draw: DrawCutoffs = draw_cutoffs
    ) -> Bands:
        """Degrade a drawn batch, whose coded versions are not used.

        Args:
            crops: the batch.
            rng: the only source of randomness, apart from torch's for noise.
            draw: gives each clip's cutoff in Hz, from where its own content ends.
        """
        config, count = self.config, len(crops.pieces)
        everywhere = np.ones(count, bool)
        ends = np.array(crops.cutoffs_hz, dtype=np.float64)
        clips = crops.on(self.device)
        clips, ends, lossy = mix(clips, ends, crops.lossy, config, rng, everywhere)
        colour, floor = self._draw_colours(count, rng)
        reference = self.levels.powers(clips[:, None]) * (colour @ self.means)
        reference = reference + self._noise(floor, reference.shape)

        cutoffs = draw(ends, config, rng)
        jitter = 1.0 + rng.uniform(-config.cutoff_jitter, config.cutoff_jitter, count)
        floors = np.where(lossy, LOSSY_NOISE_FLOOR, LOSSLESS_NOISE_FLOOR)
        f_prior, f_end, unreliable, is_speech = placed(
            np.stack([cutoffs * jitter, ends, floors, crops.is_speech]), self.device
        )
        filters = self._draw_filters(cutoffs, rng)
        spectra = self.spectra(clips) * (colour * filters)
        mask = below(f_prior[:, None, None], self.frequencies).square()
        open_to = mask @ self.means
        power = (spectra * mask) @ self.means
        power = power + self._noise(floor * filters, power.shape) * open_to
        power = power + self._draw_rounding(power, open_to, cutoffs, rng) * open_to
        noise_floor = unreliable[:, None, None] * (colour @ self.means)
        return Bands(power, reference, f_prior, f_end, noise_floor, is_speech)

    def _draw_colours(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw what input and reference share: gains and noise floors of power, per bin."""
        knots = np.zeros((count, KNOTS))
        tilts, floors_db = np.zeros(count), np.full(count, -np.inf)
        for row in range(count):
            if rng.random() < self.config.equalizer_share:
                knots[row] = draw_knots(rng)
            if rng.random() < self.config.floor_share:
                tilts[row], floors_db[row] = draw_floor(rng)
        gains, tilt, floor_db = placed(
            np.stack([rng.uniform(*GAINS_DB, count), tilts, floors_db])[:, :, None], self.device
        )
        colour = amplitude(gains + placed(knots, self.device) @ self.hats).square()
        floor = amplitude(floor_db + tilt * self.octaves).square()
        return colour[:, None], floor[:, None]

    def _draw_filters(self, cutoffs: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Draw what only the input gets: gains of power per bin ``(batch, 1, 513)``."""
        is_sloped = rng.random(len(cutoffs)) < self.config.analog_share
        starts = cutoffs * np.where(is_sloped, rng.uniform(0.84, 0.97, len(cutoffs)), 0.999)
        low_pass = low_pass_gains(self.frequencies, cutoffs, starts).square()
        is_call = (cutoffs <= TELEPHONE_HZ * 1.03) & (rng.random(len(cutoffs)) < 0.25)
        edges = np.where(is_call, rng.uniform(*HIGH_PASS_HZ, len(cutoffs)), 1e-3)
        edge, slope = placed(
            np.stack([edges, rng.choice(HIGH_PASS_SLOPES, len(cutoffs))])[:, :, None], self.device
        )
        octaves = (edge / self.frequencies.clamp(min=20.0)).log2().clamp(min=0.0)
        return (low_pass * amplitude(-slope * octaves).square())[:, None]

    def _draw_rounding(
        self, power: Tensor, open_to: Tensor, cutoffs: np.ndarray, rng: np.random.Generator
    ) -> Tensor:
        """Draw the power of rounding, and of companding, ``(batch, frames, 1)``."""
        count = len(cutoffs)
        steps = rng.choice(ROUNDING, count, p=ROUNDING_SHARES)
        is_call = (cutoffs <= TELEPHONE_HZ) & (rng.random(count) < self.config.companding_share)
        distance = np.where(is_call, -rng.uniform(*COMPANDING_DB, count), -np.inf)
        step, decibels = placed(np.stack([steps, distance])[:, :, None, None], self.device)
        own = power.sum(dim=2, keepdim=True) / open_to.sum(dim=2, keepdim=True).clamp(min=1.0)
        return step + own * amplitude(decibels).square()

    def _noise(self, mean: Tensor, shape: torch.Size) -> Tensor:
        """Return powers of bands of Gaussian noise whose bins have the mean powers given."""
        freedom = self.freedom.expand(shape)
        unit = torch.distributions.Gamma(freedom, freedom, validate_args=False).sample()
        return (mean @ self.means) * unit

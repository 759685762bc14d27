"""What one training step makes smaller: the losses of its stage, each with its weight."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from rtsr.model.generator import Generator
from rtsr.train.band_domain import Bands
from rtsr.train.discriminators import Discriminators
from rtsr.train.levels import LevelLoss
from rtsr.train.losses import SpectralLoss
from rtsr.train.schedule import AUTOENCODER, FLOW, LEVELS, REFINEMENT
from rtsr.train.settings import TrainSettings
from rtsr.train.stages import (
    Batch,
    adversarial_losses,
    all_levels,
    autoencode,
    flow_matching,
    latent_losses,
    level_terms,
    one_step,
    other_sound_levels,
    path_levels,
    predictor_levels,
)

#: of telling speech from other sound, a cross-entropy, against decibels
SPEECH_WEIGHT = 3.0


@dataclass
class Moment:
    """Where a run is: the index of its ``stage``, the ``step`` in it, the ``fraction`` done."""

    stage: int
    step: int
    fraction: float


@dataclass
class Losses:
    """``total`` to be made smaller, and every term unweighted.

    ``of_discriminators`` is their own loss of the same batch, ``None`` where they are not trained.
    """

    total: Tensor
    terms: dict[str, Tensor]
    of_discriminators: Tensor | None = None


class Objective:
    """Computes the losses of a batch; ``autocast`` opens the context of the networks' precision."""

    def __init__(
        self,
        settings: TrainSettings,
        spectral: SpectralLoss,
        discriminators: Discriminators,
        levels: LevelLoss,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.settings = settings
        self.spectral, self.discriminators, self.levels = spectral, discriminators, levels
        self.autocast = autocast

    def losses(
        self, generator: Generator, teacher: Generator | None, batch: Batch, moment: Moment
    ) -> Losses:
        """Losses of the stage; what has weight zero, or lacks its teacher, is not computed."""
        if moment.stage == FLOW:
            with self.autocast():
                flow = flow_matching(generator, batch)
            return Losses(flow, {"flow": flow})
        if self.is_of_levels(moment):
            return self._level_losses(generator, batch, moment)
        z: Tensor | None = None
        level: dict[str, Tensor] = {}
        with self.autocast():
            if moment.stage == AUTOENCODER:
                pair = autoencode(generator, batch)
            else:
                refined = one_step(generator, batch)
                pair, z = refined.pair, refined.z
                if self.settings.levels:
                    level = level_terms(self.levels, refined.conditioning, refined.gains, batch)
        spectra = self.spectral.powers(pair.estimate, pair.reference)
        terms = self.spectral(spectra, pair.f_prior, pair.f_end, pair.noise_floor)
        losses = Losses(terms.pop("total"), terms)
        if level:
            losses.total = losses.total + self.settings.levels * self._weighted(level)
            terms.update(level)
        if self._uses_discriminators(moment):
            with self.autocast():
                judgements = self.discriminators.judge(spectra, pair.f_prior, pair.f_end)
                losses.of_discriminators = self.discriminators.loss(judgements)
                weighted, adversary = adversarial_losses(judgements, self.settings)
            losses.total = losses.total + weighted
            terms.update(adversary)
        if z is not None and teacher is not None and self._is_taught(moment):
            with self.autocast():
                latent = latent_losses(z, teacher, batch, self.settings)
            terms.update(latent)
            weights = {
                "distillation": self.settings.distillation * (1.0 - moment.fraction),
                "distribution": self.settings.distribution,
            }
            for name, value in latent.items():
                losses.total = losses.total + weights[name] * value
        return losses

    def predictor_losses(self, generator: Generator, bands: Bands) -> Losses:
        """Losses of a step in which the band predictor learns alone."""
        if self.settings.other_sound_alone:
            return self.other_sound_losses(generator, bands)
        with self.autocast():
            terms = predictor_levels(generator, bands, self.levels)
        weights = {
            "predictor_heard": self.settings.predictor_heard,
            "is_speech": SPEECH_WEIGHT,
        }
        total = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return Losses(total, terms)

    def other_sound_losses(self, generator: Generator, bands: Bands) -> Losses:
        """Losses of the band predictor's part for other sound."""
        with self.autocast():
            terms = other_sound_levels(generator, bands, self.levels)
        return Losses(terms["other_sound"], terms)

    def is_of_predictor(self, generator: Generator, moment: Moment) -> bool:
        """Whether the band predictor learns alone, in the first part of the stage of levels."""
        is_first = moment.stage == LEVELS and moment.fraction < self.settings.predictor_share
        return is_first and generator.band_predictor is not None

    def part_done(self, generator: Generator, moment: Moment) -> float:
        """Return the share that is done of what learning rates follow.

        That is the stage, but in the stage of levels what the band predictor takes of it, and then
        the rest.
        """
        if moment.stage != LEVELS or generator.band_predictor is None:
            return moment.fraction
        alone = self.settings.predictor_share
        if moment.fraction < alone:
            return moment.fraction / alone
        return (moment.fraction - alone) / (1.0 - alone) if alone < 1.0 else 1.0

    def is_of_levels(self, moment: Moment) -> bool:
        """Whether a step compares levels alone: in their stage, and now and then in refinement."""
        every = self.settings.levels_every
        is_turn = bool(every) and moment.step % every == every - 1
        return moment.stage == LEVELS or (moment.stage == REFINEMENT and is_turn)

    def _level_losses(self, generator: Generator, batch: Batch, moment: Moment) -> Losses:
        has_path = generator.level_path is not None
        settings = self.settings
        first = settings.predictor_share if generator.band_predictor is not None else 0.0
        end = first + (1.0 - first) * settings.path_alone
        is_alone = moment.stage == LEVELS and moment.fraction < end
        with self.autocast():
            if has_path and is_alone:
                terms = path_levels(generator, batch, self.levels)
            else:
                terms = all_levels(generator, batch, self.levels)
        return Losses(self._weighted(terms), terms)

    def _weighted(self, levels: dict[str, Tensor]) -> Tensor:
        """Sum of the errors in dB and, with their weight, of the contours."""
        contours = self.settings.contours
        parts = [
            contours * value if name.endswith("_contours") else value
            for name, value in levels.items()
        ]
        return torch.stack(parts).sum()

    def _uses_discriminators(self, moment: Moment) -> bool:
        settings = self.settings
        wanted = bool(settings.adversarial or settings.feature_matching)
        return wanted and moment.fraction >= settings.adversarial_start

    def _is_taught(self, moment: Moment) -> bool:
        settings = self.settings
        wanted = bool(settings.distillation or settings.distribution)
        return wanted and moment.step % settings.distillation_every == 0

"""What one training step makes smaller: the losses of its stage, each with its weight."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from rtsr.model.generator import Generator
from rtsr.train.discriminators import Discriminators
from rtsr.train.losses import Powers, SpectralLoss
from rtsr.train.settings import TrainSettings
from rtsr.train.stages import (
    Batch,
    Pair,
    adversarial_losses,
    autoencode,
    flow_matching,
    latent_losses,
    one_step,
)


@dataclass
class Moment:
    """Where a run is: ``stage`` 0 to 2, the ``step`` within it, the ``fraction`` of it done."""

    stage: int
    step: int
    fraction: float


@dataclass
class Losses:
    """``total`` to be made smaller, and every term unweighted.

    ``judged`` is what the discriminators have looked at, ``None`` where they are at rest.
    """

    total: Tensor
    terms: dict[str, Tensor]
    judged: tuple[Powers, Pair] | None = None


class Objective:
    """Computes the losses of a batch; ``autocast`` opens the context of the networks' precision."""

    def __init__(
        self,
        settings: TrainSettings,
        spectral: SpectralLoss,
        discriminators: Discriminators,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.settings = settings
        self.spectral, self.discriminators, self.autocast = spectral, discriminators, autocast

    def losses(
        self, generator: Generator, teacher: Generator | None, batch: Batch, moment: Moment
    ) -> Losses:
        """Losses of the stage; what has weight zero, or lacks its teacher, is not computed."""
        if moment.stage == 1:
            with self.autocast():
                flow = flow_matching(generator, batch)
            return Losses(flow, {"flow": flow})
        z: Tensor | None = None
        with self.autocast():
            if moment.stage == 0:
                pair = autoencode(generator, batch)
            else:
                pair, z = one_step(generator, batch)
        spectra = self.spectral.powers(pair.estimate, pair.truth)
        terms = self.spectral(spectra, pair.f_prior, pair.f_target)
        losses = Losses(terms.pop("total"), terms)
        if self._is_judged(moment):
            losses.judged = spectra, pair
            with self.autocast():
                judged, judgement = adversarial_losses(
                    spectra, pair, self.discriminators, self.settings
                )
            losses.total = losses.total + judged
            terms.update(judgement)
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

    def _is_judged(self, moment: Moment) -> bool:
        settings = self.settings
        wanted = bool(settings.adversarial or settings.feature_matching)
        return wanted and moment.fraction >= settings.adversarial_start

    def _is_taught(self, moment: Moment) -> bool:
        settings = self.settings
        wanted = bool(settings.distillation or settings.distribution)
        return wanted and moment.step % settings.distillation_every == 0

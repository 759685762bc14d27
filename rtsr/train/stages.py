"""What is optimised in each of the four stages: one function per stage, from batch to losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rtsr.model.crossover import high_pass
from rtsr.model.flow import euler, start_point
from rtsr.model.generator import Generator, Heard
from rtsr.model.nrae import Shape
from rtsr.model.streaming import State, branch
from rtsr.timing import HOP, OVERLAP
from rtsr.train.degrade import Degraded
from rtsr.train.discriminators import Discriminators
from rtsr.train.levels import LevelLoss
from rtsr.train.losses import Powers, sliced_wasserstein
from rtsr.train.settings import TrainSettings

STAGES = ("autoencoder", "flow", "levels", "refinement")
AUTOENCODER, FLOW, LEVELS, REFINEMENT = range(len(STAGES))


@dataclass
class Pair:
    """Estimate and truth ``(batch, samples)``, aligned; per clip ``(batch,)`` the limits in Hz of
    the band that is judged, and the power below which the truth says nothing."""

    estimate: Tensor
    truth: Tensor
    f_prior: Tensor
    f_end: Tensor
    floor: Tensor


@dataclass
class Refined:
    """What the live path made of a batch: the sound, and the latent and gains on the way."""

    pair: Pair
    z: Tensor
    heard: Heard
    shape: Shape


class Batch:
    """A degraded batch with what every stage needs: per-frame cutoffs, noise, a fresh state."""

    def __init__(self, generator: Generator, data: Degraded) -> None:
        self.data = data
        clips, _, samples = data.narrow.shape
        frames = samples // HOP
        self.f_prior = data.f_prior[:, None, None].expand(clips, frames, 1)
        self.f_target = data.f_target[:, None, None].expand(clips, frames, 1)
        self.noise = torch.randn(
            clips, frames, generator.config.noise_channels, device=data.narrow.device
        )
        self.state: State = generator.initial_state(clips)

    @property
    def cutoffs(self) -> tuple[Tensor, Tensor]:
        return self.f_prior, self.f_target

    def pair(self, high_band: Tensor) -> Pair:
        """Add the generated band to the input as the engine does and align it with the truth."""
        data = self.data
        generated = high_pass(high_band.float(), data.cutoffs_hz)[:, 0, OVERLAP:]
        return Pair(
            data.narrow[:, 0, :-OVERLAP] + generated,
            data.truth[:, 0, :-OVERLAP],
            data.f_prior,
            data.f_end,
            data.floor,
        )


def autoencode(generator: Generator, batch: Batch, noise_level: float | None = None) -> Pair:
    """Stage 1: decode the truth's own latent, disturbed by noise.

    Its standard deviation is random, up to the configuration's ``decoder_noise``, unless
    ``noise_level`` says it.
    """
    latent = generator.config.latent
    # The latent holds the levels: nothing is to be guessed.
    heard, _ = generator.hear(batch.data.narrow, batch.f_prior, batch.state, with_levels=False)
    z = generator.encode_truth(batch.data.truth, heard.level, batch.f_target)
    if noise_level is None:
        sigma = torch.rand(z.shape[0], 1, 1, device=z.device) * generator.config.decoder_noise
    else:
        sigma = torch.full((z.shape[0], 1, 1), noise_level, device=z.device)
    z = z + sigma * batch.noise[..., :latent]
    high_band, _ = generator.decode(z, heard, batch.noise[..., latent:], batch.cutoffs, batch.state)
    return batch.pair(high_band)


def flow_matching(generator: Generator, batch: Batch) -> Tensor:
    """Stage 2: conditional flow matching in the frozen latent (arXiv 2210.02747, eq. 23)."""
    with torch.no_grad():
        heard, _ = generator.hear(batch.data.narrow, batch.f_prior, batch.state, with_levels=False)
        end = generator.encode_truth(batch.data.truth, heard.level, batch.f_target)
    begin = start_point(generator.config, heard.z, batch.noise[..., : generator.config.latent])
    time = torch.rand(end.shape[0], 1, 1, device=end.device)
    velocity, _ = generator.velocity.step(
        (1.0 - time) * begin + time * end,
        heard.z,
        heard.hidden,
        (time.expand_as(batch.f_prior), *batch.cutoffs),
        branch(batch.state, "velocity"),
    )
    return (velocity.float() - (end - begin).float()).square().mean()


def path_levels(generator: Generator, batch: Batch, loss: LevelLoss) -> dict[str, Tensor]:
    """Stage 3, its first part: what the level path says by itself."""
    levels, level = generator.expect(batch.data.narrow, batch.f_prior, batch.state)
    return _judge_levels(loss, {"path": levels.level}, level, batch)


def all_levels(generator: Generator, batch: Batch, loss: LevelLoss) -> dict[str, Tensor]:
    """Stage 3, its second part: the path, and the gains that follow from everything."""
    heard, _, shape = _live_gains(generator, batch)
    return level_terms(loss, heard, shape, batch)


def level_terms(loss: LevelLoss, heard: Heard, shape: Shape, batch: Batch) -> dict[str, Tensor]:
    """Errors of the ``levels`` that the gains give, and of those that the ``path`` says: in dB, and
    of their contours."""
    estimates = {"levels": shape.level()}
    if heard.levels is not None:
        estimates["path"] = heard.levels.level
    return _judge_levels(loss, estimates, heard.level, batch)


def _judge_levels(
    loss: LevelLoss, estimates: dict[str, Tensor], level: Tensor, batch: Batch
) -> dict[str, Tensor]:
    data = batch.data
    limits = data.f_prior, data.f_end
    terms = {}
    with torch.autocast(level.device.type, enabled=False):
        truth = loss.powers(data.truth)
        for name, estimate in estimates.items():
            error, contours = loss(estimate, truth, level.detach(), limits, data.floor)
            terms.update({name: error, f"{name}_contours": contours})
    return terms


def one_step(generator: Generator, batch: Batch) -> Refined:
    """Stage 4: the live path end to end."""
    latent = generator.config.latent
    heard, z, shape = _live_gains(generator, batch)
    high_band, _ = generator.sound(
        shape, heard, batch.noise[..., latent:], batch.cutoffs, batch.state
    )
    return Refined(batch.pair(high_band), z, heard, shape)


def _live_gains(generator: Generator, batch: Batch) -> tuple[Heard, Tensor, Shape]:
    """The live path up to the gains: what was heard, the latent after one Euler step, the gains."""
    heard, _ = generator.hear(batch.data.narrow, batch.f_prior, batch.state)
    z = integrate(generator, heard, batch, steps=1)
    shape, _ = generator.shape(z, heard, batch.cutoffs, batch.state)
    return heard, z, shape


def integrate(generator: Generator, heard: Heard, batch: Batch, steps: int) -> Tensor:
    """Latent after ``steps`` Euler steps from the batch's own noise."""
    begin = start_point(generator.config, heard.z, batch.noise[..., : generator.config.latent])
    states = [branch(batch.state, "velocity")] * steps
    z, _ = euler(generator.velocity, begin, heard.z, heard.hidden, batch.cutoffs, states)
    return z


def latent_losses(
    z: Tensor, teacher: Generator, batch: Batch, settings: TrainSettings
) -> dict[str, Tensor]:
    """Distillation from the teacher's several steps, and distribution matching to the truth.

    A term of weight zero is neither computed nor returned.
    """
    terms: dict[str, Tensor] = {}
    with torch.no_grad():
        heard, _ = teacher.hear(batch.data.narrow, batch.f_prior, batch.state, with_levels=False)
    if settings.distillation:
        with torch.no_grad():
            target = integrate(teacher, heard, batch, settings.teacher_steps)
        terms["distillation"] = (z.float() - target.float()).abs().mean()
    if settings.distribution:
        with torch.no_grad():
            truth = teacher.encode_truth(batch.data.truth, heard.level, batch.f_target)
        terms["distribution"] = sliced_wasserstein(z, truth)
    return terms


def adversarial_losses(
    spectra: Powers, pair: Pair, discriminators: Discriminators, settings: TrainSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the adversarial and the feature-matching loss, and both terms.

    A term of weight zero is neither computed nor returned.
    """
    weights = {"adversarial": settings.adversarial, "matching": settings.feature_matching}
    wanted = {name: weight for name, weight in weights.items() if weight}
    terms = discriminators.judge(spectra, pair.f_prior, pair.f_end, tuple(wanted))
    total = pair.f_prior.new_zeros(())
    for name, weight in wanted.items():
        total = total + weight * terms[name]
    return total, terms

"""What is optimised in each of the four stages: one function per stage, from batch to losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rtsr.model.crossover import high_pass
from rtsr.model.flow import euler, start_point
from rtsr.model.generator import Conditioning, Generator
from rtsr.model.nrae import CarrierGains
from rtsr.model.streaming import State, branch
from rtsr.timing import HOP, OVERLAP
from rtsr.train.band_domain import Bands
from rtsr.train.degrade import Degraded
from rtsr.train.discriminators import Discriminators, Judgement
from rtsr.train.levels import LevelLoss
from rtsr.train.losses import sliced_wasserstein
from rtsr.train.settings import TrainSettings


@dataclass
class Pair:
    """Estimate and reference ``(batch, samples)``, aligned.

    Per clip ``(batch,)``: ``f_prior`` and ``f_end``, the limits in Hz of the band that is compared,
    and ``noise_floor``, the power below which the reference is not reliable.
    """

    estimate: Tensor
    reference: Tensor
    f_prior: Tensor
    f_end: Tensor
    noise_floor: Tensor


@dataclass
class Refined:
    """Output of the run-time path for a batch, with its latent, conditioning and gains."""

    pair: Pair
    z: Tensor
    conditioning: Conditioning
    gains: CarrierGains


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
        """``f_prior`` and ``f_target`` in Hz, ``(batch, frames, 1)`` each."""
        return self.f_prior, self.f_target

    def pair(self, high_band: Tensor) -> Pair:
        """Add the generated band to the input, as the engine does, aligned with the reference."""
        data = self.data
        generated = high_pass(high_band.float(), data.cutoffs_hz)[:, 0, OVERLAP:]
        return Pair(
            data.narrow[:, 0, :-OVERLAP] + generated,
            data.reference[:, 0, :-OVERLAP],
            data.f_prior,
            data.f_end,
            data.noise_floor,
        )


def autoencode(generator: Generator, batch: Batch, noise_level: float | None = None) -> Pair:
    """Stage 1: decode the reference's own latent with added noise.

    The noise's standard deviation is random, up to the configuration's ``decoder_noise``, unless
    ``noise_level`` is given.
    """
    latent = generator.config.latent
    # The latent holds the levels, so none need be predicted.
    conditioning, _ = generator.analyse(
        batch.data.narrow, batch.f_prior, batch.state, with_levels=False
    )
    z = generator.encode_reference(batch.data.reference, conditioning.level, batch.f_target)
    if noise_level is None:
        sigma = torch.rand(z.shape[0], 1, 1, device=z.device) * generator.config.decoder_noise
    else:
        sigma = torch.full((z.shape[0], 1, 1), noise_level, device=z.device)
    z = z + sigma * batch.noise[..., :latent]
    high_band, _ = generator.decode(
        z, conditioning, batch.noise[..., latent:], batch.cutoffs, batch.state
    )
    return batch.pair(high_band)


def flow_matching(generator: Generator, batch: Batch) -> Tensor:
    """Stage 2: conditional flow matching in the frozen latent (arXiv 2210.02747, eq. 23)."""
    with torch.no_grad():
        conditioning, _ = generator.analyse(
            batch.data.narrow, batch.f_prior, batch.state, with_levels=False
        )
        end = generator.encode_reference(batch.data.reference, conditioning.level, batch.f_target)
    begin = start_point(
        generator.config, conditioning.z, batch.noise[..., : generator.config.latent]
    )
    time = torch.rand(end.shape[0], 1, 1, device=end.device)
    velocity, _ = generator.velocity.step(
        (1.0 - time) * begin + time * end,
        conditioning.z,
        conditioning.hidden,
        (time.expand_as(batch.f_prior), *batch.cutoffs),
        branch(batch.state, "velocity"),
    )
    return (velocity.float() - (end - begin).float()).square().mean()


def predictor_levels(generator: Generator, bands: Bands, loss: LevelLoss) -> dict[str, Tensor]:
    """Stage 3, first part: train the band predictor by itself, on powers of bands.

    Its part for other sound, if it has one, follows, so that what it knows of the hidden values
    does not go out of date.

    Raises:
        ValueError: the model has no band predictor.
    """
    predicted = generator.predict_from_bands(bands.power, bands.cutoffs)
    # Nothing of what is no speech is compared.
    limits = bands.f_prior, bands.is_speech * bands.f_end
    compared = (2.0 * predicted.speech).exp(), bands.reference, limits, bands.noise_floor
    wanted = bands.is_speech[:, None, None].expand_as(predicted.logit)
    doubt = functional.binary_cross_entropy_with_logits(predicted.logit.float(), wanted)
    # Eight bits of mantissa would leave nothing of the variances of decibels.
    with torch.autocast(doubt.device.type, enabled=False):
        terms = {
            "predictor": loss.cell_error(*compared),
            "predictor_heard": loss.heard_dissimilarity(*compared),
            "is_speech": doubt,
        }
    if predicted.other is not None:
        terms["other_sound"] = _other_error(predicted.other, bands, loss)
    return terms


def other_sound_levels(generator: Generator, bands: Bands, loss: LevelLoss) -> dict[str, Tensor]:
    """Stage 3, all but its first part: train the band predictor's part for other sound.

    It follows the level path, whose hidden values are its inputs and which it does not change.

    Raises:
        ValueError: the model has no such part.
    """
    predicted = generator.predict_from_bands(bands.power, bands.cutoffs)
    if predicted.other is None:
        raise ValueError(f"the model {generator.config.name!r} has no part for other sound")
    return {"other_sound": _other_error(predicted.other, bands, loss)}


def _other_error(other: Tensor, bands: Bands, loss: LevelLoss) -> Tensor:
    """Return the mean error in dB of levels of what is no speech."""
    limits = bands.f_prior, (1.0 - bands.is_speech) * bands.f_end
    return loss.mean_error((2.0 * other).exp(), bands.reference, limits, bands.noise_floor)


def path_levels(generator: Generator, batch: Batch, loss: LevelLoss) -> dict[str, Tensor]:
    """Stage 3, second part: train the level path by itself."""
    levels, level = generator.predict_levels(batch.data.narrow, batch.f_prior, batch.state)
    return _compare_levels(loss, {"path": levels.level}, level, batch)


def all_levels(generator: Generator, batch: Batch, loss: LevelLoss) -> dict[str, Tensor]:
    """Stage 3, third part: train the level path and the decoder's gains together."""
    conditioning, _, gains = _run_time_gains(generator, batch)
    return level_terms(loss, conditioning, gains, batch)


def level_terms(
    loss: LevelLoss, conditioning: Conditioning, gains: CarrierGains, batch: Batch
) -> dict[str, Tensor]:
    """Compare the levels that the gains give, and those of the level path, with the reference's.

    Returns the errors in dB, ``levels`` and ``path``, and those of their contours.
    """
    estimates = {"levels": gains.level()}
    if conditioning.levels is not None:
        estimates["path"] = conditioning.levels.level
    return _compare_levels(loss, estimates, conditioning.level, batch)


def _compare_levels(
    loss: LevelLoss, estimates: dict[str, Tensor], level: Tensor, batch: Batch
) -> dict[str, Tensor]:
    data = batch.data
    limits = data.f_prior, data.f_end
    with torch.autocast(level.device.type, enabled=False):
        errors, contours = loss(
            torch.stack(list(estimates.values())),
            loss.powers(data.reference),
            level.detach(),
            limits,
            data.noise_floor,
        )
    terms = {}
    for name, error, contour in zip(estimates, errors.unbind(), contours.unbind(), strict=True):
        terms.update({name: error, f"{name}_contours": contour})
    return terms


def one_step(generator: Generator, batch: Batch) -> Refined:
    """Stage 4: run the run-time path end to end."""
    latent = generator.config.latent
    conditioning, z, gains = _run_time_gains(generator, batch)
    high_band, _ = generator.synthesise(
        gains, conditioning, batch.noise[..., latent:], batch.cutoffs, batch.state
    )
    return Refined(batch.pair(high_band), z, conditioning, gains)


def _run_time_gains(
    generator: Generator, batch: Batch
) -> tuple[Conditioning, Tensor, CarrierGains]:
    """Run the run-time path up to the gains: conditioning, latent after one Euler step, gains."""
    # The rest of the model learns without the band predictor, or it would learn to undo its errors
    # and be no other opinion.
    conditioning, _ = generator.analyse(
        batch.data.narrow, batch.f_prior, batch.state, with_prediction=False
    )
    z = integrate(generator, conditioning, batch, steps=1)
    gains, _ = generator.gains(z, conditioning, batch.cutoffs, batch.state)
    return conditioning, z, gains


def integrate(generator: Generator, conditioning: Conditioning, batch: Batch, steps: int) -> Tensor:
    """Return the latent after ``steps`` Euler steps from the batch's own noise."""
    begin = start_point(
        generator.config, conditioning.z, batch.noise[..., : generator.config.latent]
    )
    states = [branch(batch.state, "velocity")] * steps
    z, _ = euler(
        generator.velocity, begin, conditioning.z, conditioning.hidden, batch.cutoffs, states
    )
    return z


def latent_losses(
    z: Tensor, teacher: Generator, batch: Batch, settings: TrainSettings
) -> dict[str, Tensor]:
    """Compute distillation from the teacher's several steps, and distribution matching.

    A term of weight zero is neither computed nor returned.
    """
    terms: dict[str, Tensor] = {}
    with torch.no_grad():
        conditioning, _ = teacher.analyse(
            batch.data.narrow, batch.f_prior, batch.state, with_levels=False
        )
    if settings.distillation:
        with torch.no_grad():
            target = integrate(teacher, conditioning, batch, settings.teacher_steps)
        terms["distillation"] = (z.float() - target.float()).abs().mean()
    if settings.distribution:
        with torch.no_grad():
            reference = teacher.encode_reference(
                batch.data.reference, conditioning.level, batch.f_target
            )
        terms["distribution"] = sliced_wasserstein(z, reference)
    return terms


def adversarial_losses(
    judgements: Sequence[Judgement], settings: TrainSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the adversarial and the feature-matching loss, and both terms.

    A term of weight zero is neither computed nor returned.
    """
    weights = {"adversarial": settings.adversarial, "matching": settings.feature_matching}
    wanted = {name: weight for name, weight in weights.items() if weight}
    terms = Discriminators.generator_terms(judgements, tuple(wanted))
    return torch.stack([weight * terms[name] for name, weight in wanted.items()]).sum(), terms

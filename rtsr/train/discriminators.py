"""Adversaries that a CPU can afford: one-dimensional networks over mel frames.

A two-dimensional STFT discriminator costs seconds per iteration on two cores. These look at log
mel frames at three time scales, know from the untouched low bands what they are judging, and see
what an over-smoothed output lacks: the spread of energies from frame to frame and band to band.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from rtsr.train.losses import LEAST_POWER, Powers, mel_bank

SCALES = ((256, 32), (512, 64), (2048, 128))
GENERATOR_TERMS = ("adversarial", "matching")


class Judgement(NamedTuple):
    """What one time scale says of a batch of estimates and of their references.

    ``fake`` and ``real`` are scores ``(batch, 8, frames)``; ``activations`` of every layer, those
    of the estimates first, ``(2 batch, width, frames)``.
    """

    fake: Tensor
    real: Tensor
    activations: list[Tensor]


class MelDiscriminator(nn.Module):
    """Scores of one time scale, with the activations of every layer for feature matching."""

    bank: Tensor

    def __init__(self, n_fft: int, bands: int, width: int = 96) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("bank", mel_bank(bands, n_fft)[0], persistent=False)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, width, kernel, dilation=dilation))
            for channels, kernel, dilation in ((2 * bands, 3, 1), (width, 3, 2), (width, 3, 4))
        )
        self.score = weight_norm(nn.Conv1d(width, 8, 1))

    def forward(
        self, power: Tensor, known: Tensor, compared: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Map power ``(batch, frames, bins)`` to scores ``(batch, 8, frames)`` and activations.

        Of each band, ``known`` and ``compared`` ``(batch, 1, bands)`` say by one or zero whether it
        is below the cutoff, and whether it is below the end of the reference.
        """
        with torch.autocast(power.device.type, enabled=False):
            mel = power @ self.bank
        log_mel = ((mel + LEAST_POWER).log() + 12.0) * (0.2 * compared)
        x = torch.cat([log_mel, (known - 0.5).expand_as(log_mel)], dim=2).transpose(1, 2)
        activations = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
            activations.append(x)
        return self.score(x), activations


class Discriminators(nn.Module):
    """All time scales with the least-squares objective (Mao et al. 2017, arXiv 1611.04076).

    One pass serves both sides: :meth:`judge` first, and then :meth:`generator_terms` and
    :meth:`loss` of what it returns. Whoever goes backwards from one of them names whose gradients
    are wanted.
    """

    centres: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList(MelDiscriminator(*scale) for scale in SCALES)
        centres = torch.cat([mel_bank(bands, n_fft)[1] for n_fft, bands in SCALES])
        self.register_buffer("centres", centres, persistent=False)

    def judge(self, spectra: Powers, f_prior: Tensor, f_end: Tensor) -> list[Judgement]:
        """Hear estimates and references at every time scale."""
        limits = torch.stack([0.86 * f_prior, 0.98 * f_end])[:, :, None, None]
        masks = (self.centres < limits).float().repeat(1, 2, 1, 1)
        judgements = []
        sizes = [bands for _, bands in SCALES]
        for scale, (known, compared) in zip(self.scales, masks.split(sizes, dim=3), strict=True):
            assert isinstance(scale, MelDiscriminator)
            scores, activations = scale(torch.cat(spectra[scale.n_fft]), known, compared)
            fake, real = scores.float().chunk(2)
            judgements.append(Judgement(fake, real, activations))
        return judgements

    @staticmethod
    def loss(judgements: Sequence[Judgement]) -> Tensor:
        """Compute the discriminators' own loss."""
        of_fakes = [judgement.fake.square().mean() for judgement in judgements]
        of_reals = [(1.0 - judgement.real).square().mean() for judgement in judgements]
        return torch.stack(of_fakes + of_reals).sum() / len(judgements)

    @staticmethod
    def generator_terms(
        judgements: Sequence[Judgement], wanted: Sequence[str] = GENERATOR_TERMS
    ) -> dict[str, Tensor]:
        """Compute the generator's losses.

        They are ``adversarial``, and feature ``matching`` (Kumar et al. 2019, eq. 3). Only those in
        ``wanted`` are computed.
        """
        terms: dict[str, Tensor] = {}
        if "adversarial" in wanted:
            errors = [(1.0 - judgement.fake).square().mean() for judgement in judgements]
            terms["adversarial"] = torch.stack(errors).mean()
        if "matching" in wanted:
            apart = []
            for judgement in judgements:
                for activation in judgement.activations:
                    fake, real = activation.chunk(2)
                    apart.append((fake - real.detach()).float().abs().mean())
            terms["matching"] = torch.stack(apart).sum() / len(judgements)
        return terms

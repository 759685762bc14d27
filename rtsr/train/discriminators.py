"""Adversaries that a CPU can afford: one-dimensional networks over mel frames.

A two-dimensional STFT discriminator costs seconds per iteration on two cores. These look at log
mel frames at three time scales, know from the untouched low bands what they are judging, and see
what an over-smoothed output lacks: the spread of energies from frame to frame and band to band.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from rtsr.train.losses import LEAST_POWER, Powers, mel_bank

SCALES = ((256, 32), (512, 64), (2048, 128))
GENERATOR_TERMS = ("adversarial", "matching")


class MelDiscriminator(nn.Module):
    """Scores of one time scale, with the activations of every layer for feature matching."""

    bank: Tensor
    centres: Tensor

    def __init__(self, n_fft: int, bands: int, width: int = 96) -> None:
        super().__init__()
        self.n_fft = n_fft
        bank, centres = mel_bank(bands, n_fft)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("centres", centres, persistent=False)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, width, kernel, dilation=dilation))
            for channels, kernel, dilation in ((2 * bands, 3, 1), (width, 3, 2), (width, 3, 4))
        )
        self.score = weight_norm(nn.Conv1d(width, 8, 1))

    def forward(self, power: Tensor, f_prior: Tensor, f_end: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map power ``(batch, frames, bins)`` to scores ``(batch, 8, frames)`` and activations."""
        with torch.autocast(power.device.type, enabled=False):
            mel = power @ self.bank
        log_mel = ((mel + LEAST_POWER).log() + 12.0) * 0.2
        known = (self.centres < 0.86 * f_prior[:, None])[:, None].float()
        compared = (self.centres < 0.98 * f_end[:, None])[:, None].float()
        x = torch.cat([log_mel * compared, (known - 0.5).expand_as(log_mel)], dim=2)
        x = x.transpose(1, 2)
        activations = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
            activations.append(x)
        return self.score(x), activations


class Discriminators(nn.Module):
    """All time scales with the least-squares objective (Mao et al. 2017, arXiv 1611.04076)."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList(MelDiscriminator(*scale) for scale in SCALES)

    def loss(self, spectra: Powers, f_prior: Tensor, f_end: Tensor) -> Tensor:
        """Compute the discriminators' own loss; gradients do not reach the estimate."""
        total = f_prior.new_zeros(())
        limits = torch.cat([f_prior, f_prior]), torch.cat([f_end, f_end])
        for scale in self.scales:
            assert isinstance(scale, MelDiscriminator)
            estimate, reference = spectra[scale.n_fft]
            scores, _ = scale(torch.cat([estimate.detach(), reference]), *limits)
            fake, real = scores.float().chunk(2)
            total = total + fake.square().mean() + (1.0 - real).square().mean()
        return total / len(self.scales)

    def generator_terms(
        self,
        spectra: Powers,
        f_prior: Tensor,
        f_end: Tensor,
        wanted: Sequence[str] = GENERATOR_TERMS,
    ) -> dict[str, Tensor]:
        """Compute the generator's losses.

        They are ``adversarial``, and feature ``matching`` (Kumar et al. 2019, eq. 3). Only those in
        ``wanted`` are computed, and no gradient of the discriminators' weights.
        """
        self.requires_grad_(False)
        try:
            with parametrize.cached():
                return self._terms(spectra, f_prior, f_end, wanted)
        finally:
            self.requires_grad_(True)

    def _terms(
        self, spectra: Powers, f_prior: Tensor, f_end: Tensor, wanted: Sequence[str]
    ) -> dict[str, Tensor]:
        terms = {name: f_prior.new_zeros(()) for name in wanted}
        for scale in self.scales:
            assert isinstance(scale, MelDiscriminator)
            estimate, reference = spectra[scale.n_fft]
            fake, fake_activations = scale(estimate, f_prior, f_end)
            if "adversarial" in terms:
                terms["adversarial"] = terms["adversarial"] + (1.0 - fake.float()).square().mean()
            if "matching" in terms:
                with torch.no_grad():
                    _, real_activations = scale(reference, f_prior, f_end)
                for fake_activation, real_activation in zip(
                    fake_activations, real_activations, strict=True
                ):
                    apart = (fake_activation - real_activation).float().abs().mean()
                    terms["matching"] = terms["matching"] + apart
        return {name: value / len(self.scales) for name, value in terms.items()}

"""The noise-robust autoencoder (NRAE): encoder ``E`` and decoder ``D``.

After LatentFlowSR (arXiv 2604.09188), made causal. ``E`` encodes low-resolution and full-band audio
alike; ``D`` is trained on noisy latents, so that small errors of the flow are not audible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtsr.model.analysis import Features
from rtsr.model.bands import band_interpolation
from rtsr.model.config import NYQUIST, SYNTHESIS_FRAME, ModelConfig
from rtsr.model.excitation import BINS
from rtsr.model.fourier import InverseRealTransform
from rtsr.model.layers import ConvNeXtBlock, FrameNorm, FrequencyEmbedding, Pointwise
from rtsr.model.level_path import Levels
from rtsr.model.streaming import State, StreamingModule, StreamingSequential, branch

LOG_GAIN_CEILING = 4.0
#: added to a band's power, relative to the running level, before its logarithm
LEAST_POWER = 1e-12


class Encoder(StreamingModule):
    """Network from features ``(batch, frames, 1539)`` to latent and hidden features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.encoder_width
        self.enter = Pointwise(Features.CHANNELS, width)
        # The encoder's features would pass the token on: one that is off is off here too.
        self.cutoff = FrequencyEmbedding((config.f_prior_token,), width)
        self.blocks = StreamingSequential(
            *(
                ConvNeXtBlock(width, config.kernel, config.expansion)
                for _ in range(config.encoder_blocks)
            )
        )
        self.norm = FrameNorm(width)
        self.leave = Pointwise(width, config.latent)
        self.unit = FrameNorm(config.latent, affine=False)

    def step(
        self, features: Tensor, cutoff: Tensor, state: State
    ) -> tuple[tuple[Tensor, Tensor], State]:
        """Encode a block.

        Args:
            features: ``(batch, frames, 1539)``.
            cutoff: Hz, ``(batch, frames, 1)``.
            state: see :meth:`initial_state`.

        Returns:
            ``z`` of unit variance ``(batch, frames, latent)`` and hidden features ``(batch, frames,
            encoder_width)``; and the next state.
        """
        x = self.enter(features) + self.cutoff(cutoff / NYQUIST)
        x, blocks = self.blocks.step(x, branch(state, "blocks"))
        hidden = self.norm(x)
        return (self.unit(self.leave(hidden)), hidden), {"blocks": blocks}


def point_interpolation(points: int, samples: int) -> Tensor:
    """Return a matrix ``(points, samples)``: linear interpolation of equidistant points."""
    position = torch.linspace(0.0, points - 1.0, samples)
    return (1.0 - (position[None] - torch.arange(points)[:, None]).abs()).clamp(min=0.0)


class CarrierGains(NamedTuple):
    """Gains that the decoder applies to the carriers of one block.

    ``log_gains`` ``(batch, frames, 3, bands)`` of the noise, the harmonic and the replicated
    carrier, natural logarithms relative to the running level; ``points`` ``(batch, frames,
    points)``, the temporal envelope of the noise within the frame; ``free`` log magnitudes and
    phases of single bins, or empty.
    """

    log_gains: Tensor
    points: Tensor
    free: list[Tensor]

    def level(self) -> Tensor:
        """Return the log amplitude that each band will have, ``(batch, frames, bands)``.

        The carriers are flat, of unit power and independent of one another, so their powers add.
        """
        noise, harmonic, replicated = (2.0 * self.log_gains).exp().unbind(dim=2)
        power = noise * self.points.square().mean(dim=2, keepdim=True) + harmonic + replicated
        return 0.5 * (power + LEAST_POWER).log()

    def led_by(self, opinions: Sequence[Levels]) -> CarrierGains:
        """Return gains whose levels follow others', one after the other, as far as each is trusted.

        The carriers keep their shares.
        """
        own = level = self.level()
        for opinion in opinions:
            level = level + opinion.trust * (opinion.level - level)
        return self._replace(log_gains=self.log_gains + (level - own)[:, :, None])


class Decoder(StreamingModule):
    """Network from latent and low-resolution features to a frame of 600 samples per hop.

    The head gives, per band, gains of three carriers (see :mod:`rtsr.model.excitation`), of which
    the noise also gets a temporal envelope, and, with ``decoder_free_bins``, a magnitude and a
    phase per bin into a constant inverse transform (as Vocos, arXiv 2306.00814, eq. 4).
    """

    band_to_bin: Tensor
    point_to_sample: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.bands, self.points = config.gain_bands, config.envelope_points
        self.uses_features = config.decoder_hears_features
        self.uses_carriers = config.decoder_hears_carriers
        self.enter = Pointwise(config.latent + config.encoder_width, width)
        self.cutoffs = FrequencyEmbedding((config.f_prior_token, config.f_target_token), width)
        self.blocks = StreamingSequential(
            *(
                ConvNeXtBlock(width, config.kernel, config.expansion)
                for _ in range(config.decoder_blocks)
            )
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)
        free_bins = [BINS, BINS] if config.decoder_free_bins else []
        self.sections = [*free_bins, 3 * self.bands, self.points]
        self.head = nn.Linear(width, sum(self.sections))
        with torch.no_grad():
            self.head.weight.mul_(0.5)
            *free, band_gains, contour = self.head.bias.split(self.sections)
            if free:
                free[0].fill_(-6.0)
            band_gains.fill_(-4.0)
            contour.fill_(0.5)
        self.inverse_transform = InverseRealTransform(24, 25)
        self.register_buffer("band_to_bin", band_interpolation(self.bands, BINS), persistent=False)
        self.register_buffer(
            "point_to_sample", point_interpolation(self.points, SYNTHESIS_FRAME), persistent=False
        )

    def gains(
        self,
        z: Tensor,
        hidden: Tensor,
        cutoffs: tuple[Tensor, Tensor],
        levels: Sequence[Levels],
        state: State,
    ) -> tuple[CarrierGains, State]:
        """Compute the gains of the carriers.

        Args:
            z: latent ``(batch, frames, latent)``.
            hidden: ``E``'s features of the low-resolution input ``(batch, frames, width)``.
            cutoffs: ``f_prior`` and ``f_target`` in Hz, each ``(batch, frames, 1)``.
            levels: of the level path and the band predictor, which the gains follow.
            state: see :meth:`initial_state`.

        Returns:
            The gains and the next state.
        """
        if not self.uses_features:
            hidden = torch.zeros_like(hidden)
        x = self.enter(torch.cat([z, hidden], dim=2))
        x = x + self.cutoffs(cutoffs[0] / NYQUIST, cutoffs[1] / NYQUIST)
        x, blocks = self.blocks.step(x, branch(state, "blocks"))
        head = self.head(self.norm(x)).float()
        *free, log_gains, points = head.split(self.sections, dim=2)
        batch, frames = head.shape[:2]
        gains = CarrierGains(
            log_gains.reshape(batch, frames, 3, self.bands), nn.functional.softplus(points), free
        )
        if levels:
            gains = gains.led_by(levels)
        return gains, {"blocks": blocks}

    def synthesise(self, gains: CarrierGains, carriers: Tensor, mask: Tensor) -> Tensor:
        """Apply the gains to the carriers and transform to samples.

        Args:
            gains: of :meth:`gains`.
            carriers: noise, harmonic and replicated spectra, real and imaginary parts ``(batch,
                frames, 3, 2, 301)``.
            mask: gains per bin ``(batch, frames, 301)``.

        Returns:
            Frames ``(batch, frames, 600)``, relative to the running level.
        """
        with torch.autocast(mask.device.type, enabled=False):
            bins = gains.log_gains @ self.band_to_bin
            contour = gains.points @ self.point_to_sample
        if not self.uses_carriers:
            carriers = torch.cat([carriers[:, :, :1], torch.zeros_like(carriers[:, :, 1:])], dim=2)
        if gains.free:
            log_magnitude, phase = gains.free
            bins = torch.cat([bins, log_magnitude[:, :, None]], dim=2)
            free = torch.stack([phase.cos(), phase.sin()], dim=2)
            carriers = torch.cat([carriers, free[:, :, None]], dim=2)
        amplitudes = bins.clamp(max=LOG_GAIN_CEILING).exp() * mask[:, :, None]
        spectra = carriers * amplitudes[:, :, :, None]
        tonal = spectra[:, :, 1:].sum(dim=2, keepdim=True)
        hiss_and_tonal = torch.cat([spectra[:, :, :1], tonal], dim=2)
        hiss, tonal = self.inverse_transform(hiss_and_tonal).unbind(dim=2)
        return tonal + contour * hiss

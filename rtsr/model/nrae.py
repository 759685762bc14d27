"""The noise-robust autoencoder (NRAE): encoder ``E`` and decoder ``D``.

After LatentFlowSR (arXiv 2604.09188), made causal. ``E`` codes low-resolution and full-band audio
alike; ``D`` is trained on noisy latents, so that a flow's small errors do not reach the sound.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtsr.model.analysis import Features
from rtsr.model.config import SYNTHESIS_FRAME, ModelConfig
from rtsr.model.excitation import BINS, Spectrum
from rtsr.model.fourier import InverseRealTransform
from rtsr.model.layers import ConvNeXtBlock, FrameNorm, FrequencyEmbedding
from rtsr.model.streaming import State, StreamingModule, StreamingSequential, branch

NYQUIST = 24_000.0
LOG_GAIN_CEILING = 4.0


class Encoder(StreamingModule):
    """Features ``(batch, 1539, frames)`` to latent and hidden features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.encoder_width
        self.enter = nn.Conv1d(Features.CHANNELS, width, 1)
        self.cutoff = FrequencyEmbedding(1, width)
        self.blocks = StreamingSequential(
            *(
                ConvNeXtBlock(width, config.kernel, config.expansion)
                for _ in range(config.encoder_blocks)
            )
        )
        self.norm = FrameNorm(width)
        self.leave = nn.Conv1d(width, config.latent, 1)
        self.unit = FrameNorm(config.latent, affine=False)

    def step(
        self, features: Tensor, cutoff: Tensor, state: State
    ) -> tuple[tuple[Tensor, Tensor], State]:
        """Map features and the cutoff in Hz ``(batch, 1, frames)`` to ``z`` of unit variance
        ``(batch, latent, frames)`` and hidden features ``(batch, encoder_width, frames)``."""
        x = self.enter(features) + self.cutoff(cutoff / NYQUIST)
        x, blocks = self.blocks.step(x, branch(state, "blocks"))
        hidden = self.norm(x)
        return (self.unit(self.leave(hidden)), hidden), {"blocks": blocks}


def band_interpolation(bands: int, bins: int, highest_hz: float = NYQUIST) -> Tensor:
    """``(bands, bins)``: triangles on the mel scale (O'Shaughnessy 1987) that add up to one."""

    def mel(hz: Tensor) -> Tensor:
        return 2595.0 * torch.log10(1.0 + hz / 700.0)

    position = mel(torch.linspace(0.0, highest_hz, bins)) / mel(torch.tensor(highest_hz))
    distance = position[None] * (bands - 1) - torch.arange(bands)[:, None]
    return (1.0 - distance.abs()).clamp(min=0.0)


def point_interpolation(points: int, samples: int) -> Tensor:
    """``(points, samples)``: linear interpolation between equally spaced points."""
    position = torch.linspace(0.0, points - 1.0, samples)
    return (1.0 - (position[None] - torch.arange(points)[:, None]).abs()).clamp(min=0.0)


class Decoder(StreamingModule):
    """Latent and low-resolution features to one synthesis frame of 600 samples per hop.

    The head gives a magnitude and a phase per bin into a constant inverse transform (as Vocos,
    arXiv 2306.00814, eq. 4) and, per band, gains of three carriers (see
    :mod:`rtsr.model.excitation`); the noise carrier also gets a temporal envelope.
    """

    band_to_bin: Tensor
    point_to_sample: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.bands, self.points = config.gain_bands, config.envelope_points
        self.enter = nn.Conv1d(config.latent + config.encoder_width, width, 1)
        self.cutoffs = FrequencyEmbedding(2, width)
        self.blocks = StreamingSequential(
            *(
                ConvNeXtBlock(width, config.kernel, config.expansion)
                for _ in range(config.decoder_blocks)
            )
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.sections = [BINS, BINS, 3 * self.bands, self.points]
        self.head = nn.Linear(width, sum(self.sections))
        with torch.no_grad():
            self.head.weight.mul_(0.5)
            self.head.bias[:BINS] = -6.0
            self.head.bias[2 * BINS : 2 * BINS + 3 * self.bands] = -4.0
            self.head.bias[-self.points :] = 0.5
        self.inverse_transform = InverseRealTransform(24, 25)
        self.register_buffer("band_to_bin", band_interpolation(self.bands, BINS), persistent=False)
        self.register_buffer(
            "point_to_sample", point_interpolation(self.points, SYNTHESIS_FRAME), persistent=False
        )

    def step(
        self,
        z: Tensor,
        hidden: Tensor,
        cutoffs: tuple[Tensor, Tensor],
        carriers: tuple[Spectrum, Spectrum, Spectrum],
        mask: Tensor,
        state: State,
    ) -> tuple[Tensor, State]:
        """Decode one block.

        Args:
            z: latent ``(batch, latent, frames)``.
            hidden: ``E``'s features of the low-resolution input ``(batch, width, frames)``.
            cutoffs: ``f_prior`` and ``f_target`` in Hz, each ``(batch, 1, frames)``.
            carriers: noise, harmonic and replicated spectra, parts ``(batch, frames, 301)``.
            mask: gains per bin ``(batch, frames, 301)``.
            state: see :meth:`initial_state`.

        Returns:
            Frames ``(batch, frames, 600)``, relative to the running level, and the next state.
        """
        x = self.enter(torch.cat([z, hidden], dim=1))
        x = x + self.cutoffs(cutoffs[0] / NYQUIST, cutoffs[1] / NYQUIST)
        x, blocks = self.blocks.step(x, branch(state, "blocks"))
        head = self.head(self.norm(x.transpose(1, 2))).float()
        log_magnitude, phase, log_gains, envelope = head.split(self.sections, dim=2)
        magnitude = log_magnitude.clamp(max=LOG_GAIN_CEILING).exp() * mask
        batch, frames = log_gains.shape[:2]
        with torch.autocast(head.device.type, enabled=False):
            bins = log_gains.reshape(batch, frames, 3, self.bands) @ self.band_to_bin
            gains = bins.clamp(max=LOG_GAIN_CEILING).exp() * mask[:, :, None]
            contour = nn.functional.softplus(envelope) @ self.point_to_sample
        noise, harmonic, replicated = carriers
        noise_gain, harmonic_gain, replicated_gain = gains.unbind(dim=2)
        tonal_real = magnitude * phase.cos() + harmonic_gain * harmonic[0]
        tonal_imag = magnitude * phase.sin() + harmonic_gain * harmonic[1]
        tonal_real = tonal_real + replicated_gain * replicated[0]
        tonal_imag = tonal_imag + replicated_gain * replicated[1]
        tonal = self.inverse_transform(tonal_real, tonal_imag)
        hiss = self.inverse_transform(noise_gain * noise[0], noise_gain * noise[1])
        return tonal + contour * hiss, {"blocks": blocks}

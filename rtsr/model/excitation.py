"""Carriers of the high band: noise, harmonics of the low band, and the low band shifted up.

A small network is good at envelopes and poor at fine structure that must stay coherent from frame
to frame. The three carriers bring that structure, each with a flat envelope, and the decoder sets a
gain per band and carrier. Harmonics come from half-wave rectification (Makhoul and Berouti 1979,
"High-frequency regeneration in speech coding systems"), the shifted low band from spectral band
replication (Dietz et al. 2002, AES 112).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtsr.model.analysis import below, bin_frequencies
from rtsr.model.config import SYNTHESIS_FRAME
from rtsr.model.fourier import InverseRealTransform, RealTransform

BINS = SYNTHESIS_FRAME // 2 + 1
BIN_HZ = 80.0
# Five bins are 400 Hz: four whole periods per hop, so a shifted partial keeps its phase.
SHIFT_BINS = 5
FIRST_SOURCE_BIN = 5
WHITENING_BINS = 13
LEAST_POWER = 1e-8


class Excitation(nn.Module):
    """Computes the harmonic and the replicated carrier of each frame."""

    bins: Tensor
    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.forward_transform = RealTransform(24, 25)
        self.inverse_transform = InverseRealTransform(24, 25)
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32), persistent=False)
        self.register_buffer("frequencies", bin_frequencies(SYNTHESIS_FRAME), persistent=False)

    def forward(self, frames: Tensor, level: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the harmonic and the replicated carrier of a block.

        Args:
            frames: newest samples ``(batch, frames, 1440)``.
            level: running level ``(batch, frames, 1)``.
            cutoff: Hz, ``(batch, frames, 1)``.

        Returns:
            Two spectra, real and imaginary parts ``(batch, frames, 2, 301)``.
        """
        parts = self.forward_transform(frames[..., -SYNTHESIS_FRAME:] / level)
        parts = parts * below(cutoff, self.frequencies)[:, :, None]
        rectified = self.inverse_transform(parts).relu()
        flat = _whiten(torch.stack([self.forward_transform(rectified), parts], dim=2))
        harmonic, low = flat.unbind(dim=2)
        source = self._source_bins(cutoff)[:, :, None].expand(-1, -1, 2, -1)
        return harmonic, low.gather(3, source)

    def _source_bins(self, cutoff: Tensor) -> Tensor:
        """Return the low bin that each bin copies, ``(batch, frames, 301)``, in whole patches."""
        top = torch.floor(cutoff / BIN_HZ) - 2.0
        patch = torch.floor((top - FIRST_SOURCE_BIN) / SHIFT_BINS).clamp(min=1.0) * SHIFT_BINS
        lifted = torch.floor((self.bins - (top - patch)) / patch).clamp(min=0.0)
        return (self.bins - lifted * patch).clamp(0.0, BINS - 1.0).long()


def _whiten(parts: Tensor) -> Tensor:
    """Divide spectra ``(batch, frames, spectra, 2, 301)`` by their envelopes.

    The envelope of the magnitudes is a moving average over about 1 kHz.
    """
    power = parts.square().sum(dim=3)
    envelope = nn.functional.avg_pool1d(
        power.flatten(0, 1), WHITENING_BINS, 1, WHITENING_BINS // 2, count_include_pad=False
    )
    gain = (envelope + LEAST_POWER).rsqrt().reshape(power.shape)
    return parts * gain[:, :, :, None]

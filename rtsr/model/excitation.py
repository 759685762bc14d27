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

    sources: Tensor
    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.forward_transform = RealTransform(24, 25)
        self.inverse_transform = InverseRealTransform(24, 25)
        self.register_buffer("sources", source_bins(), persistent=False)
        self.register_buffer("frequencies", bin_frequencies(SYNTHESIS_FRAME), persistent=False)

    def forward(self, frames: Tensor, level: Tensor, cutoff: Tensor) -> Tensor:
        """Compute the harmonic and the replicated carrier of a block.

        Args:
            frames: newest samples ``(batch, frames, 1440)``.
            level: running level ``(batch, frames, 1)``.
            cutoff: Hz, ``(batch, frames, 1)``.

        Returns:
            The two spectra, real and imaginary parts ``(batch, frames, 2, 2, 301)``.
        """
        parts = self.forward_transform(frames[..., -SYNTHESIS_FRAME:] / level)
        parts = parts * below(cutoff, self.frequencies)[:, :, None]
        rectified = self.inverse_transform(parts).relu()
        flat = _whiten(torch.stack([self.forward_transform(rectified), parts], dim=2))
        cutoff_bin = (cutoff / BIN_HZ).long().clamp(0, BINS - 1)
        source = self.sources[cutoff_bin].long()[:, :, None].expand(-1, -1, -1, 2, -1)
        return torch.cat([flat[:, :, :1], flat[:, :, 1:].gather(4, source)], dim=2)


def source_bins() -> Tensor:
    """Return the low bin that each bin copies, in whole patches, for each bin of a cutoff.

    int32 ``(301, 301)``: the cutoff's bin, then the bin that copies. In a graph one look-up is
    worth more than the dozen operations that would compute a row.
    """
    cutoff_bin, one = torch.arange(BINS)[:, None], torch.arange(BINS)[None]
    top = cutoff_bin - 2
    patch = ((top - FIRST_SOURCE_BIN) // SHIFT_BINS).clamp(min=1) * SHIFT_BINS
    lifted = ((one - (top - patch)) // patch).clamp(min=0)
    return (one - lifted * patch).clamp(0, BINS - 1).int()


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

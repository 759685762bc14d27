"""A loss on patterns that repeat in every hop, which are audible as a buzz at the hop rate.

Spectral losses forgive it: a level that rises and falls by 3 dB within each hop of 10 ms costs them
little, because the level of noise varies by more from frame to frame. Its average over many hops
does not vary, and there it shows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtsr.timing import HOP, SAMPLE_RATE

N_FFT = 128
POSITIONS = 10
STEP = HOP // POSITIONS
LEAST_POWER = 1e-10
#: Hz from the cutoff to the lowest bin; its leakage from the low band is the same in both signals
CLEARANCE_HZ = 400.0


class HopPattern(nn.Module):
    """Level at ten places in the hop against the reference, averaged over the hops of a clip."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        frequencies = torch.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, powers: tuple[Tensor, Tensor], f_prior: Tensor, f_end: Tensor) -> Tensor:
        """Root mean square over places and bins of the excess in log power, mean of clips.

        Each bin counts by itself, because each has a pattern of its own: they come from phases
        that hardly change from hop to hop, and wider bands average them away. Chance leaves
        about 0.15 of noise that has no pattern, over the 128 hops of a clip.

        Args:
            powers: spectra of estimate and reference ``(batch, places, 65)``, ten places per hop.
            f_prior: lower limit of the compared bins in Hz, ``(batch,)``.
            f_end: upper limit, likewise.
        """
        estimate, reference = ((power + LEAST_POWER).log() for power in powers)
        excess = estimate - reference
        hops = excess.shape[1] // POSITIONS
        excess = excess[:, : hops * POSITIONS].unflatten(1, (hops, POSITIONS)).mean(dim=1)
        excess = excess - excess.mean(dim=1, keepdim=True)
        low, high = f_prior[:, None] + CLEARANCE_HZ, 0.96 * f_end[:, None]
        mask = ((self.frequencies > low) & (self.frequencies < high)).to(excess.dtype)[:, None]
        # Clip by clip: a voice and an explosion may have opposite patterns.
        power = (excess.square() * mask).sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) * POSITIONS + 1e-3)
        return ((power + 1e-6).sqrt() - 1e-3).mean()

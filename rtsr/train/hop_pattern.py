"""A loss on what a generator does alike in every hop, heard as a buzz at the hop rate.

Spectral losses forgive it: a level that rises and falls by 3 dB within each hop of 10 ms costs them
little, because the level of noise varies by more from frame to frame. Its average over many hops
does not vary, and there it shows.
"""

from __future__ import annotations

from torch import Tensor, nn

from rtsr.model.config import HOP
from rtsr.train.filter_bank import mel_bank

N_FFT = 128
POSITIONS = 10
STEP = HOP // POSITIONS
BANDS = 12
POWER_FLOOR = 1e-10
#: Hz above the cutoff up to which the short window still smears the low band
LEAKAGE_HZ = 1000.0


class HopPattern(nn.Module):
    """Level at ten places in the hop against the truth, averaged over hops and clips."""

    bank: Tensor
    centres: Tensor

    def __init__(self) -> None:
        super().__init__()
        bank, centres = mel_bank(BANDS, N_FFT)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, powers: tuple[Tensor, Tensor], f_prior: Tensor, f_target: Tensor) -> Tensor:
        """Root mean square, over places in the hop and bands, of the excess in natural logarithms.

        Args:
            powers: spectra of estimate and truth ``(batch, places, 65)``, ten places per hop.
            f_prior, f_target: in Hz, ``(batch,)``; bands between them count.
        """
        estimate, truth = ((power @ self.bank + POWER_FLOOR).log() for power in powers)
        excess = estimate - truth
        hops = excess.shape[1] // POSITIONS
        excess = excess[:, : hops * POSITIONS].unflatten(1, (hops, POSITIONS)).mean(dim=1)
        excess = excess - excess.mean(dim=1, keepdim=True)
        low, high = 1.1 * f_prior[:, None] + LEAKAGE_HZ, 0.96 * f_target[:, None]
        mask = ((self.centres > low) & (self.centres < high)).to(excess.dtype)[:, None]
        clips = mask.sum(dim=0)
        pattern = (excess * mask).sum(dim=0) / clips.clamp(min=1.0)
        heard = (clips > 0.0).to(excess.dtype)
        power = (pattern.square() * heard).sum() / (heard.sum() * POSITIONS + 1e-3)
        return (power + 1e-6).sqrt() - 1e-3

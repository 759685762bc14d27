"""Masks, synthesis window and overlap-add: from spectra to the high band's samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rtsr.model import single_frame
from rtsr.model.analysis import bin_frequencies
from rtsr.model.config import SYNTHESIS_FRAME
from rtsr.model.streaming import State, StreamingModule, tensor
from rtsr.timing import HOP, OVERLAP

CROSSOVER_START = 0.88
CROSSOVER_RAMP_HZ = 300.0
# Training compares nothing closer than this to the end of a recording's band.
CEILING_END = 0.98
CEILING_RAMP_HZ = 300.0


def synthesis_window() -> Tensor:
    """Return a window with a flat top and sine-squared ramps; neighbours sum to exactly one."""
    ramp = torch.sin((torch.arange(OVERLAP) + 0.5) * math.pi / 2 / OVERLAP) ** 2
    return torch.cat([ramp, torch.ones(HOP - OVERLAP), 1.0 - ramp])


class SynthesisMask(nn.Module):
    """Keeps the generated band between the input's cutoff and the wanted ceiling.

    The lower ramp starts below the cutoff, where the input's own filter already attenuates, so
    that no gap is audible there.
    """

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", bin_frequencies(SYNTHESIS_FRAME), persistent=False)

    def forward(self, f_prior: Tensor, f_target: Tensor) -> Tensor:
        """Map two cutoffs in Hz ``(batch, frames, 1)`` to gains ``(batch, frames, 301)``."""
        # Both in ramps instead of Hz, which leaves one operation less per frame.
        low = f_prior * (CROSSOVER_START / CROSSOVER_RAMP_HZ)
        up = (self.frequencies / CROSSOVER_RAMP_HZ - low).clamp(0.0, 1.0)
        high = f_target * (CEILING_END / CEILING_RAMP_HZ)
        down = (high - self.frequencies / CEILING_RAMP_HZ).clamp(0.0, 1.0)
        return up * down


class OverlapAdd(StreamingModule):
    """Windows frames of 600 samples and adds them every 480."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", synthesis_window(), persistent=False)

    def initial_state(self, batch: int) -> State:
        """Return the tail of the last frame, zeros ``(batch, 1, 120)``."""
        return {"tail": self.zeros(batch, 1, OVERLAP)}

    def step(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, 600)`` to ``(batch, 1, 480 * frames)``."""
        hops, tail = single_frame.overlapped(frames * self.window, tensor(state, "tail"), HOP)
        return hops.reshape(hops.shape[0], 1, -1), {"tail": tail}

"""The level path: predicts the level of each missing band from the levels of the input's bands.

Band levels matter most to the ear, and they depend on coarse things: the phoneme, its onset, and
the noise floor. So the input of this path is band energies without fine structure, its memory
reaches back seconds instead of frames, and it is cheap to train by itself. The decoder's gains
follow its levels in proportion to its trust, a confidence per band.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtsr.model.analysis import ANALYSIS_FRAME, below
from rtsr.model.bands import band_centres, band_means
from rtsr.model.config import ModelConfig
from rtsr.model.layers import ConvNeXtBlock, Pointwise
from rtsr.model.streaming import (
    Layer,
    State,
    StreamingModule,
    StreamingSequential,
    branch,
    tensor,
)

#: mean power of a bin that is added before logarithms, below the noise of dithered 16 bits
LEAST_POWER = 1e-11
#: natural logarithm of power by which a minimum rises per frame: 6 dB a second
RISE = 6.0 / 100.0 * math.log(10.0) / 10.0
#: natural logarithm of a power above that of any sound within full scale
HIGHEST_LOG_POWER = 20.0
#: initial time constants of the memory in frames: from 30 ms to 3 s
SHORTEST_MEMORY, LONGEST_MEMORY = 3.0, 300.0
#: initial level of every band in training, natural logarithm of amplitude, and the output's scale
FIRST_LEVEL = -5.0
LEVEL_SCALE = 2.0
FIRST_TRUST = 1.0


class Levels(NamedTuple):
    """Predicted levels of one block.

    ``level`` ``(batch, frames, bands)`` is the natural logarithm of amplitude relative to the
    running level, ``trust`` of that shape the confidence in it, in [0, 1].
    """

    level: Tensor
    trust: Tensor


class RunningMinimum(Layer):
    """Minimum of each channel so far, which rises slowly.

    A noise floor tracker: ``m[t] = min(x[t], m[t - 1] + rise)``.
    """

    def __init__(self, channels: int, rise: float) -> None:
        super().__init__()
        self.channels, self.rise = channels, rise
        # Tells on which device the state is; the module has no weights.
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def initial_state(self, batch: int) -> State:
        """Return the minimum so far, zeros ``(batch, 1, channels)``."""
        # Stored relative to a value above all others, so that zero means no input yet.
        return {"least": self.zeros(batch, 1, self.channels)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, channels)`` to the same shape."""
        values = torch.cat([tensor(state, "least") + HIGHEST_LOG_POWER, x], dim=1)
        if torch.onnx.is_in_onnx_export():
            least = self._by_ages(values)
        else:
            least = self._by_doubling(values)
        least = least[:, 1:]
        return least, {"least": least[:, -1:] - HIGHEST_LOG_POWER}

    def _by_doubling(self, values: Tensor) -> Tensor:
        """Compute the minimum by doubling spans, which takes few operations for a long block."""
        span = 1
        while span < values.shape[1]:
            earlier = functional.pad(values, (0, 0, span, 0), value=math.inf)[:, :-span]
            values = torch.minimum(values, earlier + span * self.rise)
            span *= 2
        return values

    def _by_ages(self, values: Tensor) -> Tensor:
        """Compute the same as one minimum over all pairs, for a graph of any number of frames."""
        position = torch.arange(values.shape[1], device=values.device)
        age = (position[:, None] - position[None])[:, :, None]
        lifted = values[:, None] + age * self.rise
        return lifted.masked_fill(age < 0, 1e4).amin(dim=2)


class GatedMemory(Layer):
    """Recurrent layer whose gates depend on the input alone: a block needs no loop over frames.

    A minGRU (Feng et al. 2024, arXiv 2410.01201, section 3.1) with a residual connection:
    ``h[t] = (1 - gate[t]) h[t - 1] + gate[t] candidate[t]``.
    """

    def __init__(self, channels: int, memory: int) -> None:
        super().__init__()
        self.memory = memory
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        # Gates and candidates, as one product.
        self.project = nn.Linear(channels, 2 * memory)
        self.merge = nn.Linear(memory, channels)
        frames = torch.logspace(math.log10(SHORTEST_MEMORY), math.log10(LONGEST_MEMORY), memory)
        with torch.no_grad():
            self.project.bias[:memory] = -(frames - 1.0).log()

    def initial_state(self, batch: int) -> State:
        """Return the memory, zeros ``(batch, 1, memory)``."""
        return {"memory": self.zeros(batch, 1, self.memory)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, channels)`` to the same shape."""
        gate, candidate = self.project(self.norm(x)).float().chunk(2, dim=2)
        with torch.autocast(x.device.type, enabled=False):
            drive = gate.sigmoid() * candidate
            past = tensor(state, "memory")
            if torch.onnx.is_in_onnx_export():
                memory = _recur_by_pairs(gate, drive, past)
            else:
                memory = _recur_by_doubling((-gate).sigmoid(), drive, past)
        return x + self.merge(memory), {"memory": memory[:, -1:]}


def _recur_by_doubling(decay: Tensor, drive: Tensor, past: Tensor) -> Tensor:
    """Compute ``h[t] = decay[t] h[t - 1] + drive[t]`` over ``(batch, frames, channels)``.

    ``past`` ``(batch, 1, channels)`` is ``h`` before the first frame. The span of each partial
    result doubles (Hillis and Steele 1986, "Data parallel algorithms").
    """
    span = 1
    while span < drive.shape[1]:
        before = (0, 0, span, 0)
        drive = drive + decay * functional.pad(drive, before)[:, :-span]
        decay = decay * functional.pad(decay, before, value=1.0)[:, :-span]
        span *= 2
    return drive + decay * past


def _recur_by_pairs(gate: Tensor, drive: Tensor, past: Tensor) -> Tensor:
    """Compute the same as a sum over pairs of frames, for a graph of any number of frames."""
    # The running sum of log(1 - sigmoid(gate)).
    log_decay = -functional.softplus(gate).cumsum(dim=1)
    position = torch.arange(gate.shape[1], device=gate.device)
    is_later = (position[None] > position[:, None])[:, :, None]
    between = (log_decay[:, :, None] - log_decay[:, None]).masked_fill(is_later, -1e4)
    return (between.exp() * drive[:, None]).sum(dim=2) + log_decay.exp() * past


class LevelPath(StreamingModule):
    """Network from band energies of the masked spectrum to the levels of all bands."""

    means: Tensor
    centres: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, self.bands = config.level_width, config.gain_bands
        self.minimum = RunningMinimum(self.bands, RISE)
        features = 3 * self.bands + 1
        self.enter = Pointwise(features, width)
        blocks = [
            ConvNeXtBlock(width, config.kernel, config.expansion)
            for _ in range(config.level_blocks)
        ]
        middle = (config.level_blocks + 1) // 2
        self.blocks = StreamingSequential(
            *blocks[:middle], GatedMemory(width, config.level_memory), *blocks[middle:]
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.head = nn.Linear(width, 2 * self.bands)
        # A linear shortcut: the blocks learn only what is not linear in the energies.
        self.straight = nn.Linear(features, self.bands)
        with torch.no_grad():
            self.head.weight.mul_(0.3)
            self.straight.weight.mul_(0.1)
            level, trust = self.head.bias.chunk(2)
            level.fill_(FIRST_LEVEL / LEVEL_SCALE)
            self.straight.bias.zero_()
            trust.fill_(FIRST_TRUST)
        bins = ANALYSIS_FRAME // 2 + 1
        self.register_buffer("means", band_means(self.bands, bins), persistent=False)
        self.register_buffer("centres", band_centres(self.bands), persistent=False)

    def step(
        self, parts: Tensor, level: Tensor, f_prior: Tensor, state: State
    ) -> tuple[Levels, State]:
        """Predict the levels of one block.

        Args:
            parts: masked spectrum ``(batch, frames, 2, 513)``.
            level: running level ``(batch, frames, 1)``.
            f_prior: where the input ends, Hz, ``(batch, frames, 1)``.
            state: see :meth:`initial_state`.

        Returns:
            The levels of all bands, including the input's, and the next state.
        """
        with torch.autocast(parts.device.type, enabled=False):
            energy = (parts.square().sum(dim=2) @ self.means + LEAST_POWER).log()
            least, minimum = self.minimum.step(energy, branch(state, "minimum"))
            loudness = 2.0 * level.log()
            is_input = below(f_prior, self.centres)
            relative = torch.cat([energy, least], dim=2) - loudness
            relative = (0.15 * relative + 0.8) * torch.cat([is_input, is_input], dim=2)
            # The mask of the input's bands also tells where the input ends.
            features = torch.cat([relative, is_input, 0.1 * loudness + 1.0], dim=2)
        x, blocks = self.blocks.step(self.enter(features), branch(state, "blocks"))
        head = self.head(self.norm(x)).float()
        with torch.autocast(parts.device.type, enabled=False):
            straight = self.straight(features)
        predicted, trust = head.chunk(2, dim=2)
        following: State = {"minimum": minimum, "blocks": blocks}
        return Levels(LEVEL_SCALE * (predicted + straight), trust.sigmoid()), following

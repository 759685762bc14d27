"""What networks that predict levels are made of: a noise floor tracker, a memory, their frame.

Band levels depend on coarse things: the phoneme, its onset, and the noise floor. So these networks
take band energies without fine structure, and their memory reaches back seconds instead of frames.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rtsr.model import single_frame
from rtsr.model.config import ModelConfig
from rtsr.model.layers import ConvNeXtBlock, Pointwise
from rtsr.model.recurrence import recur_by_doubling
from rtsr.model.streaming import (
    Layer,
    State,
    StreamingModule,
    StreamingSequential,
    branch,
    tensor,
)

#: natural logarithm of power by which a minimum rises per frame: 6 dB a second
RISE = 6.0 / 100.0 * math.log(10.0) / 10.0
#: natural logarithm of a power above that of any sound within full scale
HIGHEST_LOG_POWER = 20.0
#: initial time constants of the memory in frames: from 30 ms to 3 s
SHORTEST_MEMORY, LONGEST_MEMORY = 3.0, 300.0


class RunningMinimum(Layer):
    """Minimum of each channel so far, which rises slowly.

    A noise floor tracker: ``m[t] = min(x[t], m[t - 1] + rise)``.
    """

    def __init__(self, channels: int, rise: float) -> None:
        super().__init__()
        self.channels, self.rise = channels, rise

    def initial_state(self, batch: int) -> State:
        """Return the minimum so far, zeros ``(batch, 1, channels)``."""
        # Stored relative to a value above all others, so that zero means no input yet.
        return {"least": self.zeros(batch, 1, self.channels)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, channels)`` to the same shape."""
        past = tensor(state, "least")
        if torch.onnx.is_in_onnx_export():
            least, newest = single_frame.least_so_far(x, past, self.rise, HIGHEST_LOG_POWER)
            return least, {"least": newest}
        # Seen from a line that rises as fast, what rises stands still.
        line = self.rise * torch.arange(x.shape[1] + 1, device=x.device)[:, None]
        values = torch.cat([past + HIGHEST_LOG_POWER, x], dim=1)
        least = ((values - line).cummin(dim=1).values + line)[:, 1:]
        return least, {"least": least[:, -1:] - HIGHEST_LOG_POWER}


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
            past = tensor(state, "memory")
            if torch.onnx.is_in_onnx_export():
                memory = single_frame.gated_memory(gate, candidate, past)
            else:
                drive = gate.sigmoid() * candidate
                memory = _Recurrence.apply((-gate).sigmoid(), drive, past)
        return x + self.merge(memory), {"memory": memory[:, -1:]}


class _Recurrence(torch.autograd.Function):
    """``h[t] = decay[t] h[t - 1] + drive[t]`` over ``(batch, frames, channels)``.

    Its gradient is the same recurrence backwards in time (Martin and Cundy 2018, arXiv 1709.04057,
    section 2.2), which takes less than going back through the doubling.
    """

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor, past: Tensor) -> Tensor:
        """Return ``h``; ``past`` ``(batch, 1, channels)`` is that before the first frame."""
        first = torch.addcmul(drive[:, :1], decay[:, :1], past)
        memory = recur_by_doubling(torch.cat([first, drive[:, 1:]], dim=1), decay[:, 1:])
        ctx.save_for_backward(decay, past, memory)
        return memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Return the gradients of the three arguments."""
        decay, past, memory = ctx.saved_tensors
        slope = recur_by_doubling(slope.flip(1), decay[:, 1:].flip(1)).flip(1)
        before = torch.cat([past, memory[:, :-1]], dim=1)
        return slope * before, slope, slope[:, :1] * decay[:, :1]


class Values(NamedTuple):
    """What a network gives for one block: all ``(batch, frames, channels)``.

    ``values`` of the blocks, those of the shortcut, ``straight``, and the normalised activations
    before the last layer, ``hidden``.
    """

    values: Tensor
    straight: Tensor
    hidden: Tensor


class LevelNetwork(StreamingModule):
    """Base of networks from features of band energies to values per band.

    Causal ConvNeXt blocks with a memory between them, and a linear shortcut to the first values, so
    that the blocks learn only what is not linear in the features.
    """

    def __init__(
        self,
        config: ModelConfig,
        sizes: tuple[int, int, int],
        features: int,
        outputs: int,
    ) -> None:
        """Make the layers.

        Args:
            config: of the model.
            sizes: width, number of blocks, and width of the memory.
            features: inputs per frame.
            outputs: values per frame; the shortcut leads to the first ``config.gain_bands``.
        """
        super().__init__()
        width, count, memory = sizes
        self.bands = config.gain_bands
        self.minimum = RunningMinimum(self.bands, RISE)
        self.enter = Pointwise(features, width)
        blocks = [ConvNeXtBlock(width, config.kernel, config.expansion) for _ in range(count)]
        middle = (count + 1) // 2
        self.blocks = StreamingSequential(
            *blocks[:middle], GatedMemory(width, memory), *blocks[middle:]
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.head = nn.Linear(width, outputs)
        self.straight = nn.Linear(features, self.bands)
        with torch.no_grad():
            self.head.weight.mul_(0.3)
            self.straight.weight.mul_(0.1)
            self.straight.bias.zero_()

    def through(self, features: Tensor, state: State) -> tuple[Values, State]:
        """Return the values of one block, and the blocks' next state."""
        x, blocks = self.blocks.step(self.enter(features), branch(state, "blocks"))
        hidden = self.norm(x)
        values = self.head(hidden).float()
        with torch.autocast(features.device.type, enabled=False):
            return Values(values, self.straight(features), hidden), blocks

"""Conditional flow matching in the latent: the velocity net and its Euler steps.

Straight paths from ``z_0`` to ``z_1`` (Lipman et al. 2023, arXiv 2210.02747, eq. 20-23 with
``sigma_min = 0``): ``z_t = (1 - t) z_0 + t z_1``, velocity ``z_1 - z_0``. With the "bridge" prior
``z_0 = z_LR + s * noise`` the path starts near the latent of the input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtsr.model.config import NYQUIST, ModelConfig
from rtsr.model.layers import (
    FrameNorm,
    FrequencyEmbedding,
    Pointwise,
    ResidualBlock,
    WindowedAttention,
)
from rtsr.model.streaming import State, StreamingModule, branch


class VelocityNet(StreamingModule):
    """U-Net over channels at a constant 100 frames per second.

    Narrowing channels instead of time costs no latency.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, middle = config.flow_width, config.flow_middle
        self.enter = Pointwise(2 * config.latent, width)
        self.context = Pointwise(config.encoder_width, width)
        self.embed = FrequencyEmbedding((True, config.f_prior_token, config.f_target_token), width)
        self.embed_middle = Pointwise(width, middle)
        for index in range(config.flow_blocks):
            self.add_module(f"down{index}", ResidualBlock(width))
            self.add_module(f"up{index}", ResidualBlock(width))
        self.blocks = config.flow_blocks
        self.narrow = Pointwise(width, middle)
        self.middle_in = ResidualBlock(middle)
        self.attend = WindowedAttention(middle, config.attention_heads, config.attention_window)
        self.middle_out = ResidualBlock(middle)
        self.widen = Pointwise(middle, width)
        self.norm = FrameNorm(width)
        self.leave = Pointwise(width, config.latent)
        with torch.no_grad():
            self.leave.weight.mul_(0.1)

    def step(
        self,
        z: Tensor,
        z_low: Tensor,
        hidden: Tensor,
        conditions: tuple[Tensor, Tensor, Tensor],
        state: State,
    ) -> tuple[Tensor, State]:
        """Compute the velocity ``(batch, frames, latent)`` at the point ``z``.

        ``z_low`` and ``hidden`` are ``E``'s latent and features of the low-resolution input,
        ``conditions`` are the flow time in [0, 1] and ``f_prior`` and ``f_target`` in Hz, each
        ``(batch, frames, 1)``.
        """
        time, f_prior, f_target = conditions
        following: State = {}
        condition = self.embed(time, f_prior / NYQUIST, f_target / NYQUIST) + self.context(hidden)
        narrow_condition = self.embed_middle(condition)
        x = self.enter(torch.cat([z, z_low], dim=2))
        skips = []

        def run(name: str, x: Tensor, given: Tensor) -> Tensor:
            y, following[name] = getattr(self, name).step(x, given, branch(state, name))
            return y

        for index in range(self.blocks):
            x = run(f"down{index}", x, condition)
            skips.append(x)
        y = run("middle_in", self.narrow(x), narrow_condition)
        y, following["attend"] = self.attend.step(y, branch(state, "attend"))
        x = self.widen(run("middle_out", y, narrow_condition))
        for index in range(self.blocks):
            x = run(f"up{index}", x + skips.pop(), condition)
        return self.leave(nn.functional.silu(self.norm(x))), following


def start_point(config: ModelConfig, z_low: Tensor, noise: Tensor) -> Tensor:
    """Return ``z_0`` of the configured prior from latent and noise ``(batch, frames, latent)``."""
    if config.prior == "gaussian":
        return noise
    return z_low + config.prior_scale * noise


def euler(
    net: VelocityNet,
    z: Tensor,
    z_low: Tensor,
    hidden: Tensor,
    cutoffs: tuple[Tensor, Tensor],
    states: list[State],
) -> tuple[Tensor, list[State]]:
    """Integrate from t = 0 to 1 with one Euler step per state; at run-time there is a single one.

    Every flow time has a state of its own, which holds the past frames at that same time.
    """
    following = []
    for index, state in enumerate(states):
        time = torch.zeros_like(cutoffs[0]) + index / len(states)
        velocity, after = net.step(z, z_low, hidden, (time, *cutoffs), state)
        z = z + velocity / len(states)
        following.append(after)
    return z, following

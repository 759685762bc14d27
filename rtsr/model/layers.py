"""Causal building blocks: convolution, ConvNeXt, residual block, windowed attention.

Everything is laid out ``(batch, frames, channels)``: a frame is one contiguous row, and whatever
mixes channels is a matrix product over rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtsr.model import single_frame
from rtsr.model.streaming import Layer, State, StreamingModule, branch, tensor


class Pointwise(nn.Conv1d):
    """One matrix for every frame, stored as a convolution's weight as checkpoints have it."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., channels_in)`` to ``(..., channels_out)``."""
        return functional.linear(x, self.weight.flatten(1), self.bias)


class CausalConv1d(Layer):
    """Causal convolution over the current frame and ``kernel - 1`` past ones."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        if groups not in (1, channels_in) or (groups > 1 and channels_in != channels_out):
            raise ValueError("a convolution is dense, or one filter per channel")
        self.kernel = kernel
        self.channels_in = channels_in
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, groups=groups)

    def initial_state(self, batch: int) -> State:
        """Return the past frames, zeros ``(batch, kernel - 1, channels_in)``."""
        return {"past": self.zeros(batch, self.kernel - 1, self.channels_in)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, channels_in)`` to ``(batch, frames, channels_out)``."""
        x = torch.cat([tensor(state, "past").to(x.dtype), x], dim=1)
        following: State = {"past": x[:, -(self.kernel - 1) :]}
        if torch.onnx.is_in_onnx_export():
            # In a graph of few frames a general convolution spends most of its time on set-up.
            return self.in_graph(x), following
        return self.conv(x.transpose(1, 2)).transpose(1, 2), following

    def in_graph(self, x: Tensor) -> Tensor:
        """Compute the same convolution as products with windows of ``x``."""
        assert self.conv.bias is not None
        if self.conv.groups > 1:
            taps = self.conv.weight[:, 0].T
            return single_frame.filtered(x, taps, self.kernel) + self.conv.bias
        weight = self.conv.weight.transpose(1, 2).flatten(1)
        rows = single_frame.flat_windows(x, self.kernel)
        return functional.linear(rows, weight, self.conv.bias)


class FrameNorm(nn.Module):
    """Layer normalisation over the channels of one frame; no statistic crosses a frame."""

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-5, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, frames, channels)`` to the same shape."""
        return self.norm(x)


class ConvNeXtBlock(Layer):
    """Causal ConvNeXt block (Liu et al. 2022, arXiv 2201.03545; 1-D form of Vocos 2306.00814)."""

    def __init__(self, channels: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = CausalConv1d(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.widen = nn.Linear(channels, expansion * channels)
        self.narrow = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.3))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, channels)`` to the same shape."""
        y, following = self.depthwise.step(x, branch(state, "depthwise"))
        y = functional.gelu(self.widen(self.norm(y)), approximate="tanh")
        # Scaling the weights instead of every frame: export folds this into constant weights.
        weight, bias = self.scale[:, None] * self.narrow.weight, self.scale * self.narrow.bias
        return x + functional.linear(y, weight, bias), {"depthwise": following}


class ResidualBlock(StreamingModule):
    """Causal ResNet block whose second half is shifted by a condition of the same width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_in = FrameNorm(channels)
        self.conv_in = CausalConv1d(channels, channels, 3)
        self.norm_out = FrameNorm(channels)
        self.conv_out = CausalConv1d(channels, channels, 3)

    def step(self, x: Tensor, condition: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, channels)`` and a condition of that shape to the same shape."""
        following: State = {}
        y = functional.silu(self.norm_in(x))
        y, following["conv_in"] = self.conv_in.step(y, branch(state, "conv_in"))
        y = functional.silu(self.norm_out(y + condition))
        y, following["conv_out"] = self.conv_out.step(y, branch(state, "conv_out"))
        return x + y, following


class WindowedAttention(Layer):
    """Self-attention over the last ``window`` frames, the present one included.

    Keys and values of the past are the state, so a frame costs the same at any time. The bias
    depends on a key's age alone (Press et al. 2022, arXiv 2108.12409, but learned per age and
    head). Keys from before the stream's start are zeros that take part in the attention, in
    training exactly as at run-time.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.project = nn.Linear(channels, 3 * channels)
        self.merge = nn.Linear(channels, channels)
        self.age_bias = nn.Parameter(torch.zeros(heads, window))

    def initial_state(self, batch: int) -> State:
        """Return past keys and values, zeros ``(batch, window - 1, channels)`` each."""
        past = (batch, self.window - 1, self.merge.in_features)
        return {"keys": self.zeros(*past), "values": self.zeros(*past)}

    def _bias(self, frames: int) -> Tensor:
        """Return the bias of each key's age, ``(heads, frames, window - 1 + frames)``."""
        device = self.age_bias.device
        newest = torch.arange(frames, device=device)[:, None] + self.window - 1
        age = newest - torch.arange(self.window - 1 + frames, device=device)[None, :]
        outside = (age < 0) | (age >= self.window)
        bias = self.age_bias[:, age.clamp(0, self.window - 1)]
        return bias.masked_fill(outside, -1e4)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, channels)`` to the same shape."""
        batch, frames, channels = x.shape
        query, key, value = self.project(self.norm(x)).chunk(3, dim=2)
        keys = torch.cat([tensor(state, "keys").to(key.dtype), key], dim=1)
        values = torch.cat([tensor(state, "values").to(value.dtype), value], dim=1)

        def by_head(y: Tensor) -> Tensor:
            return y.reshape(batch, -1, self.heads, channels // self.heads).transpose(1, 2)

        scores = by_head(query) @ by_head(keys).transpose(2, 3)
        scores = scores * (channels // self.heads) ** -0.5 + self._bias(frames)
        mixed = (scores.softmax(dim=3).to(values.dtype) @ by_head(values)).transpose(1, 2)
        y = self.merge(mixed.reshape(batch, frames, channels))
        past = self.window - 1
        return x + y, {"keys": keys[:, -past:], "values": values[:, -past:]}


class FrequencyEmbedding(nn.Module):
    """Embeds numbers in [0, 1] (frequency / 24 kHz, flow time) as a sum of harmonic features.

    ``used`` says which inputs are used; the others count as zero, so that their weights remain but
    contribute a constant.
    """

    HARMONICS = 4
    rates: Tensor

    def __init__(self, used: tuple[bool, ...], channels: int) -> None:
        super().__init__()
        self.used = used
        self.register_buffer(
            "rates", torch.pi * 2.0 ** torch.arange(self.HARMONICS), persistent=False
        )
        self.widen = nn.Linear(len(used) * (2 * self.HARMONICS + 1), channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, *values: Tensor) -> Tensor:
        """Map tensors ``(batch, frames, 1)`` to ``(batch, frames, channels)``."""
        features = []
        for is_used, value in zip(self.used, values, strict=True):
            if not is_used:
                value = torch.zeros_like(value)
            angle = value * self.rates
            features += [value, angle.sin(), angle.cos()]
        return self.out(functional.silu(self.widen(torch.cat(features, dim=2))))

"""Branches of the exported graph: a block of a single frame takes fewer operations than others.

Live audio steps hop by hop, and then most of a step's operators exist for blocks that may be
longer: windows are gathered that are the whole input, and frames are compared with frames of which
there is one. Each function here has both ways and computes the same. They are scripted, so that a
trace keeps both as an ONNX ``If``; a run-time that knows the number of frames when it opens the
graph drops the other branch (:func:`rtsr_export.graph.build_graph` gives all of them one
condition). Where training computes the same in another way, ``rtsr.model`` calls them in a trace
alone.

A run-time infers shapes in the branch that it will drop, too, so both have to fit any block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def scripted_in_a_trace(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Keep both ways of a function in a trace; elsewhere Python takes the one that fits."""
    scripted = torch.jit.script(function)

    @functools.wraps(function)
    def chosen(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        one = scripted if torch.onnx.is_in_onnx_export() else function
        return one(*args, **kwargs)

    return chosen


@torch.jit.script
def windows(x: Tensor, length: int) -> Tensor:
    """Return each frame with the ``length - 1`` before it, ``(batch, frames, length, channels)``.

    ``x`` is ``(batch, length - 1 + frames, channels)``.
    """
    frames = x.shape[1] - (length - 1)
    first = torch.arange(frames, device=x.device)[:, None]
    return x[:, first + torch.arange(length, device=x.device)]


@torch.jit.script
def filtered(x: Tensor, taps: Tensor, length: int) -> Tensor:
    """Filter every channel, ``(batch, length - 1 + frames, channels)`` by ``(length, channels)``.

    Returns ``(batch, frames, channels)``.
    """
    if x.shape[1] == length:
        # The padding is empty, but lets the shapes fit in longer blocks, too.
        padded = functional.pad(taps, [0, 0, 0, x.shape[1] - length])
        return (x * padded).sum(1, keepdim=True)
    else:
        return (windows(x, length) * taps).sum(2)


@torch.jit.script
def flat_windows(x: Tensor, length: int) -> Tensor:
    """Return windows as rows, ``(batch, frames, length * channels)``."""
    if x.shape[1] == length:
        return x.reshape(x.shape[0], 1, -1)
    else:
        return windows(x, length).flatten(2)


@torch.jit.script
def least_so_far(x: Tensor, past: Tensor, rise: float, top: float) -> tuple[Tensor, Tensor]:
    """Return the running minimum of ``(batch, frames, channels)`` and its newest frame.

    ``past`` ``(batch, 1, channels)`` is the minimum before the first frame; it and the newest one
    are relative to ``top``.
    """
    if x.shape[1] == 1:
        least = torch.minimum(past + (top + rise), x)
        return least, least - top
    else:
        values = torch.cat([past + top, x], dim=1)
        # One minimum over all pairs of frames, for a graph of any number of them.
        position = torch.arange(values.shape[1], device=values.device)
        age = (position[:, None] - position[None])[:, :, None]
        lifted = values[:, None] + age * rise
        least = lifted.masked_fill(age < 0, 1e4).amin(2)[:, 1:]
        return least, least[:, -1:] - top


@torch.jit.script
def gated_memory(gate: Tensor, candidate: Tensor, past: Tensor) -> Tensor:
    """Return ``h[t] = (1 - sigmoid(gate[t])) h[t - 1] + sigmoid(gate[t]) candidate[t]``.

    Arguments are ``(batch, frames, channels)``, ``past`` ``(batch, 1, channels)`` is ``h`` before
    the first frame.
    """
    if gate.shape[1] == 1:
        return past + gate.sigmoid() * (candidate - past)
    else:
        # A sum over pairs of frames, with the running sum of log(1 - sigmoid(gate)).
        log_decay = -functional.softplus(gate).cumsum(dim=1)
        position = torch.arange(gate.shape[1], device=gate.device)
        is_later = (position[None] > position[:, None])[:, :, None]
        between = (log_decay[:, :, None] - log_decay[:, None]).masked_fill(is_later, -1e4)
        drive = gate.sigmoid() * candidate
        return (between.exp() * drive[:, None]).sum(2) + log_decay.exp() * past


@torch.jit.script
def decaying_sum(x: Tensor, past: Tensor, decays: Tensor) -> Tensor:
    """Return ``s[t] = decays s[t - 1] + x[t]``.

    ``x`` is ``(batch, frames, channels)``, ``past`` ``(batch, 1, channels)`` is ``s`` before the
    first frame, ``decays`` ``(channels,)``.
    """
    if x.shape[1] == 1:
        return past * decays + x
    else:
        # A sum over pairs of frames, of which the first is the past.
        values = torch.cat([past, x], dim=1)
        position = torch.arange(values.shape[1], device=x.device)
        age = (position[:, None] - position[None])[:, :, None]
        weights = (decays.log() * age).masked_fill(age < 0, -1e4).exp()
        return (weights * values[:, None]).sum(2)[:, 1:]


@scripted_in_a_trace
def frames_of_hops(past: Tensor, hop: int) -> Tensor:
    """Cut ``(batch, (2 + frames) * hop)`` samples into frames of three hops, newest last."""
    if past.shape[1] == 3 * hop:
        return past.unsqueeze(1)
    else:
        hops = past.reshape(past.shape[0], -1, hop)
        return torch.cat([hops[:, :-2], hops[:, 1:-1], hops[:, 2:]], dim=2)


@scripted_in_a_trace
def overlapped(frames: Tensor, tail: Tensor, hop: int) -> tuple[Tensor, Tensor]:
    """Add each frame's start to the one's end before it.

    ``frames`` ``(batch, frames, hop + overlap)``, ``tail`` ``(batch, 1, overlap)`` of the frame
    before. Returns hops ``(batch, frames, hop)`` and the newest tail.
    """
    overlap = frames.shape[2] - hop
    if frames.shape[1] == 1:
        start, middle, end = frames.split([overlap, hop - overlap, overlap], dim=2)
        return torch.cat([start + tail, middle], dim=2), end
    else:
        tails = torch.cat([tail, frames[:, :, hop:]], dim=1)
        start = frames[:, :, :overlap] + tails[:, :-1]
        return torch.cat([start, frames[:, :, overlap:hop]], dim=2), tails[:, -1:]

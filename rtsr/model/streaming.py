"""The state type that all streaming modules share.

A module's whole memory is one :data:`State`: a (nested) dictionary of tensors whose first
dimension is the batch. ``module.initial_state(batch)`` makes a fresh one, ``module.step(x, state)``
returns the output and the next state and changes nothing in place. A long block and the same
samples hop by hop therefore go through the same code.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

State = dict[str, "Tensor | State"]


class StreamingModule(nn.Module):
    """Base of modules with a ``step``; by default the state is that of the streaming children."""

    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def initial_state(self, batch: int) -> State:
        """Return the zero state, which means silence so far, for ``batch`` streams."""
        return {
            name: child.initial_state(batch)
            for name, child in self.named_children()
            if isinstance(child, StreamingModule)
        }

    def zeros(self, *shape: int) -> Tensor:
        """Return zeros on the module's own device: one number that is seen everywhere."""
        return self.zero.expand(shape)


class Layer(StreamingModule):
    """A streaming module with one input: what a :class:`StreamingSequential` can hold."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, channels)`` and the state to the output and the next state."""
        raise NotImplementedError


class StreamingSequential(Layer):
    """Layers applied one after another."""

    def __init__(self, *modules: Layer) -> None:
        super().__init__()
        for index, module in enumerate(modules):
            self.add_module(str(index), module)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``(batch, frames, channels)`` and the state to the output and the next state."""
        following: State = {}
        for name, module in self.named_children():
            assert isinstance(module, Layer)
            x, following[name] = module.step(x, branch(state, name))
        return x, following


def tensor(state: State, name: str) -> Tensor:
    """Return a leaf of the state; raises TypeError when the name belongs to a branch."""
    value = state[name]
    if isinstance(value, Tensor):
        return value
    raise TypeError(f"state {name!r} is a branch, not a tensor")


def branch(state: State, name: str) -> State:
    """Return a branch of the state; raises TypeError when the name belongs to a tensor."""
    value = state[name]
    if isinstance(value, Tensor):
        raise TypeError(f"state {name!r} is a tensor, not a branch")
    return value


def flatten(state: State, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of a state under dotted names, in the order the stream meets them."""
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            flat[prefix + name] = value
        else:
            flat.update(flatten(value, f"{prefix}{name}."))
    return flat


def unflatten(flat: Mapping[str, Tensor]) -> State:
    """Undo :func:`flatten`."""
    state: State = {}
    for dotted, value in flat.items():
        *branches, leaf = dotted.split(".")
        place = state
        for name in branches:
            following = place.setdefault(name, {})
            assert not isinstance(following, Tensor)
            place = following
        place[leaf] = value
    return state

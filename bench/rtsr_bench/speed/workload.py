"""What can be timed: something that takes steps, and the sound to feed it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]

_MOST_BLOCKS = 64
_MOST_INPUT_BYTES = 32 << 20


class Blocks:
    """A cycle of different blocks of noise at the level of speech.

    Args:
        shape: of one block.
    """

    def __init__(self, *shape: int) -> None:
        size = 4 * int(np.prod(shape))
        count = min(max(_MOST_INPUT_BYTES // size, 2), _MOST_BLOCKS)
        random = np.random.default_rng(0)
        self._blocks = random.standard_normal((count, *shape), np.float32)
        self._blocks *= np.float32(0.1)
        self._next = 0

    def next(self) -> Audio:
        """Return the next block."""
        self._next = (self._next + 1) % len(self._blocks)
        return np.asarray(self._blocks[self._next])


class Workload(ABC):
    """Something that takes one step of sound at a time, for all its streams together."""

    provider: str
    """What it really runs on."""

    @abstractmethod
    def step(self) -> Any:
        """Take the next hop of every stream; the result lies in host memory."""

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of what does not go with the object."""

"""Sound to feed what is timed."""

from __future__ import annotations

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

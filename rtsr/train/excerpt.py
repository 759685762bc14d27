"""The part of a recording that says most: its loudest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def loudest_start(samples: NDArray[np.floating], length: int) -> int:
    """Return where the ``length`` samples in a row with the most energy begin."""
    if samples.size <= length:
        return 0
    energy = np.concatenate(([0.0], np.cumsum(np.square(samples, dtype=np.float64))))
    return int(np.argmax(energy[length:] - energy[:-length]))


def loudest_part(samples: np.ndarray, length: int) -> np.ndarray:
    """Return the ``length`` samples in a row with the most energy; all where there are fewer."""
    start = loudest_start(samples, length)
    return samples[start : start + length]

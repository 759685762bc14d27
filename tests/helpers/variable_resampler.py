"""The kernels of the variable resampler with state of their own, as a callback holds it."""

from __future__ import annotations

import numpy as np

from rtsr_kernels.variable_resample import (
    delay_frames,
    design,
    frames_needed,
    resample_variable,
)


class VariableResampler:
    def __init__(self, input_rate: float, output_rate: float, channels: int = 1) -> None:
        self.table = design(input_rate, output_rate)
        self.channels = int(channels)
        self.nominal_ratio = input_rate / output_rate
        self._history = np.zeros((self.table.shape[1], self.channels), dtype=np.float32)
        self._position = np.zeros(1)

    @property
    def delay(self) -> float:
        """Exact delay in input frames."""
        return delay_frames(self.table)

    @property
    def position(self) -> float:
        """Where the next output lies, in input frames from the next frame to be consumed."""
        return float(self._position[0])

    def reset(self) -> None:
        """Forget the past: the next block is treated as the first."""
        self._history.fill(0.0)
        self._position.fill(0.0)

    def frames_needed(self, ratio: float, count: int) -> int:
        """Return how many input frames the next `count` outputs take at `ratio` frames each."""
        return frames_needed(self._position, ratio, count)

    def process(self, block: np.ndarray, ratio: float, count: int) -> np.ndarray:
        """Return float32 `(count, channels)` made from all of `block` `(needed, channels)`."""
        out = np.empty((max(0, count), self.channels), dtype=np.float32)
        block = np.ascontiguousarray(block, dtype=np.float32)
        resample_variable(self._history, self._position, self.table, ratio, block, out)
        return out

"""The newest step times of one level and their 99th percentile."""

from __future__ import annotations

import numpy as np

__all__ = ["StepWindow"]


class StepWindow:
    """A window over step times that says at every step, without sorting, whether too many are long.

    Args:
        steps: length of the window.
        threshold_ms: longer steps are long.

    Attributes:
        seen: steps in the window.
        long: how many of them are long.
    """

    def __init__(self, steps: int, threshold_ms: float) -> None:
        self._times = np.zeros(steps)
        self._threshold_ms = threshold_ms
        self._look_every = max(1, steps // 4)
        self._best_ms = np.inf
        self.seen = 0
        self.long = 0
        self._place = 0

    def record(self, step_ms: float) -> None:
        """Take one step time, in place of the oldest where the window is full."""
        place = self._place
        if self.seen == len(self._times):
            self.long -= int(self._times[place] > self._threshold_ms)
        else:
            self.seen += 1
        self._times[place] = step_ms
        self.long += int(step_ms > self._threshold_ms)
        self._place = (place + 1) % len(self._times)
        if self.seen == len(self._times) and self._place % self._look_every == 0:
            self._best_ms = min(self._best_ms, self.p99_ms)

    def clear(self) -> None:
        """Empty the window; what was the best remains."""
        self.seen = self.long = self._place = 0

    def forget(self) -> None:
        """Empty the window and forget the best."""
        self.clear()
        self._best_ms = np.inf

    @property
    def p99_ms(self) -> float:
        """99th percentile of what is in the window; 0 if nothing is."""
        if not self.seen:
            return 0.0
        return float(np.sort(self._times[: self.seen])[-1 - self.seen // 100])

    @property
    def p99_is_long(self) -> bool:
        """Whether the percentile of the full window is above the threshold, or is sure to be."""
        return self.long > len(self._times) // 100

    @property
    def was_full(self) -> bool:
        """Whether there was a full window since :meth:`forget`."""
        return bool(self._best_ms < np.inf)

    @property
    def best_p99_ms(self) -> float:
        """The lowest percentile of a full window; the present one before there was any."""
        return float(min(self._best_ms, self.p99_ms)) if self.seen else float(self._best_ms)

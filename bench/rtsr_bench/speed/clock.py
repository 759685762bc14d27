"""How much is left of the time that a run may take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rtsr_bench.speed.workers import LONGEST_SECONDS

# Times the longest repetition so far: what the next one may need before it has to be started.
_MARGIN = 1.3


class Clock:
    """How much of the budget is left."""

    def __init__(self, budget_seconds: float | None, began: float | None = None) -> None:
        self._started = time.monotonic() if began is None else began
        self._budget = budget_seconds
        self._longest = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def left(self, share: float = 1.0) -> float:
        """Seconds until a share of the budget is used up."""
        if self._budget is None:
            return LONGEST_SECONDS
        return max(share * self._budget - self.elapsed, 0.0)

    def has_room(self, share: float = 1.0) -> bool:
        """Whether another repetition like the longest so far fits."""
        return self._budget is None or self.left(share) > _MARGIN * self._longest

    def share_of_next(self, waiting: int) -> float:
        """Return the share of the budget that is used up after an equal part of what is left."""
        if self._budget is None:
            return 1.0
        return (self.elapsed + self.left() / waiting) / self._budget

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note how long a repetition takes."""
        started = self.elapsed
        try:
            yield
        finally:
            self._longest = max(self._longest, self.elapsed - started)

"""Was the machine done warming up? Rules that say so, instead of a guessed number of steps.

A processor raises its clock, caches fill and an allocator settles over the first steps. Times
count from the point where the medians of consecutive windows agree; and a run whose end is slower
or faster than its beginning is said not to be steady.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Milliseconds = NDArray[np.float64]

WINDOW = 32
#: where time is over before there are three windows of 32, each has a third of the steps
_LEAST_WINDOW = 8
AGREEING_WINDOWS = 3
TOLERANCE = 0.05


def settled(times: Milliseconds) -> bool:
    """Whether the medians of the newest three windows of 32 steps lie within 5 % of each other.

    Of slow steps there are fewer: then of three windows of equal length, of eight steps or more.
    """
    window = min(WINDOW, len(times) // AGREEING_WINDOWS)
    if window < _LEAST_WINDOW:
        return False
    newest = times[-window * AGREEING_WINDOWS :].reshape(AGREEING_WINDOWS, window)
    medians = np.median(newest, axis=1)
    return bool(medians.max() <= (1.0 + TOLERANCE) * medians.min())


def warm_up(
    take_step: Callable[[], float], seconds: float, most_steps: int
) -> tuple[Milliseconds, bool]:
    """Take steps until they are settled, or until time or steps run out.

    Args:
        take_step: takes one step and returns its time in ms.
        seconds: of steps at most.
        most_steps: at most.

    Returns:
        The times, and whether they settled.
    """
    times: list[float] = []
    left = seconds * 1000.0
    while left > 0.0 and len(times) < most_steps:
        times.append(take_step())
        left -= times[-1]
        if len(times) % WINDOW or len(times) < WINDOW * AGREEING_WINDOWS:
            continue
        if settled(np.array(times[-WINDOW * AGREEING_WINDOWS :])):
            return np.array(times), True
    return np.array(times), settled(np.array(times))


def drift(times: Milliseconds) -> float:
    """Median of the last third over that of the first third, minus one."""
    third = len(times) // 3
    if third == 0:
        return 0.0
    return float(np.median(times[-third:]) / np.median(times[:third]) - 1.0)


def is_steady(times: Milliseconds) -> bool:
    """Whether the end of a run is within 5 % of its beginning."""
    return abs(drift(times)) <= TOLERANCE

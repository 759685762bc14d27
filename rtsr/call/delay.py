"""How late packets are, and so how long the earliest of them should wait."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np

__all__ = ["DelayEstimator"]

#: Packets that come this late are still played; nothing waits for them.
SLACK = 0.008
#: The target lets this share of the packets of the last seconds be in time.
SHARE_IN_TIME = 0.97
#: Longer waits make a conversation impossible.
LONGEST_TARGET = 0.4

_NEWEST = 50
_REMEMBERED = 400
_EVERY = 5


class DelayEstimator:
    """Follows the transit time of a stream, up to an unknown constant: the difference of clocks.

    The fastest of the newest 50 packets is taken for one that nothing held up; so two clocks that
    drift apart are followed, and a sender that stands still now and then. Jitter is what the others
    took more.

    Attributes:
        baseline: seconds from a packet's media time to its arrival, had nothing held it up.
        target: seconds that a packet which nothing held up should wait for those that something
            does; 0 while all come within :data:`SLACK`.
    """

    def __init__(self) -> None:
        self.baseline = 0.0
        self.target = 0.0
        self._newest = [math.inf] * _NEWEST
        self._transits = np.zeros(_REMEMBERED)
        self._count = 0

    @property
    def jitter(self) -> float:
        """Mean seconds by which the newest 50 packets came later than the fastest of them."""
        if not self._count:
            return 0.0
        return fmean(self._newest[: self._count]) - self.baseline

    def observe(self, media_time: float, arrival: float) -> None:
        """Take note of a packet; both times in seconds, of the sender's clock and of ours."""
        transit = arrival - media_time
        self._newest[self._count % _NEWEST] = transit
        self.baseline = min(self._newest)
        self._transits[self._count % _REMEMBERED] = transit
        self._count += 1
        if self._count % _EVERY == 0 or transit > self.baseline + self.target + SLACK:
            self._update_target()

    def _update_target(self) -> None:
        known = self._transits[: min(self._count, _REMEMBERED)]
        place = min(len(known) - 1, math.floor(SHARE_IN_TIME * len(known)))
        needed = float(np.partition(known, place)[place]) - self.baseline - SLACK
        self.target = min(max(0.0, needed), LONGEST_TARGET)

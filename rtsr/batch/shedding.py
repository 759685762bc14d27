"""What a batch does when it cannot keep up: the network, then replication, then the dry sound.

This is the order of the live engine. A batch is behind when sound piles up *and* its steps take
longer than the sound they are worth; a caller who merely pushes much at once is not. How each
stream follows is the business of :mod:`rtsr.batch.row_levels`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtsr.timing import HOP_MS

NETWORK, REPLICATE, DRY = "network", "replicate", "dry"
LEVELS = (NETWORK, REPLICATE, DRY)
Rows = NDArray[np.int64]

#: A network that starts from nothing is 2 dB too quiet at first; after 20 hops it is right within
#: 0.7 dB. So many hops of a stream it takes before it is faded in there.
PREROLL_HOPS = 20
#: Sound that may wait, in ms, before steps are shed.
BEHIND_MS = 60.0
#: Sound that waits while the batch keeps up, in ms.
ON_TIME_MS = 30.0
#: Sound that must have been kept up with before the network is tried again; doubled every time
#: that it failed, up to the most.
PATIENCE_MS, MOST_PATIENCE_MS = 1000.0, 30_000.0
#: Share of a step's own length that it may take on average.
LOAD = 0.95
_SMOOTHING = 0.2


@dataclass(frozen=True)
class Plan:
    """What the streams of one step are to put out.

    Attributes:
        level: that those which are at another one go to.
        network: whether the network runs for all, whether or not it is put out.
    """

    level: str
    network: bool


class Shedding:
    """Chooses the level of each step of a batch.

    Time is counted in sound: of the stream that has had most of it since, for each may step at a
    moment of its own, and some have none.

    Args:
        replicate_ms: time that the replication of one hop of one channel takes.
        streams: rows.
        hops: of a step.
        is_allowed: whether anything may be shed at all.

    Attributes:
        level: what is put out.
    """

    def __init__(
        self, replicate_ms: float, streams: int, hops: int = 1, is_allowed: bool = True
    ) -> None:
        self._replicate_ms = replicate_ms
        self._is_allowed = is_allowed
        self._one_ms = hops * HOP_MS
        self._step_ms = self._one_ms
        self.level = NETWORK
        self._load = 0.0
        self._patience_ms = PATIENCE_MS
        self._is_tried = False
        self._has_come_back = False
        self._sound_ms = np.zeros(streams)

    def plan(self, waiting_ms: float, channels: int, rows: Rows, two: int = 0) -> Plan:
        """Choose what the next step runs.

        Args:
            waiting_ms: sound of the stream that is furthest behind.
            channels: that take part.
            rows: of the streams that take part.
            two: how many of them, the first ones, take two steps at once.
        """
        # The mean of what it is worth to them.
        self._step_ms = step_ms = self._one_ms * (len(rows) + two) / len(rows)
        if not self._is_allowed:
            return Plan(NETWORK, network=True)
        # A step waits for all that it takes; the limits count one hop of that.
        waiting_ms -= step_ms - HOP_MS
        behind = waiting_ms > BEHIND_MS and self._load > LOAD
        if self.level == NETWORK:
            if not behind:
                self._count(rows, two)
                return Plan(NETWORK, network=True)
            fits = channels * self._replicate_ms < LOAD * HOP_MS
            return self._move(REPLICATE if fits else DRY)
        if behind:
            # Not even this keeps up, or the network that is being tried beside it.
            if self._is_tried:
                self._give_up()
            elif self.level == REPLICATE:
                return self._move(DRY)
        if not self._is_tried:
            if waiting_ms > ON_TIME_MS:
                self._sound_ms.fill(0.0)
            else:
                self._count(rows, two)
            if self._passed_ms < self._patience_ms:
                return Plan(self.level, network=False)
            self._is_tried = True
            self._sound_ms.fill(0.0)
        if self._passed_ms < PREROLL_HOPS * HOP_MS:
            self._count(rows, two)
            return Plan(self.level, network=True)
        self.level = NETWORK
        self._is_tried = False
        self._has_come_back = True
        self._restart()
        return Plan(NETWORK, network=True)

    def record(self, elapsed_ms: float) -> None:
        """Take the time of the step that was planned last."""
        self._load += _SMOOTHING * (elapsed_ms / self._step_ms - self._load)

    @property
    def _passed_ms(self) -> float:
        return float(self._sound_ms.max())

    def _count(self, rows: Rows, two: int) -> None:
        self._sound_ms[rows] += self._one_ms
        self._sound_ms[rows[:two]] += self._one_ms

    def _restart(self) -> None:
        self._sound_ms.fill(0.0)
        self._load = 0.0

    def _move(self, level: str) -> Plan:
        if self.level == NETWORK:
            # Soon after it was taken up again, it was taken up too soon.
            steady = not self._has_come_back or self._passed_ms >= MOST_PATIENCE_MS
            self._patience_ms = (
                PATIENCE_MS if steady else min(2.0 * self._patience_ms, MOST_PATIENCE_MS)
            )
        self.level = level
        self._restart()
        return Plan(level, network=False)

    def _give_up(self) -> None:
        self._is_tried = False
        self._restart()
        self._patience_ms = min(2.0 * self._patience_ms, MOST_PATIENCE_MS)

"""What a batch does when it cannot keep up: the network, then replication, then the dry sound.

This is the order of the live engine. A batch is behind when sound piles up *and* its steps take
longer than the sound they are worth; a caller who merely pushes much at once is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from rtsr.timing import HOP, SAMPLE_RATE

NETWORK, REPLICATE, DRY = "network", "replicate", "dry"
LEVELS = (NETWORK, REPLICATE, DRY)

#: A network that starts from nothing is 2 dB too quiet at first; after 20 hops it is right within
#: 0.7 dB. So many hops it takes before it is faded in.
PREROLL_HOPS = 20
HOP_MS = 1000.0 * HOP / SAMPLE_RATE
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
    """What one step runs and what it puts out.

    Attributes:
        before, after: levels at the step's begin and end; they are cross-faded if they differ.
        network: whether the network runs, whether or not it is put out.
        starts: whether it starts from nothing.
    """

    before: str
    after: str
    network: bool
    starts: bool = False

    @property
    def replicate(self) -> bool:
        """Whether the replication runs."""
        return REPLICATE in (self.before, self.after)

    @property
    def settled(self) -> Plan:
        """The same for a step behind this one, where nothing is cross-faded any more."""
        return Plan(self.after, self.after, self.network)


class Shedding:
    """Chooses the level of each step of a batch.

    Args:
        replicate_ms: time that the replication of one hop of one channel takes.
        is_allowed: whether anything may be shed at all.

    Attributes:
        level: what is put out.
    """

    def __init__(self, replicate_ms: float, is_allowed: bool = True) -> None:
        self._replicate_ms = replicate_ms
        self._is_allowed = is_allowed
        self._step_ms = HOP_MS
        self.level = NETWORK
        self._load = 0.0
        self._on_time_ms = 0.0
        self._patience_ms = PATIENCE_MS
        self._steady_ms = MOST_PATIENCE_MS
        self._fed_ms = 0.0

    def plan(self, waiting_ms: float, channels: int, step_ms: float) -> Plan:
        """Choose what the next step runs.

        Args:
            waiting_ms: sound of the stream that is furthest behind.
            channels: that take part.
            step_ms: sound that the step is worth, the mean of the streams that take part.
        """
        self._step_ms = step_ms
        if not self._is_allowed:
            return Plan(NETWORK, NETWORK, network=True)
        # A step waits for all that it takes; the limits count one hop of that.
        waiting_ms -= step_ms - HOP_MS
        behind = waiting_ms > BEHIND_MS and self._load > LOAD
        if self.level == NETWORK:
            if not behind:
                self._steady_ms += step_ms
                return Plan(NETWORK, NETWORK, network=True)
            fits = channels * self._replicate_ms < LOAD * HOP_MS
            return self._move(REPLICATE if fits else DRY)
        if behind:
            # Not even this keeps up, or the network that is being tried beside it.
            if self._fed_ms:
                self._give_up()
            elif self.level == REPLICATE:
                return self._move(DRY)
        self._on_time_ms = self._on_time_ms + step_ms if waiting_ms <= ON_TIME_MS else 0.0
        if not self._fed_ms and self._on_time_ms < self._patience_ms:
            return Plan(self.level, self.level, network=False)
        if self._fed_ms < PREROLL_HOPS * HOP_MS:
            starts = not self._fed_ms
            self._fed_ms += step_ms
            return Plan(self.level, self.level, network=True, starts=starts)
        plan = Plan(self.level, NETWORK, network=True)
        self.level = NETWORK
        self._load = 0.0
        self._steady_ms = 0.0
        self._fed_ms = 0.0
        return plan

    def record(self, elapsed_ms: float) -> None:
        """Take the time of the step that was planned last."""
        self._load += _SMOOTHING * (elapsed_ms / self._step_ms - self._load)

    def _move(self, level: str) -> Plan:
        plan = Plan(self.level, level, network=self.level == NETWORK)
        if self.level == NETWORK:
            # Soon after it was taken up again, it was taken up too soon.
            steady = self._steady_ms >= MOST_PATIENCE_MS
            self._patience_ms = (
                PATIENCE_MS if steady else min(2.0 * self._patience_ms, MOST_PATIENCE_MS)
            )
        self.level = level
        self._on_time_ms = 0.0
        self._load = 0.0
        return plan

    def _give_up(self) -> None:
        self._fed_ms = 0.0
        self._on_time_ms = 0.0
        self._load = 0.0
        self._patience_ms = min(2.0 * self._patience_ms, MOST_PATIENCE_MS)

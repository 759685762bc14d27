"""The governor of fallback levels: down at once when time runs short, up after a calm stretch.

Pure arithmetic on what it is told. It knows no clock: each call of `observe` is one hop, and time
is counted in hops. So the tests run an hour of it in a second, and a worker that was stopped for a
while does not take the pause for a calm stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from rtsr.errors import ArgumentError
from rtsr.live.worker.step_window import StepWindow

__all__ = ["Cause", "Change", "Governor", "GovernorSettings"]


class Cause(IntEnum):
    """Why a fallback level was left; `str` of it is what people read."""

    WANTED = 0
    """The user asked for another level."""
    STEP_TIME = 1
    """The 99th percentile of the step time came too near to the budget."""
    RING_LOW = 2
    """The enhanced sound was about to run out."""
    LATE = 3
    """Enhanced sound came after it was due."""
    CALM = 4
    """It has been calm for so long that a better level is worth a trial."""

    def __str__(self) -> str:
        return _WORDS[self]


_WORDS = {
    Cause.WANTED: "wanted",
    Cause.STEP_TIME: "step time",
    Cause.RING_LOW: "ring low",
    Cause.LATE: "late",
    Cause.CALM: "calm",
}


@dataclass(frozen=True)
class Change:
    """A move from one fallback level to another.

    Attributes:
        p99_ms: 99th percentile of the step time on the level that is left.
    """

    from_level: str
    to_level: str
    cause: Cause
    p99_ms: float


@dataclass(frozen=True)
class GovernorSettings:
    """When to move; times in seconds of sound, shares of the budget of one hop.

    Attributes:
        down_share: the 99th percentile of the step time must stay below this.
        up_share: what it must be expected to stay below on a better level.
        window_s: over which percentiles are taken.
        ring_low_frames: fewer enhanced frames ahead of the next device block are too few.
        ring_low_hops: so many low hops within one second, and the level is left. A single one is
            the system's doing.
        late_times: so many separate times late within ``late_window_s``, likewise. The second long
            step of a window that makes its hop late counts at once.
        late_run_hops: so many hops late in a row, likewise.
        settle_down_s: after a move down, time in which nothing is judged: it is being made.
        settle_up_s: after a move up, time in which step times are not judged: the better level is
            being prepared while the present one still runs.
        calm_s: calm stretch before a better level is tried; it doubles with every trial that fails,
            up to ``longest_calm_s``.
        trial_s: a better level that is left within this time has failed.
        measurement_lasts_s: how long a step time measured on another level is believed.
        fixed: stay at the wanted level, whatever happens.
    """

    down_share: float = 0.8
    up_share: float = 0.5
    window_s: float = 2.0
    ring_low_frames: int = 48
    ring_low_hops: int = 3
    late_times: int = 2
    late_window_s: float = 10.0
    late_run_hops: int = 5
    settle_down_s: float = 0.05
    settle_up_s: float = 0.25
    calm_s: float = 5.0
    longest_calm_s: float = 60.0
    trial_s: float = 30.0
    measurement_lasts_s: float = 60.0
    fixed: bool = False


class Governor:
    """Moves between fallback levels.

    Args:
        levels: names of the fallback levels, best first; the last one must always be able to keep
            up.
        budget_ms: time that one hop may take, which is the hop.
        wanted: best level to take, where it starts; the first of the fallback levels if ``None``.

    Raises:
        ArgumentError: there is no level, one is named twice, or ``wanted`` is not among them.
    """

    def __init__(
        self,
        levels: Sequence[str],
        budget_ms: float = 10.0,
        settings: GovernorSettings | None = None,
        wanted: str | None = None,
    ) -> None:
        if not levels or len(set(levels)) != len(levels):
            raise ArgumentError(f"Fallback levels: each once, best first, not {list(levels)}.")
        self.levels = tuple(levels)
        self.settings = settings or GovernorSettings()
        self._budget_ms = budget_ms
        self._threshold_ms = self.settings.down_share * budget_ms
        self._steps = StepWindow(self._hops(self.settings.window_s), self._threshold_ms)
        # Best 99th percentile of the newest long visit to each level, and when it was last left.
        self._measured: dict[str, tuple[float, int]] = {}
        self._hop = 0
        self._wanted = 0 if wanted is None else self._find(wanted)
        self._failures = 0
        self._promoted_at: int | None = None
        self._asked_up = False
        self._late_at: list[int] = []
        self._low_at: list[int] = []
        self._late_run = 0
        self._level = 0
        self._enter(self._wanted)

    @property
    def level(self) -> str:
        """Name of the present level."""
        return self.levels[self._level]

    @property
    def wanted(self) -> str:
        """The best level that it may take. Setting it moves there with the next hop.

        Raises:
            ArgumentError: it is set to a level that is not among them.
        """
        return self.levels[self._wanted]

    @wanted.setter
    def wanted(self, level: str) -> None:
        index = self._find(level)
        if index != self._wanted:
            # To lower one's wish is no reason to go up, should the level be lower still.
            self._asked_up = index < self._wanted
            self._wanted = index
            self._failures = 0

    @property
    def p99_ms(self) -> float:
        """99th percentile of the step time over the window; 0 before the first step."""
        return self._steps.p99_ms

    @property
    def calm_needed_s(self) -> float:
        """The calm stretch after which a better level is tried."""
        longest = self.settings.longest_calm_s
        return min(self.settings.calm_s * 2.0 ** min(self._failures, 30), longest)

    def observe(self, step_ms: float, ring_frames: int | None, late: bool) -> Change | None:
        """Take what one hop was like; returns the move to make, if there is one.

        Args:
            step_ms: time that the hop's step took.
            ring_frames: enhanced frames ready beyond what the next device block needs, just after
                the hop was written; ``None`` if that is not known.
            late: whether the hop came after its first frame was due.
        """
        self._hop += 1
        self._stay += 1
        asked_up, self._asked_up = self._asked_up, False
        if self._level < self._wanted or (asked_up and self._level > self._wanted):
            self._promoted_at = self._hop if asked_up else None
            return self._move(self._wanted, Cause.WANTED)
        settling = self._stay <= self._settle_hops
        if self.settings.fixed or (settling and not self._went_up):
            return None
        if not settling:
            self._steps.record(step_ms)
        cause = self._trouble(step_ms, ring_frames, late)
        if cause is not None:
            self._calm = 0
            if self._level + 1 < len(self.levels):
                return self._step_down(cause)
            self._clear()
            return None
        if late or self._is_low(ring_frames):
            self._calm = 0
        else:
            self._calm += 1
        if self._promoted_at is not None and self._trial_is_over():
            self._promoted_at = None
            self._failures = 0
        if self._level > self._wanted and self._is_calm_enough():
            self._promoted_at = self._hop
            return self._move(self._level - 1, Cause.CALM)
        return None

    def _trouble(self, step_ms: float, ring_frames: int | None, late: bool) -> Cause | None:
        settings = self.settings
        if self._steps.p99_is_long:
            return Cause.STEP_TIME
        if late:
            if self._late_run == 0:
                self._note(self._late_at, settings.late_window_s)
            self._late_run += 1
            often = len(self._late_at) >= settings.late_times
            # One long step may be a pause of the whole process, which no lesser level prevents.
            long_again = step_ms > self._threshold_ms and self._steps.long > 1
            if long_again or often or self._late_run >= settings.late_run_hops:
                return Cause.LATE
        else:
            self._late_run = 0
        if self._is_low(ring_frames):
            self._note(self._low_at, 1.0)
            if len(self._low_at) >= settings.ring_low_hops:
                return Cause.RING_LOW
        return None

    def _note(self, hops: list[int], seconds: float) -> None:
        """Add the present hop to those of the last so many seconds."""
        while hops and hops[0] <= self._hop - self._hops(seconds):
            del hops[0]
        hops.append(self._hop)

    def _step_down(self, cause: Cause) -> Change:
        if self._promoted_at is not None:
            if not self._trial_is_over():
                self._failures += 1
            self._promoted_at = None
        return self._move(self._level + 1, cause)

    def _is_calm_enough(self) -> bool:
        # The expectation wants a sorted window: ten times a second is often enough.
        if self._calm < self._hops(self.calm_needed_s) or self._calm % self._hops(0.1):
            return False
        return self._expected_above() < self.settings.up_share * self._budget_ms

    def _expected_above(self) -> float:
        """Step time in ms that the next better level is expected to stay below.

        What it was when it was last there, and what disturbs the present level beyond its own best;
        in any case as long as on the present level, which is cheaper. A level that has never been
        measured, or not in a long time, is worth a trial.
        """
        measured = self._measured.get(self.levels[self._level - 1])
        if measured is None:
            return 0.0
        best_ms, left_at = measured
        if self._hop - left_at > self._hops(self.settings.measurement_lasts_s):
            return 0.0
        now_ms = self.p99_ms
        return max(now_ms, best_ms + now_ms - self._steps.best_p99_ms)

    def _move(self, level: int, cause: Cause) -> Change:
        p99_ms = self.p99_ms
        before = self.level
        # A visit too short for a window that ended in trouble tells of the trouble, not of the
        # level: then the measurement before stands.
        if self._steps.was_full:
            self._measured[before] = (self._steps.best_p99_ms, self._hop)
        elif before in self._measured:
            self._measured[before] = (self._measured[before][0], self._hop)
        self._enter(level)
        return Change(before, self.level, cause, p99_ms)

    def _enter(self, level: int) -> None:
        self._went_up = level < self._level
        settings = self.settings
        self._settle_hops = self._hops(
            settings.settle_up_s if self._went_up else settings.settle_down_s
        )
        self._level = level
        self._stay = 0
        self._calm = 0
        self._steps.forget()
        self._clear()

    def _clear(self) -> None:
        self._steps.clear()
        self._late_at.clear()
        self._low_at.clear()
        self._late_run = 0

    def _trial_is_over(self) -> bool:
        assert self._promoted_at is not None
        return self._hop - self._promoted_at > self._hops(self.settings.trial_s)

    def _is_low(self, ring_frames: int | None) -> bool:
        return ring_frames is not None and ring_frames < self.settings.ring_low_frames

    def _find(self, level: str) -> int:
        if level not in self.levels:
            raise ArgumentError(
                f"There is no fallback level {level!r}; there are {', '.join(self.levels)}."
            )
        return self.levels.index(level)

    def _hops(self, seconds: float) -> int:
        return max(1, round(seconds * 1000.0 / self._budget_ms))

"""What the worker's event log says over a whole session: the log itself is short."""

from __future__ import annotations

import threading
from collections import deque

from rtsr.live.monitor.report import FallbackChange, cause_name
from rtsr.live.shared.events import Event, EventKind, EventLog

KEPT_CHANGES = 10_000


class FallbackHistory:
    """Follows the fallback level through the events of a session.

    Args:
        levels: names of the fallback levels, as the events number them.
        started_ns: `time.monotonic_ns` of the session's start.
        first: the level it started with.
    """

    def __init__(
        self, events: EventLog, levels: tuple[str, ...], started_ns: int, first: str
    ) -> None:
        self._events = events
        self._levels = levels
        self._started_ns = started_ns
        self._read = 0
        self._level = first
        # A thread follows while another wants a report.
        self._lock = threading.Lock()
        self._since_ns = started_ns
        self._seconds = dict.fromkeys(levels, 0.0)
        self._changes: deque[FallbackChange] = deque(maxlen=KEPT_CHANGES)

    @property
    def changes(self) -> tuple[FallbackChange, ...]:
        """The newest 10,000 changes at most, oldest first."""
        with self._lock:
            return tuple(self._changes)

    @property
    def level(self) -> str:
        """The level of the newest event."""
        return self._level

    def follow(self) -> None:
        """Take in what is new; often enough that no event has been overwritten meanwhile."""
        with self._lock:
            for event in self._events.read(self._read):
                self._read = event.number + 1
                if event.kind == EventKind.FALLBACK_LEVEL_CHANGED:
                    self._take(event)

    def seconds(self, now_ns: int) -> dict[str, float]:
        """Return the seconds that each level was the chosen one, up to now."""
        with self._lock:
            self._close(now_ns)
            return {level: round(seconds, 3) for level, seconds in self._seconds.items()}

    def _take(self, event: Event) -> None:
        self._close(event.time_ns)
        self._level = self._levels[event.target]
        self._changes.append(
            FallbackChange(
                round((event.time_ns - self._started_ns) * 1e-9, 3),
                self._levels[event.source],
                self._level,
                cause_name(event.cause),
            )
        )

    def _close(self, now_ns: int) -> None:
        self._seconds[self._level] += max(0, now_ns - self._since_ns) * 1e-9
        self._since_ns = max(self._since_ns, now_ns)

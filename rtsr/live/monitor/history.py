"""What the worker's event log says over a whole session: the log itself is short."""

from __future__ import annotations

import threading

from rtsr.live.monitor.report import RungChange, cause_name
from rtsr.live.shared.events import Event, EventKind, EventLog

_KEPT_CHANGES = 10_000


class RungHistory:
    """Follows the rung through the events of a session.

    Args:
        ladder: names of the rungs, as the events number them.
        started_ns: `time.monotonic_ns` of the session's start.
        first: the rung it started with.
    """

    def __init__(
        self, events: EventLog, ladder: tuple[str, ...], started_ns: int, first: str
    ) -> None:
        self._events = events
        self._ladder = ladder
        self._started_ns = started_ns
        self._read = 0
        self._rung = first
        # A thread follows while another wants a report.
        self._lock = threading.Lock()
        self._since_ns = started_ns
        self._seconds = dict.fromkeys(ladder, 0.0)
        self.changes: list[RungChange] = []

    @property
    def rung(self) -> str:
        """The rung of the newest event."""
        return self._rung

    def follow(self) -> None:
        """Take in what is new; often enough that the log has not gone round meanwhile."""
        with self._lock:
            for event in self._events.read(self._read):
                self._read = event.number + 1
                if event.kind == EventKind.RUNG_CHANGED:
                    self._take(event)

    def seconds(self, now_ns: int) -> dict[str, float]:
        """Seconds that each rung was the chosen one, up to now."""
        with self._lock:
            self._close(now_ns)
            return {rung: round(seconds, 3) for rung, seconds in self._seconds.items()}

    def _take(self, event: Event) -> None:
        self._close(event.time_ns)
        self._rung = self._ladder[event.target]
        if len(self.changes) < _KEPT_CHANGES:
            self.changes.append(
                RungChange(
                    round((event.time_ns - self._started_ns) * 1e-9, 3),
                    self._ladder[event.source],
                    self._rung,
                    cause_name(event.cause),
                )
            )

    def _close(self, now_ns: int) -> None:
        self._seconds[self._rung] += max(0, now_ns - self._since_ns) * 1e-9
        self._since_ns = max(self._since_ns, now_ns)

"""A fixed ring of events in shared memory: what changed in a live session, when and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numba import int64, void

from rtsr_kernels.atomics import load_acquire, store_release
from rtsr_kernels.compiled import INDICES, kernel

EVENT_SLOTS = 256
_FIELDS = 6
_HEADER_WORDS = 16
EVENT_BYTES = (_HEADER_WORDS + EVENT_SLOTS * _FIELDS) * 8


class EventKind(IntEnum):
    """Kinds of events in the worker's log; what their other fields mean."""

    FALLBACK_LEVEL_CHANGED = 1
    """``source`` and ``target`` are fallback levels; ``cause`` is the governor's; ``value`` is the
    99th percentile of the step time in ns."""
    HOPS_SKIPPED = 2
    """``value`` hops were left out."""
    WORKER_READY = 3
    """A worker has started to work."""


# A cause that is not the governor's: a new worker starts with the level that is wanted.
RESTART = -1


@kernel(void(INDICES, INDICES))
def _append(words: np.ndarray, record: np.ndarray) -> None:
    count = words[0]
    start = _HEADER_WORDS + (count % EVENT_SLOTS) * _FIELDS
    for field in range(_FIELDS):
        words[start + field] = record[field]
    # The record first: whoever sees the new count finds it whole.
    store_release(words, 0, count + 1)


@kernel(int64(INDICES))
def _count(words: np.ndarray) -> int:
    return load_acquire(words, 0)


@dataclass(frozen=True)
class Event:
    """One record. What `kind`, `source`, `target` and `cause` mean is up to the writer.

    Attributes:
        number: counts from 0 over all events ever written.
        time_ns: `time.monotonic_ns` of the event.
        kind: what happened.
        source: what it was before, such as the fallback level that was left.
        target: what it is now.
        cause: why.
        value: a figure that goes with it, such as a step time in nanoseconds.
    """

    number: int
    time_ns: int
    kind: int
    source: int
    target: int
    cause: int
    value: int


class EventLog:
    """The newest 256 events of one writer, read by anybody. Lives in `EVENT_BYTES` of memory."""

    def __init__(self, buffer: Any) -> None:
        count = EVENT_BYTES // 8
        self._words: np.ndarray = np.frombuffer(buffer, dtype=np.int64, count=count)
        self._record = np.zeros(_FIELDS, np.int64)

    def write(
        self,
        time_ns: int,
        kind: int,
        source: int = 0,
        target: int = 0,
        cause: int = 0,
        value: int = 0,
    ) -> None:
        """Append one event; the oldest goes when there are more than 256."""
        self._record[:] = (time_ns, kind, source, target, cause, value)
        _append(self._words, self._record)

    @property
    def count(self) -> int:
        """Events written so far, also those no longer held."""
        return _count(self._words)

    def read(self, start: int = 0) -> list[Event]:
        """Return the events from number `start` on that are still held, oldest first.

        The next call goes on from the last one's `number + 1`.
        """
        held = self._words[_HEADER_WORDS:].reshape(EVENT_SLOTS, _FIELDS)
        stop = self.count
        start = max(start, stop - EVENT_SLOTS)
        records = [(number, held[number % EVENT_SLOTS].tolist()) for number in range(start, stop)]
        # One more than were lapped meanwhile: the writer may be in the middle of it.
        safe = self.count - EVENT_SLOTS + 1
        return [Event(number, *record) for number, record in records if number >= safe]

    def release(self) -> None:
        """Let go of the buffer. The log is unusable after."""
        del self._words

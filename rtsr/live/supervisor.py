"""Brings back what a live session lost: a worker that died or hangs, a device that went away.

The sound needs neither of the two guards: without a worker the callback plays the dry signal. They
run in threads of their own, since opening a device may take seconds in which a worker must not be
left lying.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from rtsr.errors import RtsrError
from rtsr.live.shared.memory import LiveMemory
from rtsr.live.worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

_CHECK_SECONDS = 0.03
AFTER_ERROR_SECONDS = 1.0
# Longer than any stall that a worker gets over by itself, shorter than anybody's patience.
_SILENT_NS = 2_000_000_000
_STARTING_NS = 60_000_000_000
# A worker that dies as soon as it has started would be started for ever.
BACK_OFF_SECONDS = (0.0, 0.0, 0.0, 0.5, 2.0, 10.0)
_STEADY_NS = 10_000_000_000

_NO_CALLBACKS_SECONDS = 1.0
REOPEN_SECONDS = 0.5


class WorkerHost(Protocol):
    """Where workers run: a process or a thread."""

    error: str | None

    @property
    def ended(self) -> bool:
        """Whether the newest worker has come to its end."""

    def start(self, memory_name: str, settings: WorkerSettings) -> None:
        """Start a worker."""

    def wait(self, seconds: float) -> bool:
        """Wait for the newest worker's end."""

    def kill(self) -> None:
        """End the newest worker at once."""


class Stream(Protocol):
    """The part of a device stream that has to be watched."""

    @property
    def active(self) -> bool:
        """Whether the device runs, as far as the system knows."""

    @property
    def silent_seconds(self) -> float:
        """Time since the device last called."""

    @property
    def has_other_block(self) -> bool:
        """Whether its blocks are others than those that it was opened for."""

    def close(self) -> None:
        """Let go of the device."""

    def remember_connections(self) -> None:
        """Note what a reopened device is to be connected with."""

    def reopen(self) -> None:
        """Look for the device again and open it; raises :class:`RtsrError` if it is not there."""


class Guard:
    """A thread that checks something every few milliseconds, or at once when it is nudged."""

    def __init__(self, name: str, seconds: float = _CHECK_SECONDS) -> None:
        self._seconds = seconds
        self._nudged = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def nudge(self) -> None:
        """Check now."""
        self._nudged.set()

    def close(self) -> None:
        """Stop watching; what is in progress is waited for."""
        self._closing.set()
        self._nudged.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def check(self) -> None:
        """Check once."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self.check()
            except Exception:
                # Whatever a library or the system has run into: without a guard it would be final.
                _log.exception("%s failed; it goes on", self._thread.name)
                self._closing.wait(AFTER_ERROR_SECONDS)
            self._nudged.wait(self._seconds)
            self._nudged.clear()


class WorkerGuard(Guard):
    """Keeps a worker going.

    Attributes:
        restarts: workers that had to be replaced.
        restarting: whether one is being replaced at this moment.
        error: why the last one ended, if it said so.
    """

    def __init__(self, memory: LiveMemory, host: WorkerHost, settings: WorkerSettings) -> None:
        super().__init__("rtsr-worker-guard")
        self._words = memory.worker
        self._name = memory.name
        self._host = host
        self._settings = settings
        self._outdated = False
        self._started_ns = 0
        self._failures = 0
        self.restarts = 0
        self.error: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the newest worker has loaded everything and works."""
        return bool(self._words["ready"] == self._words["generation"])

    @property
    def restarting(self) -> bool:
        """Whether there is no working worker at this moment."""
        return self._host.ended or not self.ready

    def start_worker(self) -> None:
        """Start a worker, which supersedes the one before."""
        self._words["generation"] += 1
        self._started_ns = time.monotonic_ns()
        self._host.start(self._name, self._settings)

    def adapt(self, settings: WorkerSettings) -> None:
        """Have a worker with these settings, if they are others than the present one's."""
        if settings != self._settings:
            self._settings = settings
            self._outdated = True
            self.nudge()

    def wait_until_ready(self, seconds: float) -> None:
        """Wait for the first worker.

        Raises:
            RtsrError: it ended, with its own words, or it takes too long.
        """
        deadline = time.monotonic() + seconds
        while not self.ready:
            if self._host.ended:
                raise RtsrError(self._host.error or "The worker ended before it was ready.")
            if time.monotonic() > deadline:
                raise RtsrError(
                    f"The worker was not ready after {seconds:.0f} seconds; is the machine busy?"
                )
            time.sleep(0.005)

    def check(self) -> None:
        """Replace the worker if it died or has given no sign of life for too long."""
        now = time.monotonic_ns()
        if self._outdated:
            self._outdated = False
            self.start_worker()
        elif self._host.ended:
            self._replace(now)
        elif self.ready:
            if now - self._words["heartbeat_ns"] > _SILENT_NS:
                self._end_hanging()
                self._replace(now)
        elif now - self._started_ns > _STARTING_NS:
            self._end_hanging()
            self._replace(now)

    def _end_hanging(self) -> None:
        self._host.kill()
        self._host.wait(1.0)

    def _replace(self, now: int) -> None:
        self.error = self._host.error
        self._failures = 0 if now - self._started_ns > _STEADY_NS else self._failures + 1
        pause = BACK_OFF_SECONDS[min(self._failures, len(BACK_OFF_SECONDS) - 1)]
        if pause and self._closing.wait(pause):
            return
        self.restarts += 1
        self.start_worker()


class DeviceGuard(Guard):
    """Opens a device again when it has come back, or when its blocks have become others.

    Args:
        on_reopened: called then; its block or rate may be another.

    Attributes:
        restarts: times the device was opened again.
        waiting: whether it is being waited for at this moment.
    """

    def __init__(self, stream: Stream, on_reopened: Callable[[], None] = lambda: None) -> None:
        super().__init__("rtsr-device-guard", seconds=0.1)
        self._on_reopened = on_reopened
        self._stream = stream
        self.restarts = 0
        self.waiting = False

    def check(self) -> None:
        """See whether the device still calls as it did; if not, let go of it and wait for it."""
        stream = self._stream
        pause = REOPEN_SECONDS
        if stream.active and stream.silent_seconds < _NO_CALLBACKS_SECONDS:
            stream.remember_connections()
            if not stream.has_other_block:
                return
            pause = 0.0
        self.waiting = True
        stream.close()
        while not self._closing.wait(pause):
            pause = REOPEN_SECONDS
            try:
                stream.reopen()
            except RtsrError:
                continue
            self._on_reopened()
            self.restarts += 1
            self.waiting = False
            return

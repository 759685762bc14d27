"""More processor time than an ordinary thread gets, where the system allows it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

# Real-time levels, modest ones. Sound that is being played must not wait for sound that is being
# made: JACK gives its clients 5 unless told otherwise, and of two at one level the newcomer waits.
WORKER_LEVEL = 2
CALLBACK_LEVEL = 8
_WORKER_NICE = -11
_CALLBACK_NICE = -15

_ORDINARY = 0
# In which a Python thread that is starting gets to say its number, on however busy a machine.
_STARTING_SECONDS = 1.0


def hurry_worker() -> None:
    """Let the calling thread load and warm up before ordinary ones.

    Not yet in real time: that would hold up everything else on its core for as long.
    """
    _raise_nice(_WORKER_NICE)


def raise_worker() -> int:
    """Raise the calling thread; returns what was granted, see :func:`describe`.

    A child of it starts as an ordinary process again.
    """
    return _raise(WORKER_LEVEL, _WORKER_NICE, inherited=False)


@contextlib.contextmanager
def raised_for_new_threads() -> Iterator[int]:
    """Raise the calling thread for a while, and threads that come into being meanwhile for good.

    PortAudio starts the thread of its callbacks itself and offers no way to say how it should be
    scheduled. On Linux a thread inherits that from the one that starts it, unless a library decides
    otherwise, as JACK's does; so the new ones are found afterwards and raised, too. Python's own
    threads are not: those that come meanwhile belong to something else in this program.
    """
    threads = _threads()
    before = _current()
    granted = _raise(CALLBACK_LEVEL, _CALLBACK_NICE, inherited=True)
    try:
        yield granted
    finally:
        if granted != _ORDINARY:
            _restore(before)
        if granted > 0:
            # Listed before Python's are: one that starts later is in neither list.
            new = _threads() - threads
            for thread in new - _python_threads():
                _raise_other(thread)


def describe(granted: int) -> str:
    """Return what was granted, in words: above 0 a real-time level, below a niceness."""
    if granted > 0:
        return f"real-time {granted}"
    if granted < 0:
        return f"nice {granted}"
    return "ordinary"


def _raise(level: int, nice: int, inherited: bool) -> int:
    if not hasattr(os, "sched_setscheduler"):
        # macOS: one process-wide figure, which only the administrator may raise.
        return _raise_nice(nice)
    policy = os.SCHED_FIFO | (0 if inherited else os.SCHED_RESET_ON_FORK)
    try:
        os.sched_setscheduler(0, policy, os.sched_param(level))
    except OSError:
        return _raise_nice(nice)
    return level


def _raise_nice(nice: int) -> int:
    if not hasattr(os, "setpriority"):
        return _ORDINARY
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) > nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError:
        return _ORDINARY
    return os.getpriority(os.PRIO_PROCESS, 0)


def _threads() -> set[int]:
    """Return this program's threads, as the system numbers them; empty where it does not tell."""
    try:
        return {int(name) for name in os.listdir("/proc/self/task")}
    except OSError:
        return set()


def _python_threads() -> set[int | None]:
    """Return the threads that Python has started, as the system numbers them."""
    deadline = time.monotonic() + _STARTING_SECONDS
    while True:
        numbers = {thread.native_id for thread in threading.enumerate()}
        # One that has been started and did not get to run has no number here, but the system's.
        if None not in numbers or time.monotonic() > deadline:
            return numbers
        time.sleep(0.001)


def _raise_other(thread: int) -> None:
    # It may have ended, or be a real-time thread already.
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(thread) == os.SCHED_OTHER:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(CALLBACK_LEVEL))


def _current() -> tuple[Any, ...]:
    if not hasattr(os, "sched_getscheduler"):
        return ()
    return (
        os.sched_getscheduler(0),
        os.sched_getparam(0),
        os.getpriority(os.PRIO_PROCESS, 0),
    )


def _restore(before: tuple[Any, ...]) -> None:
    if not before:
        return
    policy, parameter, nice = before
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, policy, parameter)
        os.setpriority(os.PRIO_PROCESS, 0, nice)

"""Which signals end a program that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

__all__ = ["ending_signals", "handled", "held_back", "on_ending", "postponed"]


def ending_signals() -> list[signal.Signals]:
    """Return those that this system has; under nohup SIGHUP is ignored, and stays so."""
    found = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is signal.SIG_IGN:
        found.remove(hang_up)
    return [each for each in found if each is not None]


@contextmanager
def held_back(numbers: Iterable[signal.Signals] | None = None) -> Iterator[None]:
    """Keep signals from this thread, and from processes that it starts, until the block ends.

    They are those that end a program, if no others are named.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    numbers = ending_signals() if numbers is None else numbers
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def handled(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Have a handler called for each of them until the block ends; in the main thread."""
    before = {number: signal.signal(number, handler) for number in ending_signals()}
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)


@contextmanager
def postponed() -> Iterator[None]:
    """Have them wait until the block has ended or failed; then they do what they would have done.

    Unlike :func:`held_back` it also holds where another thread takes the signal, for Python handles
    it in the main thread; in another thread the block is never interrupted.
    """
    # Called also where the block fails, or where one of them ends it with an exception.
    with ExitStack() as afterwards:
        if threading.current_thread() is threading.main_thread():
            with handled(lambda number, _: afterwards.callback(signal.raise_signal, number)):
                yield
        else:
            yield


def on_ending(loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
    """Have the loop call ``stop`` at any of them; to be called in the main thread."""
    for number in ending_signals():
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:
            # Windows: the handler runs between two steps of the program, and the loop is woken.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))

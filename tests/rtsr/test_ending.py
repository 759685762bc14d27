"""What ends a program that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

import pytest

from rtsr.ending import ending_signals, on_ending, postponed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends programs there")


def not_here(number, callback, *arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("has_handlers", [True, False], ids=["Unix", "as on Windows"])
def test_a_loop_is_told_to_stop(name, has_handlers, monkeypatch):
    before = {number: signal.getsignal(number) for number in ending_signals()}

    async def run():
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        if not has_handlers:
            monkeypatch.setattr(loop, "add_signal_handler", not_here, raising=False)
        on_ending(loop, stopped.set)
        loop.call_later(0.05, os.kill, os.getpid(), getattr(signal, name))
        await asyncio.wait_for(stopped.wait(), 10)

    try:
        asyncio.run(run())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_end_of_a_terminal_is_one_unless_it_is_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert ending_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert ending_signals() == [signal.SIGINT, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_waits_until_what_must_be_whole_is_whole():
    done = []

    def interrupted():
        with postponed():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_is_not_lost_where_the_block_fails():
    def fails():
        with postponed():
            signal.raise_signal(signal.SIGINT)
            raise OSError("disk full")

    with pytest.raises(KeyboardInterrupt) as ended:
        fails()
    assert isinstance(ended.value.__context__, OSError)


def test_every_signal_that_waited_comes():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))

    def interrupted():
        with postponed():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM] * 2


def test_in_another_thread_there_is_nothing_to_wait_for():
    done = []

    def work():
        with postponed():
            done.append("whole")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["whole"]

"""How often a sound server is asked for its latencies."""

from __future__ import annotations

import pytest

from rtsr.live.device import latency_polling as latency_watch
from rtsr.live.device.latency import StreamLatency
from rtsr.live.device.latency_polling import LatencyPolling


class Stream:
    """Counts the looks; each finds one more frame per block."""

    def __init__(self) -> None:
        self.looks = 0

    @property
    def latency(self) -> StreamLatency:
        return StreamLatency(block=self.looks)

    def refresh_latency(self) -> StreamLatency:
        self.looks += 1
        return self.latency


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, to be set."""
    now = [1000.0]
    monkeypatch.setattr(latency_watch.time, "monotonic", lambda: now[0])
    return now


def test_it_looks_at_once_a_second_at_first_and_once_a_minute_later(now: list[float]) -> None:
    stream = Stream()
    watch = LatencyPolling(stream)
    looked = []
    for second in range(601):
        now[0] = 1000.0 + second
        if watch.recent().block > len(looked):
            looked.append(second)
    assert looked == [1, 3, 7, 15, 31, 63, 127, 191, 255, 319, 383, 447, 511, 575]


def test_who_asks_seldom_hears_the_present_state(now: list[float]) -> None:
    watch = LatencyPolling(Stream())
    for hour in range(1, 4):
        now[0] = 1000.0 + 3600.0 * hour
        assert watch.recent().block == hour
        assert watch.recent().block == hour


def test_after_a_restart_it_looks_often_again(now: list[float]) -> None:
    watch = LatencyPolling(Stream())
    now[0] += 600.0
    assert watch.recent().block == 1
    now[0] += 600.0
    watch.restart()
    assert watch.recent().block == 1
    now[0] += 1.0
    assert watch.recent().block == 2

"""The search for the number of streams, on machines that exist only here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsr_bench.speed.stream_search import OutOfTimeError, Search, Trial, find_most_streams


def machine(room: int, tried: list[int] | None = None) -> Callable[[int, bool], Trial]:
    def attempt(streams: int, long: bool) -> Trial:
        if tried is not None:
            tried.append(streams)
        return Trial(streams, 8.0 * streams / (room + 0.5), streams <= room)

    return attempt


def search(attempt: Callable[[int, bool], Trial], most: int = 8192) -> Search:
    return find_most_streams(attempt, 8.0, most)


@given(room=st.integers(0, 32))
def test_small_numbers_are_exact(room: int) -> None:
    found = search(machine(room))
    assert (found.streams, found.fails_at, found.finished) == (room, room + 1, True)


@given(room=st.integers(33, 8000))
def test_large_numbers_are_within_a_thirty_second(room: int) -> None:
    tried: list[int] = []
    found = search(machine(room, tried))
    assert found.finished
    assert found.streams <= room < found.fails_at
    assert found.fails_at - found.streams <= found.streams // 32
    assert len(tried) < 32


@given(room=st.integers(0, 8000))
def test_a_quick_search_is_within_a_quarter(room: int) -> None:
    tried: list[int] = []
    found = find_most_streams(machine(room, tried), 8.0, 8192, exact_up_to=4)
    assert found.finished
    assert found.fails_at is not None
    assert found.streams <= room < found.fails_at
    assert found.fails_at - found.streams <= max(1, found.streams // 4)
    # Each number that fails is tried twice: 14 doublings, two numbers between, one confirmation.
    assert len(tried) <= 20


def test_it_stops_at_the_most() -> None:
    found = search(machine(1000), most=100)
    assert (found.streams, found.fails_at, found.finished) == (100, None, True)
    assert max(trial.streams for trial in found.trials) == 100


def test_one_stall_is_forgiven_two_are_not() -> None:
    inner, stalls = machine(12), {4: 1}

    def attempt(streams: int, long: bool) -> Trial:
        if stalls.get(streams, 0):
            stalls[streams] -= 1
            return Trial(streams, 99.0, False)
        return inner(streams, long)

    assert search(attempt).streams == 12
    stalls[4] = 2
    assert search(attempt).streams == 3


def test_a_number_has_to_be_confirmed() -> None:
    """In the longer run only 9 of 12 streams keep up."""

    def attempt(streams: int, long: bool) -> Trial:
        return Trial(streams, float(streams), streams <= (9 if long else 12))

    found = search(attempt)
    assert (found.streams, found.finished) == (9, True)


def test_what_dies_is_not_tried_twice() -> None:
    tried: list[int] = []

    def attempt(streams: int, long: bool) -> Trial:
        tried.append(streams)
        if streams > 5:
            return Trial(streams, None, False, "out of memory")
        return Trial(streams, 1.0, True)

    assert search(attempt).streams == 5
    assert tried.count(8) == 1


@pytest.mark.parametrize("after", [0, 1, 3, 7])
def test_without_time_it_says_what_it_knows(after: int) -> None:
    left = [after]

    def attempt(streams: int, long: bool) -> Trial:
        if not left[0]:
            raise OutOfTimeError
        left[0] -= 1
        return machine(20)(streams, long)

    found = search(attempt)
    assert not found.finished
    assert len(found.trials) == after
    assert found.streams <= 20

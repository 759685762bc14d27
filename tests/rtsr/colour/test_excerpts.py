"""Which parts of a running stream are learnt from."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.colour.auto import EXCERPT_HOPS, LEAD_IN_HOPS, AutoColour, Excerpt
from rtsr.colour.excerpts import ExcerptCollector

NEW_HOPS = EXCERPT_HOPS - LEAD_IN_HOPS
# So many hops with sound must follow an excerpt.
PROVEN_HOPS = 120


class Taken(AutoColour):
    """Keeps the excerpts and learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.excerpts: list[Excerpt] = []

    def take(self, excerpt: Excerpt) -> None:
        self.excerpts.append(excerpt)


class Stream:
    """Hops that are numbered: the samples of hop 7 are 7."""

    def __init__(self) -> None:
        self.auto = Taken()
        self._collector = ExcerptCollector(self.auto)
        self._number = 0

    def break_off(self) -> None:
        self._collector.break_off()

    def go(self, hops: int, cutoff_hz: float, has_sound: bool = True) -> list[tuple[int, float]]:
        """Go on; returns where each excerpt so far begins, and its band."""
        for _ in range(hops):
            hop = np.full(480, self._number, np.float32)
            self._collector.add(hop, cutoff_hz, has_sound)
            self._number += 1
        return [(int(one.sound[0, 0]), one.own_hz) for one in self.auto.excerpts]


def test_excerpts_follow_each_other_and_share_their_lead_in() -> None:
    stream = Stream()
    assert stream.go(EXCERPT_HOPS + PROVEN_HOPS - 1, 24000.0) == []
    assert stream.go(1 + NEW_HOPS, 24000.0) == [(0, 24000.0), (NEW_HOPS, 24000.0)]
    for one in stream.auto.excerpts:
        numbers = one.sound[::480, 0]
        np.testing.assert_array_equal(numbers, numbers[0] + np.arange(EXCERPT_HOPS))


@pytest.mark.parametrize("after_hz", [16000.0, 8000.0, 4000.0])
def test_what_may_have_been_narrow_already_is_not_learnt_from(after_hz: float) -> None:
    stream = Stream()
    assert stream.go(EXCERPT_HOPS + PROVEN_HOPS - 1, 24000.0) == []
    excerpts = stream.go(1000, after_hz)
    assert all(own_hz == after_hz for _, own_hz in excerpts)
    assert bool(excerpts) == (after_hz > 5600.0)
    assert stream.go(1000, 24000.0)[-1][1] == 24000.0


def test_a_narrower_excerpt_ahead_does_not_shield_a_wider_one() -> None:
    stream = Stream()
    stream.go(EXCERPT_HOPS, 8000.0)
    # Most of it a pause, so that the narrower one still waits when the wider one is whole.
    stream.go(EXCERPT_HOPS - 60, 24000.0, has_sound=False)
    assert stream.go(60, 24000.0) == []
    excerpts = stream.go(1000, 8000.0)
    assert {own_hz for _, own_hz in excerpts} == {8000.0}


def test_behind_a_gap_it_begins_anew() -> None:
    stream = Stream()
    stream.go(EXCERPT_HOPS, 24000.0)
    stream.go(50, 24000.0)
    stream.break_off()
    first = EXCERPT_HOPS + 50
    assert stream.go(EXCERPT_HOPS + PROVEN_HOPS, 24000.0) == [(first, 24000.0)]


def test_pauses_prove_nothing_and_teach_nothing() -> None:
    stream = Stream()
    stream.go(EXCERPT_HOPS, 24000.0)
    assert stream.go(3000, 24000.0, has_sound=False) == []
    assert stream.go(PROVEN_HOPS, 24000.0) == [(0, 24000.0)]


def test_all_wide_hops_are_counted() -> None:
    stream = Stream()
    stream.go(100, 24000.0)
    stream.go(100, 4000.0)
    stream.go(100, 8000.0, has_sound=False)
    assert stream.auto.heard_hops == 200


@pytest.mark.parametrize(("sound_hops", "first"), [(29, NEW_HOPS), (30, 0)])
def test_an_excerpt_with_little_sound_is_not_worth_the_work(sound_hops: int, first: int) -> None:
    stream = Stream()
    stream.go(EXCERPT_HOPS - sound_hops, 24000.0, has_sound=False)
    stream.go(sound_hops, 24000.0)
    assert stream.go(2 * EXCERPT_HOPS, 24000.0)[0] == (first, 24000.0)
    assert stream.auto.skipped_hops == 0


def test_of_many_excerpts_that_wait_for_sound_the_newest_is_counted_as_skipped() -> None:
    stream = Stream()
    stream.go(LEAD_IN_HOPS, 24000.0, has_sound=False)
    for skipped in (0, 0, NEW_HOPS):
        stream.go(NEW_HOPS - 30, 24000.0, has_sound=False)
        assert stream.go(30, 24000.0) == []
        assert stream.auto.skipped_hops == skipped
    assert [begins for begins, _ in stream.go(90, 24000.0)] == [0, NEW_HOPS]

"""Which hops of a stream have sound."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.colour.activity import SoundActivity


def test_sound_is_within_40_db_of_the_loudest_hop() -> None:
    activity = SoundActivity()
    assert activity.hop_has_sound(np.full(480, 1.0, np.float32))
    assert activity.has_sound(-39.9)
    assert not activity.has_sound(-40.1)


@pytest.mark.parametrize(("pauses", "stands_for"), [(600, 1), (150, 4)])
def test_one_loud_part_does_not_keep_the_rest_out_for_ever(pauses: int, stands_for: int) -> None:
    activity = SoundActivity()
    for _ in range(3):
        activity.has_sound(0.0, stands_for)
    assert not activity.has_sound(-40.5)
    for _ in range(pauses):
        activity.has_sound(-60.0, stands_for)
    assert activity.has_sound(-40.5)


def test_what_is_silent_stays_silent_however_long_it_lasts() -> None:
    activity = SoundActivity()
    assert not activity.has_sound(-75.0, stands_for=100_000)
    assert not activity.has_sound(-75.0)
    assert activity.has_sound(-69.0)


@pytest.mark.parametrize(("hops", "stands_for"), [(1, 1), (2, 1), (1, 4), (1, 20)])
def test_a_click_is_forgotten_within_seconds_and_has_at_most_full_scale(
    hops: int, stands_for: int
) -> None:
    activity = SoundActivity()
    for _ in range(hops):
        activity.has_sound(180.0, stands_for)
    assert not activity.has_sound(-50.0, stands_for)
    for _ in range(550 // stands_for):
        activity.has_sound(-60.0, stands_for)
    assert activity.has_sound(-50.0, stands_for)


def test_beats_that_come_again_keep_their_pauses_out() -> None:
    activity = SoundActivity()
    for _ in range(100):
        activity.has_sound(-10.0)
        assert not any(activity.has_sound(-52.0) for _ in range(50))

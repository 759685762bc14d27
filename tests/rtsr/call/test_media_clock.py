"""Media time of packets whose timestamps and arrivals do not tell the same."""

from __future__ import annotations

import pytest

from rtsr.call.media_clock import LARGEST_DISAGREEMENT, UNITS, MediaClock


def at(clock, seconds, arrival, *, number=0, rate=8000, restarted=False, is_event=False):
    """Media time, in seconds, of a packet with a timestamp in seconds.

    Numbers that stand still prove nothing.
    """
    ticks = round(seconds * rate)
    return clock.at(number, ticks, rate, arrival, restarted, is_event=is_event) / UNITS


def test_time_follows_timestamps_and_not_arrivals():
    clock = MediaClock()
    at(clock, 7.0, 100.0)
    assert [at(clock, 7.0 + 0.02 * k, 100.0 + 0.02 * k + 0.1 * (k % 2)) for k in range(1, 5)] == [
        pytest.approx(0.02 * k) for k in range(1, 5)
    ]


def test_a_packet_that_was_overtaken_has_its_own_time_and_moves_nothing():
    clock = MediaClock()
    at(clock, 7.0, 100.0)
    at(clock, 7.06, 100.06)
    assert at(clock, 7.02, 100.07) == pytest.approx(0.02)
    assert at(clock, 7.08, 100.08) == pytest.approx(0.08)


@pytest.mark.parametrize("beyond", [False, True])
def test_timestamps_that_jump_are_passed_over_from_a_limit_on(beyond):
    clock = MediaClock()
    at(clock, 7.0, 100.0)
    jump = LARGEST_DISAGREEMENT * (1.05 if beyond else 0.95)
    expected = 0.02 if beyond else 0.02 + jump
    assert at(clock, 7.02 + jump, 100.02) == pytest.approx(expected)
    # What follows goes on from there.
    assert at(clock, 7.04 + jump, 100.04) == pytest.approx(expected + 0.02)


@pytest.mark.parametrize("held_up", [0.3, 0.5, 60.0])
def test_packets_that_were_held_up_keep_their_times(held_up):
    clock = MediaClock()
    at(clock, 7.0, 100.0)
    for number in (1, 2, 5, 6):  # two are lost
        expected = pytest.approx(0.02 * number)
        assert at(clock, 7.0 + 0.02 * number, 100.0 + held_up, number=number) == expected


def test_numbers_that_go_on_do_not_hide_a_jump_of_the_timestamps():
    clock = MediaClock()
    at(clock, 7.0, 100.0)
    assert at(clock, 7.52, 100.02, number=1) == pytest.approx(0.02)
    assert at(clock, 3.0, 100.04, number=2) == pytest.approx(0.04)


@pytest.mark.parametrize("change", ["rate", "restart"])
def test_behind_a_change_the_arrivals_count_once(change):
    clock = MediaClock()
    at(clock, 7.0, 100.0)
    rate, restarted = (48000, False) if change == "rate" else (8000, True)
    assert at(clock, 500.0, 100.05, rate=rate, restarted=restarted) == pytest.approx(0.05)
    assert at(clock, 500.02, 100.2, rate=rate) == pytest.approx(0.07)


@pytest.mark.parametrize("held", [0.1, 0.6, 3.0, 9.0])
@pytest.mark.parametrize("sound_beside", [False, True])
def test_a_key_that_is_held_stays_at_its_beginning_and_moves_nothing(held, sound_beside):
    clock = MediaClock()
    at(clock, 7.0, 100.0)
    for packet in range(round(held / 0.05)):
        now = 0.02 + 0.05 * packet
        assert at(clock, 7.02, 100.0 + now, is_event=True) == pytest.approx(0.02)
        if sound_beside:
            assert at(clock, 7.0 + now, 100.0 + now) == pytest.approx(now)
    # Sound comes by its timestamp, whatever the network did to the last packet of the key.
    assert at(clock, 7.04 + held, 100.04 + held + 0.03) == pytest.approx(0.04 + held)


def test_a_key_behind_a_pause_of_the_sender_begins_when_it_comes():
    clock = MediaClock()
    at(clock, 7.0, 100.0)
    assert at(clock, 7.02, 105.0) == pytest.approx(5.0)
    assert at(clock, 7.04, 111.0, is_event=True) == pytest.approx(11.0)
    assert at(clock, 7.04, 111.05, is_event=True) == pytest.approx(11.0)


def test_an_event_of_another_clock_is_measured_by_its_arrival():
    clock = MediaClock()
    at(clock, 7.0, 100.0)
    assert at(clock, 6.9, 100.02, rate=48000, is_event=True) == pytest.approx(0.02)
    assert at(clock, 1.0, 100.05, rate=48000, restarted=True, is_event=True) == pytest.approx(0.05)

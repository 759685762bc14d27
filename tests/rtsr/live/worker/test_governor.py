"""The governor on synthetic step times: no clock, no audio."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.errors import ArgumentError
from rtsr.live.worker.governor import Cause, Change, Governor, GovernorSettings

LEVELS = ("base", "small", "replicate", "dry")
IDLE = {"base": 3.0, "small": 0.9, "replicate": 0.15, "dry": 0.05}
SECOND = 100


class Machine:
    """A governor at work on a machine whose every step takes ``factor * idle + extra`` ms."""

    def __init__(self, governor: Governor) -> None:
        self.governor = governor
        self.hop = 0
        self.changes: list[tuple[float, Change]] = []
        self.heard: list[str] = []

    def run(self, seconds, factor=1.0, extra=0.0, ring=300, late=lambda hop: False, times=None):
        times = IDLE if times is None else times
        for _ in range(round(seconds * SECOND)):
            step = times[self.governor.level] * factor + extra
            self.heard.append(self.governor.level)
            change = self.governor.observe(step, ring, late(self.hop))
            self.hop += 1
            if change is not None:
                assert change.to_level == self.governor.level != change.from_level
                self.changes.append((self.hop / SECOND, change))
        return self

    @property
    def moves(self):
        return [(c.from_level, c.to_level, c.cause) for _, c in self.changes]


@pytest.fixture
def machine() -> Machine:
    return Machine(Governor(LEVELS))


def test_stays_where_it_is_when_nothing_happens(machine):
    machine.run(600.0)
    assert machine.changes == []
    assert machine.governor.level == "base"


def test_steps_down_at_once_when_steps_get_long(machine):
    machine.run(10.0).run(0.05, extra=6.0)
    assert machine.moves == [("base", "small", Cause.STEP_TIME)]
    # The third long step in a window of 200 puts the percentile above.
    assert machine.changes[0][0] == pytest.approx(10.03)
    assert machine.changes[0][1].p99_ms == pytest.approx(9.0)


def test_goes_down_to_dry_within_half_a_second_when_nothing_can_keep_up(machine):
    machine.run(0.5, extra=30.0)
    assert [to for _, to, _ in machine.moves] == ["small", "replicate", "dry"]
    machine.run(60.0, extra=30.0, late=lambda hop: True, ring=-500)
    assert machine.governor.level == "dry"
    assert len(machine.changes) == 3


def test_one_long_step_in_a_hundred_is_allowed_but_three_in_two_hundred_are_not(machine):
    for hop in range(4000):
        assert machine.governor.observe(9.9 if hop % 100 == 50 else 2.0, None, False) is None
    machine.run(2.0)
    for hop in range(121):
        change = machine.governor.observe(9.9 if hop % 60 == 0 else 2.0, None, False)
        assert (change is not None) == (hop == 120)


def test_threshold_is_the_share_of_the_budget():
    slow = Governor(LEVELS, budget_ms=10.0)
    assert all(slow.observe(7.9, None, False) is None for _ in range(1000))
    double = Governor(LEVELS, budget_ms=20.0)
    assert all(double.observe(15.9, None, False) is None for _ in range(1000))
    assert any(double.observe(16.1, None, False) for _ in range(10))


def test_low_ring_steps_down_but_a_single_low_hop_does_not(machine):
    machine.run(5.0)
    for _ in range(20):
        machine.run(0.01, ring=10).run(1.5)
    assert machine.changes == []
    machine.run(0.03, ring=10)
    assert machine.moves == [("base", "small", Cause.RING_LOW)]


def test_unknown_ring_is_no_low_ring(machine):
    assert machine.run(30.0, ring=None).changes == []


def test_late_twice_steps_down_once_does_not(machine):
    machine.run(20.0, late=lambda hop: hop == 500)
    assert machine.changes == []
    machine.run(5.0, late=lambda hop: hop in (2100, 2300))
    assert machine.moves == [("base", "small", Cause.LATE)]
    assert machine.changes[0][0] == pytest.approx(23.01)


def test_late_for_long_steps_down(machine):
    machine.run(5.0).run(0.06, late=lambda hop: True)
    assert machine.moves == [("base", "small", Cause.LATE)]


def test_second_long_step_that_is_late_counts_at_once(machine):
    machine.run(5.0)
    machine.run(0.01, extra=8.0)
    machine.run(0.01, extra=8.0, late=lambda hop: True)
    assert machine.moves == [("base", "small", Cause.LATE)]


def test_pause_of_the_whole_process_changes_nothing(machine):
    # Stopped for 300 ms: one endless step, late, then on from the newest hop.
    machine.run(10.0)
    assert machine.governor.observe(300.0, -14000, True) is None
    machine.run(10.0)
    assert machine.changes == []


def test_comes_back_five_calm_seconds_after_a_burst(machine):
    machine.run(10.0).run(0.2, extra=7.0)
    left = machine.changes[0][0]
    machine.run(10.0)
    assert machine.moves[1:] == [("small", "base", Cause.CALM)]
    assert 5.0 <= machine.changes[1][0] - left <= 6.0
    machine.run(60.0)
    assert len(machine.changes) == 2


def test_trouble_starts_the_calm_stretch_anew(machine):
    machine.run(10.0).run(0.2, extra=7.0)
    for _ in range(5):
        machine.run(3.0).run(0.01, ring=0)
    assert machine.governor.level == "small"
    machine.run(5.1)
    assert machine.governor.level == "base"


def test_failing_trials_come_ever_less_often_up_to_once_a_minute(machine):
    loaded = {**IDLE, "base": 9.0}
    machine.run(10.0).run(400.0, times=loaded)
    trials = [at for at, change in machine.changes if change.cause is Cause.CALM]
    waits = np.diff([machine.changes[0][0], *trials])
    assert waits[:5] == pytest.approx([5.0, 10.0, 20.0, 40.0, 60.0], abs=1.5)
    assert waits[4:] == pytest.approx(60.0, abs=1.5)
    # What is heard of the failing level is short.
    assert machine.heard[1100:].count("base") < 0.01 * len(machine.heard[1100:])


def test_successful_trial_forgives_the_failed_ones(machine):
    loaded = {**IDLE, "base": 9.0}
    machine.run(10.0).run(40.0, times=loaded)
    assert machine.governor.calm_needed_s > 10.0
    machine.run(120.0)
    assert machine.governor.level == "base"
    assert machine.governor.calm_needed_s == 5.0


def test_level_that_never_kept_up_is_not_tried_before_its_measurement_is_old():
    slow = {"base": 7.0, "small": 1.5, "replicate": 0.2, "dry": 0.1}
    machine = Machine(Governor(LEVELS)).run(10.0, times=slow)
    assert machine.governor.level == "base"
    machine.run(0.1, extra=2.0, times=slow)
    # 7 ms are within the 80 % at which it is left, and above the 50 % at which it is entered.
    machine.run(55.0, times=slow)
    assert machine.governor.level == "small"
    machine.run(8.0, times=slow)
    assert machine.moves[-1] == ("small", "base", Cause.CALM)


def test_disturbance_of_the_present_level_counts_against_the_better_one(machine):
    machine.run(10.0).run(0.2, extra=7.0).run(3.0)
    # 0.9 ms became 4 ms: base would be at 6.
    machine.run(30.0, extra=3.1)
    assert machine.governor.level == "small"
    machine.run(10.0)
    assert machine.governor.level == "base"


def test_climbs_level_by_level(machine):
    machine.run(10.0).run(0.5, extra=30.0).run(30.0)
    ups = [(at, move) for at, move in machine.changes if move.cause is Cause.CALM]
    assert [move.to_level for _, move in ups] == ["replicate", "small", "base"]
    assert all(wait >= 5.0 for wait in np.diff([at for at, _ in ups]))


def test_judges_nothing_while_a_move_down_is_being_made(machine):
    machine.run(10.0).run(0.03, extra=6.0)
    machine.run(0.05, extra=20.0, late=lambda hop: True)
    assert len(machine.changes) == 1
    machine.run(0.03, extra=20.0)
    assert len(machine.changes) == 2


def test_steps_with_two_levels_at_work_are_not_held_against_the_better_one(machine):
    machine.run(10.0).run(0.03, extra=6.0).run(5.1)
    assert machine.moves[-1] == ("small", "base", Cause.CALM)
    machine.run(0.15, extra=6.0)
    machine.run(10.0)
    assert machine.governor.level == "base"


def test_hops_that_come_late_meanwhile_are(machine):
    machine.run(10.0).run(0.03, extra=6.0).run(5.1)
    machine.run(0.06, late=lambda hop: True)
    assert machine.moves[-1] == ("base", "small", Cause.LATE)


def test_wanted_level_is_taken_with_the_next_hop_and_never_exceeded(machine):
    machine.run(3.0)
    machine.governor.wanted = "replicate"
    machine.run(60.0)
    assert machine.moves == [("base", "replicate", Cause.WANTED)]
    machine.governor.wanted = "small"
    machine.run(60.0)
    assert machine.moves[1:] == [("replicate", "small", Cause.WANTED)]
    machine.run(0.2, extra=9.0).run(20.0)
    assert machine.governor.level == "small"


def test_wish_that_is_lowered_is_no_reason_to_go_up(machine):
    machine.run(5.0).run(0.5, extra=30.0)
    machine.governor.wanted = "small"
    machine.run(1.0)
    assert machine.governor.level == "dry"
    machine.run(20.0)
    assert machine.governor.level == "small"


def test_wanting_the_same_again_is_no_wish(machine):
    machine.run(5.0).run(0.1, extra=9.0)
    for _ in range(100):
        machine.governor.wanted = "base"
        machine.run(0.01)
    assert machine.governor.level == "small"


def test_starts_at_the_wanted_level():
    governor = Governor(LEVELS, wanted="replicate")
    assert governor.level == governor.wanted == "replicate"
    assert governor.observe(0.1, None, False) is None


def test_fixed_one_moves_only_on_request():
    machine = Machine(Governor(LEVELS, settings=GovernorSettings(fixed=True)))
    machine.run(10.0, extra=50.0, ring=-9, late=lambda hop: True)
    assert machine.changes == []
    machine.governor.wanted = "dry"
    machine.run(1.0)
    assert machine.moves == [("base", "dry", Cause.WANTED)]


def test_single_level_has_nowhere_to_go():
    machine = Machine(Governor(("dry",))).run(10.0, extra=50.0, late=lambda hop: True)
    assert machine.changes == []


def test_p99_is_the_percentile_of_the_window(machine):
    times = np.random.default_rng(1).gamma(2.0, 0.5, 205)
    for step in times:
        machine.governor.observe(float(step), None, False)
    # The first hops are not judged.
    assert machine.governor.p99_ms == np.sort(times[5:])[-3]


@pytest.mark.parametrize("levels", [(), ("small", "small")])
def test_unfit_levels_is_refused(levels):
    with pytest.raises(ArgumentError, match="each once, best first"):
        Governor(levels)


def test_unknown_level_is_refused(machine):
    with pytest.raises(ArgumentError, match="no fallback level 'large'; there are base, small"):
        machine.governor.wanted = "large"
    with pytest.raises(ArgumentError, match="no fallback level 'large'"):
        Governor(LEVELS, wanted="large")


def test_causes_read_as_words():
    assert [str(cause) for cause in Cause] == ["wanted", "step time", "ring low", "late", "calm"]

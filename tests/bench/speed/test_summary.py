"""Figures of known sequences, and the rules that say whether a run was steady."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_bench.speed import steady, summary


def test_figures_of_a_ramp() -> None:
    figures = summary.step_figures(np.arange(1.0, 1002.0), period_ms=900.0)
    assert figures["p50_ms"] == pytest.approx(501.0)
    assert figures["p95_ms"] == pytest.approx(951.0)
    assert figures["p99_ms"] == pytest.approx(991.0)
    assert figures["p99_9_ms"] == pytest.approx(1000.0)
    assert figures["max_ms"] == 1001.0
    assert figures["mean_ms"] == pytest.approx(501.0)
    assert figures["jitter_ms"] == pytest.approx(1.0)
    assert figures["missed_deadlines"] == 101
    assert figures["real_time_factor"] == pytest.approx(900.0 / 501.0)
    assert figures["steps"] == 1001


def test_a_single_step_has_no_jitter() -> None:
    assert summary.step_figures(np.array([2.0]), 10.0)["jitter_ms"] == 0.0


def test_jitter_does_not_cross_repetitions() -> None:
    runs = [np.array([1.0, 1.0, 1.0]), np.array([9.0, 9.0, 9.0])]
    pooled = summary.pooled_figures(runs, 10.0)
    assert pooled["jitter_ms"] == 0.0
    assert pooled["p50_ms"] == 5.0
    assert pooled["steps"] == 6


def test_a_step_as_long_as_the_period_is_in_time() -> None:
    assert summary.step_figures(np.array([10.0, 10.01]), 10.0)["missed_deadlines"] == 1


def test_quantiles_rise_from_the_shortest_to_the_longest() -> None:
    found = summary.quantiles(np.random.default_rng(0).gamma(2.0, size=500))
    assert len(found) == len(summary.LEVELS)
    assert found == sorted(found)


def test_median_of_what_is_known() -> None:
    assert summary.median_of([3.0, None, 1.0]) == 2.0
    assert summary.median_of([None, None]) is None


class Clock:
    """Times that fall towards 1 ms, as those of a machine that warms up."""

    def __init__(self, fall: float) -> None:
        self.fall = fall
        self.steps = 0

    def __call__(self) -> float:
        self.steps += 1
        return 1.0 + 4.0 * self.fall**self.steps


def test_warm_up_ends_when_the_times_agree() -> None:
    times, settled = steady.warm_up(Clock(0.9), seconds=10.0, most_steps=10_000)
    assert settled
    assert 3 * steady.WINDOW <= len(times) < 300
    assert steady.settled(times)


def test_warm_up_gives_up() -> None:
    slower_and_slower = iter(np.geomspace(1.0, 1e6, 5000))
    times, settled = steady.warm_up(lambda: next(slower_and_slower), 1.0, 10_000)
    assert not settled
    assert len(times) < 5000
    times, settled = steady.warm_up(Clock(0.99), 1e6, 64)
    assert (len(times), settled) == (64, False)


@pytest.mark.parametrize(("steps", "settled"), [(24, True), (23, False)])
def test_slow_steps_are_settled_when_fewer_of_them_agree(steps: int, settled: bool) -> None:
    def takes_20_ms() -> float:
        return 20.0

    times, found = steady.warm_up(takes_20_ms, 0.02 * steps - 0.01, 10_000)
    assert (len(times), found) == (steps, settled)


def test_a_run_that_slows_down_is_not_steady() -> None:
    assert steady.is_steady(np.full(300, 2.0))
    slowing = np.linspace(1.0, 1.2, 300)
    assert steady.drift(slowing) == pytest.approx(0.129, abs=2e-3)
    assert not steady.is_steady(slowing)
    assert steady.drift(np.array([1.0])) == 0.0

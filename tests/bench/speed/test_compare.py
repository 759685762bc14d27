"""What counts as a change, on results written by hand."""

from __future__ import annotations

import copy
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from rtsr_bench.speed import document
from rtsr_bench.speed.compare import (
    BETTER,
    SAME,
    UNKNOWN,
    WORSE,
    Change,
    chance_of_separation,
    compare,
)
from rtsr_bench.speed.report import comparison_parts


def results(**figures: Any) -> dict[str, Any]:
    """One case, one figure per keyword with its value in every repetition."""
    count = max(len(values) for values in figures.values())
    repetitions = [
        {name: values[index] for name, values in figures.items()} for index in range(count)
    ]
    return {
        "cases": [{"label": "small", "repetitions": repetitions}],
        "searches": [],
        "machine": {"cpu": {"model": "one"}, "load_average": 0.1},
        "software": {"revision": "a"},
        "protocol": {"repetitions": count},
    }


def verdict_on(before: list[float], after: list[float], figure: str = "p50_ms") -> Change:
    (change,) = compare(results(**{figure: before}), results(**{figure: after})).changes
    return change


STEADY = [1.0, 1.01, 1.02, 1.01, 1.0]


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ([1.3, 1.31, 1.3, 1.29, 1.3], WORSE),
        ([0.7, 0.71, 0.7, 0.69, 0.7], BETTER),
        (STEADY, SAME),
        # beyond the spread, but they overlap
        ([1.3, 1.3, 1.3, 1.3, 1.01], SAME),
        # no overlap, but the medians are nearer than the spread of the second
        ([1.03, 1.04, 1.05, 1.3, 1.4], SAME),
        # no overlap and hardly any spread, but within two per cent
        ([1.021, 1.021, 1.021, 1.021, 1.021], SAME),
    ],
    ids=["slower", "faster", "same", "overlap", "wide", "tiny"],
)
def test_verdict(after: list[float], verdict: str) -> None:
    assert verdict_on(STEADY, after).verdict == verdict


def test_facts_of_a_change() -> None:
    change = verdict_on(STEADY, [1.5] * 5)
    assert (change.before, change.after) == (1.01, 1.5)
    assert change.noise == pytest.approx(0.0202)
    assert change.percent == pytest.approx(48.5, abs=0.1)


def test_one_repetition_proves_nothing() -> None:
    change = verdict_on([1.0], [9.0])
    assert (change.verdict, change.noise) == (UNKNOWN, None)


def test_results_with_themselves_have_no_change() -> None:
    missed = {"missed_deadlines": [0] * 5, "missed_by_the_clock": [None] * 5}
    one = results(p50_ms=STEADY, rss_mb=[100.0] * 5, **missed, steps=[10] * 5)
    found = compare(one, copy.deepcopy(one))
    assert {change.figure for change in found.changes} == {"p50_ms", "rss_mb", "missed_percent"}
    assert found.beyond_noise() == []
    assert found.circumstances == []


def test_missed_deadlines_count_by_step() -> None:
    back_to_back = {"missed_by_the_clock": [None] * 3}
    before = results(missed_deadlines=[1, 1, 1], steps=[100, 100, 100], **back_to_back)
    after = results(missed_deadlines=[2, 2, 2], steps=[200, 200, 200], **back_to_back)
    (change,) = compare(before, after).changes
    assert (change.before, change.after, change.verdict) == (1.0, 1.0, SAME)


def test_paced_steps_are_missed_by_the_clock() -> None:
    steps = {"missed_deadlines": [1] * 3, "steps": [100] * 3}
    before = results(**steps, missed_by_the_clock=[2] * 3)
    after = results(**steps, missed_by_the_clock=[20] * 3)
    (change,) = compare(before, after).changes
    assert (change.before, change.after, change.verdict) == (2.0, 20.0, WORSE)


def test_unknown_values_are_left_out() -> None:
    assert compare(results(device_mb=[None, None]), results(device_mb=[1.0, 1.0])).changes == []


def test_cells_of_one_side_and_circumstances_are_named() -> None:
    before, after = results(p50_ms=STEADY), results(p50_ms=STEADY)
    after["cases"][0]["label"] = "base"
    after["machine"] = {"cpu": {"model": "other"}, "load_average": 3.0}
    found = compare(before, after)
    assert (found.only_before, found.only_after) == (["small"], ["base"])
    assert found.circumstances == [("machine.cpu.model", "one", "other")]


def test_chance_of_separation() -> None:
    assert chance_of_separation(5, 5) == pytest.approx(2 / 252)
    assert chance_of_separation(2, 2) == pytest.approx(1 / 3)
    assert chance_of_separation(1, 1) == 1.0


def found(
    streams: int, fails_at: int | None, finished: bool = True, limit_ms: float = 8.0
) -> dict[str, Any]:
    search = {"label": "small", "streams": streams, "fails_at": fails_at, "finished": finished,
              "limit_ms": limit_ms}  # fmt: skip
    return {**results(p50_ms=STEADY), "cases": [], "searches": [search]}


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (found(10, 11), found(12, 13), BETTER),
        (found(12, 13), found(10, 11), WORSE),
        (found(100, 104), found(102, 105), SAME),
        (found(64, None), found(70, 72), SAME),
        (found(64, None), found(30, 32), WORSE),
        (found(10, 16, False), found(12, 13), UNKNOWN),
        (found(10, 16, False), found(20, 21), BETTER),
        (found(10, 11), found(20, 21, limit_ms=10.0), UNKNOWN),
    ],
)
def test_streams_changed_if_one_side_passed_where_the_other_failed(
    before: dict[str, Any], after: dict[str, Any], verdict: str
) -> None:
    (change,) = compare(before, after).changes
    assert change.verdict == verdict


def test_it_is_told_on_the_screen() -> None:
    before = results(p50_ms=[1.0, 1.0], rss_mb=[50.0, 50.0])
    after = results(p50_ms=[2.0, 2.0], rss_mb=[50.0, 50.0])
    after["software"] = {"revision": "b"}
    console = Console(width=100, record=True, file=StringIO())
    document.show(comparison_parts(compare(before, after)), console)
    text = console.export_text()
    assert "1 figure changed (0 better, 1 worse), 1 stayed within the noise." in text
    assert "worse" in text
    assert "33 %" in text
    assert "software.revision: a -> b" in text

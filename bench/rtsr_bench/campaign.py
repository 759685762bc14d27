"""From a plan to results: rounds over all cells, then the searches for the number of streams.

Repetitions of a cell do not follow each other: each round takes every cell once, so that a machine
that slows down for a minute shows as spread in all cells and not as a slow cell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from rtsr_bench import machine, steady, summary
from rtsr_bench.fresh_process import (
    LONGEST_SECONDS,
    GivenUpError,
    RepetitionError,
    run_repetition,
)
from rtsr_bench.matrix import FOREIGN, MODEL, Cell, counted
from rtsr_bench.measure import Protocol
from rtsr_bench.results import FORMAT, KIND
from rtsr_bench.streams import (
    EXACT_UP_TO,
    SHARE_OF_PERIOD,
    OutOfTimeError,
    Trial,
    find_most_streams,
)

QUICK_SECONDS = 90.0
_SHARE_OF_ROUNDS = 0.6
# Times the longest repetition so far: what the next one may need before it has to be started.
_MARGIN = 1.3
_CONFIRMATION = 5

Runner = Callable[[Cell, Protocol, float], dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        cells: the matrix.
        searches: cells whose number of streams is searched.
        repetitions: fresh processes per cell.
        protocol: of each.
        most_streams: that a search tries.
        exact_up_to: streams up to which a search is exact.
        budget_seconds: when everything is over, what still runs is given up; ``None`` for as long
            as it takes.
        began: ``time.monotonic()`` from which the budget counts; ``None``: when the plan is carried
            out.
        command: how it was asked for.
    """

    cells: Sequence[Cell]
    searches: Sequence[Cell] = ()
    repetitions: int = 5
    protocol: Protocol = field(default_factory=Protocol)
    most_streams: int = 8192
    exact_up_to: int = EXACT_UP_TO
    budget_seconds: float | None = None
    began: float | None = None
    command: str = "rtsr bench"


class Clock:
    """How much of the budget is left."""

    def __init__(self, budget_seconds: float | None, began: float | None = None) -> None:
        self._started = time.monotonic() if began is None else began
        self._budget = budget_seconds
        self._longest = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def left(self, share: float = 1.0) -> float:
        """Seconds until a share of the budget is used up."""
        if self._budget is None:
            return LONGEST_SECONDS
        return max(share * self._budget - self.elapsed, 0.0)

    def has_room(self, share: float = 1.0) -> bool:
        """Whether another repetition like the longest so far fits."""
        return self._budget is None or self.left(share) > _MARGIN * self._longest

    def took(self, seconds: float) -> None:
        """Note how long a repetition took."""
        self._longest = max(self._longest, seconds)


def run_campaign(
    plan: Plan,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
    runner: Runner = run_repetition,
) -> dict[str, Any]:
    """Measure; what fails is recorded in its cell and does not stop the rest.

    Args:
        plan: what to do.
        show: called with what is about to be done, and how much of how much has been.
        runner: takes one repetition.
    """
    clock = Clock(plan.budget_seconds, plan.began)
    before = machine.describe_machine()
    taken = _take_rounds(plan, clock, show, runner)
    cells = [_cell_results(cell, *taken[cell], plan.repetitions) for cell in plan.cells]
    searches = _take_searches(plan, clock, show, runner)
    return {
        "kind": KIND,
        "format": FORMAT,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": plan.command,
        "machine": before,
        "load_average_after": machine.load_average(),
        "software": machine.describe_software(),
        "protocol": {
            "repetitions": plan.repetitions,
            "seconds": plan.protocol.seconds,
            "warm_up_seconds": plan.protocol.warm_up_seconds,
            "paced": plan.protocol.paced,
            "exact_up_to": plan.exact_up_to,
            "budget_seconds": plan.budget_seconds,
        },
        "seconds": round(clock.elapsed, 1),
        "cells": cells,
        "searches": searches,
    }


def _take_rounds(
    plan: Plan, clock: Clock, show: Callable[[str, int, int], None], runner: Runner
) -> dict[Cell, tuple[list[dict[str, Any]], str | None]]:
    taken: dict[Cell, list[dict[str, Any]]] = {cell: [] for cell in plan.cells}
    errors: dict[Cell, str] = {}
    total = plan.repetitions * len(plan.cells)
    for turn in range(plan.repetitions):
        # The first round is worth more than the searches, the others are not.
        share = _SHARE_OF_ROUNDS if turn and plan.searches else 1.0
        for index, cell in enumerate(plan.cells):
            if cell in errors or not clock.has_room(share):
                continue
            show(cell.label, turn * len(plan.cells) + index, total)
            started = clock.elapsed
            try:
                taken[cell].append(runner(cell, plan.protocol, clock.left()))
            except RepetitionError as error:
                errors[cell] = str(error)
            clock.took(clock.elapsed - started)
    show("", total, total)
    return {cell: (taken[cell], errors.get(cell)) for cell in plan.cells}


def _cell_results(
    cell: Cell, answers: list[dict[str, Any]], error: str | None, wanted: int
) -> dict[str, Any]:
    entry: dict[str, Any] = {"label": cell.label, **cell.identity(), "error": error}
    entry["repetitions"] = [_repetition(answer, cell.period_ms) for answer in answers]
    if not answers:
        entry["error"] = error or "There was no time left for it."
        return entry
    if error is None and len(answers) < wanted:
        entry["error"] = (
            f"Cut short: there was time for {len(answers)} of {counted(wanted, 'repetition')}."
        )
    runs = [np.array(answer["times_ms"]) for answer in answers]
    figures: dict[str, Any] = {**summary.pooled_figures(runs, cell.period_ms)}
    for name in _MEDIANS:
        figures[name] = summary.median_of(answer[name] for answer in answers)
    figures["missed_by_the_clock"] = (
        sum(answer["missed_by_the_clock"] for answer in answers)
        if all(answer["missed_by_the_clock"] is not None for answer in answers)
        else None
    )
    everything = np.concatenate(runs)
    entry["figures"] = figures
    entry["steady"] = all(repetition["steady"] for repetition in entry["repetitions"])
    entry["quantiles_ms"] = summary.quantiles(everything)
    entry["histogram"] = summary.histogram(everything)
    return entry


_MEDIANS = (
    *("cold_start_ms", "launch_ms", "load_ms", "first_step_ms"),
    *("rss_mb", "rss_added_mb", "device_mb", "cpu_power_w", "gpu_power_w"),
)


def _repetition(answer: dict[str, Any], period_ms: float) -> dict[str, Any]:
    times = np.array(answer["times_ms"])
    kept = {name: answer[name] for name in _MEDIANS}
    return {
        **kept,
        **summary.step_figures(times, period_ms),
        "missed_by_the_clock": answer["missed_by_the_clock"],
        "warm_up_steps": answer["warm_up_steps"],
        "warm_up_settled": answer["warm_up_settled"],
        "warm_up_timeline_ms": answer["warm_up_timeline_ms"],
        "timeline_ms": steady.timeline(times),
        "drift": steady.drift(times),
        "steady": bool(answer["warm_up_settled"]) and steady.is_steady(times),
    }


def _take_searches(
    plan: Plan, clock: Clock, show: Callable[[str, int, int], None], runner: Runner
) -> list[dict[str, Any]]:
    entries = []
    for index, cell in enumerate(plan.searches):
        # Each search may use an equal part of what is left.
        share = 1.0
        if plan.budget_seconds is not None:
            left = clock.left() / (len(plan.searches) - index)
            share = (clock.elapsed + left) / plan.budget_seconds
        show(f"streams of {cell.label}", index, len(plan.searches))
        entries.append(_search(cell, plan, clock, share, show, runner))
    return entries


def _search(
    cell: Cell,
    plan: Plan,
    clock: Clock,
    share: float,
    show: Callable[[str, int, int], None],
    runner: Runner,
) -> dict[str, Any]:
    limit_ms = SHARE_OF_PERIOD * cell.period_ms

    def attempt(streams: int, long: bool) -> Trial:
        if not clock.has_room(share):
            raise OutOfTimeError
        show(
            f"{counted(streams, 'stream')} of {cell.name} {cell.precision} on {cell.provider}", 0, 0
        )
        steps = trial_steps(plan.protocol.seconds) * (_CONFIRMATION if long else 1)
        protocol = Protocol(
            seconds=steps * cell.period_ms / 1000.0,
            warm_up_seconds=plan.protocol.warm_up_seconds,
            paced=plan.protocol.paced,
            limit_ms=limit_ms,
            most_steps=steps,
        )
        started = clock.elapsed
        try:
            answer = runner(cell.with_streams(streams), protocol, clock.left())
        except GivenUpError as error:
            if plan.budget_seconds is not None:
                raise OutOfTimeError from None
            return Trial(streams, None, False, str(error))
        except RepetitionError as error:
            return Trial(streams, None, False, str(error))
        clock.took(clock.elapsed - started)
        p99_9 = float(np.percentile(answer["times_ms"], 99.9))
        return Trial(streams, p99_9, p99_9 < limit_ms)

    search = find_most_streams(attempt, limit_ms, plan.most_streams, plan.exact_up_to)
    identity = {name: value for name, value in cell.identity().items() if name != "streams"}
    return {"label": search_label(cell), **identity, **search.as_json()}


def search_label(cell: Cell) -> str:
    """A search is compared by everything but the number of streams."""
    threads = counted(cell.threads, "thread")
    return f"{cell.name} {cell.precision} on {cell.provider}, {cell.period_ms:g} ms, {threads}"


def trial_steps(seconds: float) -> int:
    """Steps of one trial: p99.9 of so few is nearly the slowest, so a trial is a strict one."""
    return int(np.clip(200 * seconds, 20, 400))


def can_search(cell: Cell) -> bool:
    """Whether its number of streams can be chosen freely."""
    if cell.kind == FOREIGN:
        return any(-1 in shape for shape in cell.source["declaration"]["inputs"].values())
    return cell.kind == MODEL

"""From a plan to results: rounds over all cases, then the searches for the number of streams.

Repetitions of a case do not follow each other: each round takes every case once, so that a machine
that slows down for a minute shows as spread in all cases and not as a slow case.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from rtsr.errors import RtsrError
from rtsr.runtime.models import find_model
from rtsr_bench import machine
from rtsr_bench.speed import steady, summary
from rtsr_bench.speed.fresh_process import (
    LONGEST_SECONDS,
    GivenUpError,
    RepetitionError,
    run_repetition,
)
from rtsr_bench.speed.matrix import EXTERNAL, MODEL, REFERENCES, Case, counted
from rtsr_bench.speed.measure import Protocol
from rtsr_bench.speed.results import FORMAT, KIND
from rtsr_bench.speed.stream_search import (
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

Runner = Callable[[Case, Protocol, float], dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        cases: the matrix.
        searches: cases whose number of streams is searched.
        repetitions: fresh processes per case.
        protocol: of each.
        most_streams: that a search tries.
        exact_up_to: streams up to which a search is exact.
        budget_seconds: when everything is over, what still runs is given up; ``None`` for as long
            as it takes.
        began: ``time.monotonic()`` from which the budget counts; ``None``: when the plan is carried
            out.
        command: how it was asked for.
    """

    cases: Sequence[Case]
    searches: Sequence[Case] = ()
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


def run_plan(
    plan: Plan,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
    runner: Runner = run_repetition,
) -> dict[str, Any]:
    """Measure; what fails is recorded in its case and does not stop the rest.

    Args:
        plan: what to do.
        show: called with what is about to be done, and how much of how much has been.
        runner: takes one repetition.
    """
    clock = Clock(plan.budget_seconds, plan.began)
    before = machine.describe_machine()
    taken = _take_rounds(plan, clock, show, runner)
    cases = [_case_results(case, *taken[case], plan.repetitions) for case in plan.cases]
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
        "quality": _card_metrics(plan.cases),
        "seconds": round(clock.elapsed, 1),
        "cases": cases,
        "searches": searches,
    }


def _card_metrics(cases: Sequence[Case]) -> dict[str, Any]:
    """Collect what the models' cards say of their quality, by name and precision."""
    found = {}
    for case in cases:
        if case.kind == MODEL and case.source.get("file"):
            # A file that cannot be read says so in its case.
            with contextlib.suppress(RtsrError):
                metrics = find_model(Path(case.source["file"])).metadata.card.get("metrics")
                if isinstance(metrics, dict):
                    found[f"{case.name} {case.precision}"] = metrics
    return found


def _take_rounds(
    plan: Plan, clock: Clock, show: Callable[[str, int, int], None], runner: Runner
) -> dict[Case, tuple[list[dict[str, Any]], str | None]]:
    taken: dict[Case, list[dict[str, Any]]] = {case: [] for case in plan.cases}
    errors: dict[Case, str] = {}
    total = plan.repetitions * len(plan.cases)
    for turn in range(plan.repetitions):
        # The first round is worth more than the searches, the others are not.
        share = _SHARE_OF_ROUNDS if turn and plan.searches else 1.0
        for index, case in enumerate(plan.cases):
            if case in errors or not clock.has_room(share):
                continue
            show(case.label, turn * len(plan.cases) + index, total)
            started = clock.elapsed
            try:
                taken[case].append(runner(case, plan.protocol, clock.left()))
            except RepetitionError as error:
                errors[case] = str(error)
            clock.took(clock.elapsed - started)
    show("", total, total)
    return {case: (taken[case], errors.get(case)) for case in plan.cases}


def _case_results(
    case: Case, answers: list[dict[str, Any]], error: str | None, wanted: int
) -> dict[str, Any]:
    entry: dict[str, Any] = {"label": case.label, **case.identity(), "error": error}
    entry["repetitions"] = [_repetition(answer, case.period_ms) for answer in answers]
    if not answers:
        entry["error"] = error or "There was no time left for it."
        return entry
    if error is None and len(answers) < wanted:
        entry["error"] = (
            f"Cut short: there was time for {len(answers)} of {counted(wanted, 'repetition')}."
        )
    runs = [np.array(answer["times_ms"]) for answer in answers]
    figures: dict[str, Any] = {**summary.pooled_figures(runs, case.period_ms)}
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
    for index, case in enumerate(plan.searches):
        # Each search may use an equal part of what is left.
        share = 1.0
        if plan.budget_seconds is not None:
            left = clock.left() / (len(plan.searches) - index)
            share = (clock.elapsed + left) / plan.budget_seconds
        show(f"streams of {case.label}", index, len(plan.searches))
        entries.append(_search(case, plan, clock, share, show, runner))
    return entries


def _search(
    case: Case,
    plan: Plan,
    clock: Clock,
    share: float,
    show: Callable[[str, int, int], None],
    runner: Runner,
) -> dict[str, Any]:
    limit_ms = SHARE_OF_PERIOD * case.period_ms

    def attempt(streams: int, long: bool) -> Trial:
        if not clock.has_room(share):
            raise OutOfTimeError
        show(
            f"{counted(streams, 'stream')} of {case.name} {case.precision} on {case.provider}", 0, 0
        )
        steps = trial_steps(plan.protocol.seconds) * (_CONFIRMATION if long else 1)
        protocol = Protocol(
            seconds=steps * case.period_ms / 1000.0,
            warm_up_seconds=plan.protocol.warm_up_seconds,
            paced=plan.protocol.paced,
            limit_ms=limit_ms,
            most_steps=steps,
        )
        started = clock.elapsed
        try:
            answer = runner(case.with_streams(streams), protocol, clock.left())
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
    identity = {name: value for name, value in case.identity().items() if name != "streams"}
    return {"label": search_label(case), **identity, **search.as_json()}


def search_label(case: Case) -> str:
    """Return what a search is compared by: everything but the number of streams."""
    threads = counted(case.threads, "thread")
    return f"{case.name} {case.precision} on {case.provider}, {case.period_ms:g} ms, {threads}"


def trial_steps(seconds: float) -> int:
    """Return steps of one trial: p99.9 of so few is nearly the slowest, so it is strict."""
    return int(np.clip(200 * seconds, 20, 400))


def can_search(case: Case) -> bool:
    """Whether its number of streams can be chosen freely."""
    if case.kind == EXTERNAL:
        return any(-1 in shape for shape in case.source["declaration"]["inputs"].values())
    return case.kind == MODEL


def run_on_terminal(plan: Plan) -> dict[str, Any]:
    """Carry out a plan with a progress bar on stderr.

    Raises:
        RtsrError: nothing that was asked for could be measured.
    """
    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(plan.cases) * plan.repetitions)

        def show(what: str, done: int, total: int) -> None:
            if total:
                bar.update(task, completed=done, total=total, description=what)
            else:
                bar.update(task, description=what)

        results = run_plan(plan, show)
    asked_for = [case for case in results["cases"] if case["kind"] not in REFERENCES]
    if asked_for and not any(case["repetitions"] for case in asked_for):
        raise RtsrError(asked_for[0]["error"])
    return results

"""From a plan to results: item after item, within a budget where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from rtsr.errors import RtsrError
from rtsr.runtime.models import find_model
from rtsr_bench import machine
from rtsr_bench.progress import Show, shown_progress
from rtsr_bench.speed.case_results import case_results, with_error
from rtsr_bench.speed.clock import Clock
from rtsr_bench.speed.matrix import EXTERNAL, MODEL, REFERENCES, TF32, Case, counted
from rtsr_bench.speed.measure import Protocol
from rtsr_bench.speed.order import PARITY, SEARCH, STEPS, Item
from rtsr_bench.speed.results import FORMAT, KIND, LEFT_OUT
from rtsr_bench.speed.stream_search import (
    EXACT_UP_TO,
    SHARE_OF_PERIOD,
    OutOfTimeError,
    Trial,
    find_most_streams,
)
from rtsr_bench.speed.workers import GivenUpError, RepetitionError, Workers

QUICK_SECONDS = 90.0
_SHARE_OF_ROUNDS = 0.6
_CONFIRMATION = 5
#: What takes so many periods is not tried with more streams.
_HOPELESS_PERIODS = 2.0

Keep = Callable[[dict[str, Any]], None]
Runner = Callable[[Case, Protocol, float], dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        items: what is measured, in this order; a case of several items has as many repetitions.
        protocol: of each.
        most_streams: that a search tries.
        exact_up_to: streams up to which a search is exact.
        share_of_period: that p99.9 has to stay below in a search.
        budget_seconds: when everything is over, what still runs is given up; ``None`` for as long
            as it takes.
        began: ``time.monotonic()`` from which the budget counts; ``None``: when the plan is carried
            out.
        may_be_cut_short: whether the budget may end before the items do: then one process measures
            all of them, and a case that fewer streams have shown to be far too slow is left out.
        command: how it was asked for.
    """

    items: Sequence[Item]
    protocol: Protocol = field(default_factory=Protocol)
    most_streams: int = 8192
    exact_up_to: int = EXACT_UP_TO
    share_of_period: float = SHARE_OF_PERIOD
    budget_seconds: float | None = None
    began: float | None = None
    may_be_cut_short: bool = False
    command: str = "rtsr bench"

    def cases(self, kind: str) -> list[Case]:
        """Each case of one kind of item, once."""
        return list(dict.fromkeys(item.case for item in self.items if item.kind == kind))


def run_plan(
    plan: Plan,
    show: Show = lambda what, done, total: None,
    runner: Runner | None = None,
    keep: Keep = lambda results: None,
) -> dict[str, Any]:
    """Measure; what fails is recorded in its case and does not stop the rest.

    Args:
        plan: what to do.
        show: called with what is about to be done, and how much of how much has been.
        runner: takes one repetition; processes do if it is ``None``.
        keep: called with the results so far, after each item of a plan that may be cut short, and
            where Ctrl-C ends any.

    Returns:
        the results, as :func:`~rtsr_bench.speed.results.read_results` reads them.
    """
    with Workers(kept=plan.may_be_cut_short) as workers:
        run = _Run(plan, show, runner or workers.measure, workers)
        try:
            for place in range(len(plan.items)):
                run.take(place)
                if plan.may_be_cut_short:
                    # Whoever ends the run now leaves results that do not claim to be all.
                    keep(run.results(is_all=place == len(plan.items) - 1))
        except KeyboardInterrupt:
            so_far = run.results(is_all=False)
            if any(case["repetitions"] for case in so_far["cases"]):
                keep(so_far)
            raise
    return run.results()


class _Run:
    """A plan that is being carried out, and what it has found so far."""

    def __init__(self, plan: Plan, show: Show, runner: Runner, workers: Workers) -> None:
        self._plan, self._show, self._runner, self._workers = plan, show, runner, workers
        self._clock = Clock(plan.budget_seconds, plan.began)
        self._machine, self._software = machine.describe_machine(), machine.describe_software()
        self._quality = _card_metrics(plan.cases(STEPS))
        self._answers: dict[Case, list[dict[str, Any]]] = {}
        self._errors: dict[Case, str] = {}
        self._entries: dict[Case, dict[str, Any]] = {}
        self._searches: list[dict[str, Any]] = []
        self._parity: list[dict[str, Any]] = []
        self._is_whole = True

    def take(self, place: int) -> None:
        """Measure the item at that place of the plan, if there is time for it."""
        item = self._plan.items[place]
        searches = sum(one.kind == SEARCH for one in self._plan.items[place:])
        self._show(item.label, place, len(self._plan.items))
        if self._plan.may_be_cut_short and not self._clock.has_room():
            self._is_whole = False
            return
        if item.kind == SEARCH:
            self._searches.append(self._search(item.case, place, searches))
            return
        # The first round is worth more than the searches, the others are not.
        is_repeated = bool(self._answers.get(item.case))
        share = _SHARE_OF_ROUNDS if is_repeated and searches else 1.0
        if not self._clock.has_room(share):
            self._is_whole = False
        elif item.kind == PARITY:
            found = self._compare(item.case)
            if place == 0 and found["error"]:
                # Neither the provider nor the model starts: nothing else would.
                raise RtsrError(found["error"])
            self._parity.append(found)
        elif item.case not in self._errors:
            self._measure(item.case)

    def results(self, is_all: bool = True) -> dict[str, Any]:
        """Everything that is known, as it is written to a file; ``is_all``: nothing is to come."""
        plan, cases = self._plan, self._plan.cases(STEPS)
        if plan.may_be_cut_short:
            cases = [case for case in cases if case in self._entries]
        wanted = dict.fromkeys(cases, 0)
        for item in plan.items:
            if item.kind == STEPS and item.case in wanted:
                wanted[item.case] += 1
        return {
            "kind": KIND,
            "format": FORMAT,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": plan.command,
            "machine": self._machine,
            "load_average_after": machine.load_average(),
            "software": self._software,
            "protocol": {
                "repetitions": max(wanted.values(), default=1),
                "seconds": plan.protocol.seconds,
                "warm_up_seconds": plan.protocol.warm_up_seconds,
                "paced": bool(cases) and all(case.paced for case in cases),
                "fresh_processes": not plan.may_be_cut_short,
                "exact_up_to": plan.exact_up_to,
                "budget_seconds": plan.budget_seconds,
            },
            "quality": self._quality,
            "seconds": round(self._clock.elapsed, 1),
            "finished": self._is_whole and is_all,
            "parity": self._parity,
            "cases": [with_error(self._entry(case), wanted[case]) for case in cases],
            "searches": self._searches,
        }

    def _entry(self, case: Case) -> dict[str, Any]:
        found = self._entries.get(case) or case_results(case, [])
        return {**found, "error": self._errors.get(case)}

    def _measure(self, case: Case) -> None:
        if reason := self._why_hopeless(case):
            self._errors[case] = reason
            self._entries[case] = case_results(case, [])
            return
        answers = self._answers.setdefault(case, [])
        try:
            with self._clock.watching():
                answers.append(self._runner(case, self._plan.protocol, self._clock.left()))
        except RepetitionError as error:
            self._errors[case] = str(error)
        self._entries[case] = case_results(case, answers)

    def _compare(self, case: Case) -> dict[str, Any]:
        facts = {"label": case.search_label, **case.identity(), "error": None}
        try:
            with self._clock.watching():
                return {**facts, **self._workers.compare(case, self._clock.left())}
        except RepetitionError as error:
            return {**facts, "error": str(error)}

    def _alike(self, case: Case) -> list[dict[str, Any]]:
        """Return the figures of the same network and way with any streams, back to back."""
        return [
            entry
            for other, entry in self._entries.items()
            if "figures" in entry
            and replace(other, streams=case.streams) == replace(case, paced=False)
        ]

    def _why_hopeless(self, case: Case) -> str | None:
        """Say why a case is not worth its time, after what is known."""
        for entry in self._alike(case) if self._plan.may_be_cut_short else ():
            p50, streams = entry["figures"]["p50_ms"], entry["streams"]
            fewer = streams < case.streams or (case.paced and streams == case.streams)
            if fewer and p50 > _HOPELESS_PERIODS * case.period_ms:
                return (
                    f"{LEFT_OUT}{counted(streams, 'stream')} took {p50:.0f} ms, far above "
                    f"{case.period_ms:g}."
                )
        return None

    def _search(self, case: Case, place: int, waiting: int) -> dict[str, Any]:
        plan, clock = self._plan, self._clock
        share = clock.share_of_next(waiting)
        limit_ms = plan.share_of_period * case.period_ms

        def attempt(streams: int, long: bool) -> Trial:
            if not clock.has_room(share):
                raise OutOfTimeError
            tried = case.with_streams(streams)
            self._show(f"{SEARCH}: {tried.label}", place, len(plan.items))
            steps = trial_steps(plan.protocol.seconds) * (_CONFIRMATION if long else 1)
            protocol = replace(
                plan.protocol,
                seconds=steps * case.period_ms / 1000.0,
                limit_ms=limit_ms,
                most_steps=steps,
            )
            try:
                with clock.watching():
                    answer = self._runner(tried, protocol, clock.left())
            except RepetitionError as error:
                if isinstance(error, GivenUpError) and plan.budget_seconds is not None:
                    raise OutOfTimeError from None
                return Trial(streams, None, False, str(error))
            p99_9 = float(np.percentile(answer["times_ms"], 99.9))
            return Trial(streams, p99_9, p99_9 < limit_ms)

        passed = [
            entry["streams"]
            for entry in self._alike(case)
            if entry["figures"]["p99_9_ms"] < limit_ms
        ]
        first = max(passed, default=1)
        found = find_most_streams(attempt, limit_ms, plan.most_streams, plan.exact_up_to, first)
        identity = {name: value for name, value in case.identity().items() if name != "streams"}
        return {"label": case.search_label, **identity, **asdict(found)}


def _card_metrics(cases: Sequence[Case]) -> dict[str, Any]:
    """Collect what the models' cards say of their quality, by name and precision.

    Cards say nothing of products in TF32: their figures were measured in fp32.
    """
    found = {}
    for case in cases:
        if case.kind == MODEL and case.precision != TF32 and case.source.get("file"):
            # A file that cannot be read says so in its case.
            with contextlib.suppress(RtsrError):
                metrics = find_model(Path(case.source["file"])).metadata.card.get("metrics")
                if isinstance(metrics, dict):
                    found[f"{case.name} {case.precision}"] = metrics
    return found


def trial_steps(seconds: float) -> int:
    """Return steps of one trial: p99.9 of so few is nearly the slowest, so it is strict."""
    return int(np.clip(200 * seconds, 20, 400))


def can_search(case: Case) -> bool:
    """Whether its number of streams can be chosen freely."""
    if case.kind == EXTERNAL:
        return any(-1 in shape for shape in case.source["declaration"]["inputs"].values())
    return case.kind == MODEL


def run_on_terminal(plan: Plan, keep: Keep = lambda results: None) -> dict[str, Any]:
    """Carry out a plan with a progress bar on stderr; ``keep`` is that of :func:`run_plan`.

    Raises:
        RtsrError: nothing that was asked for could be measured.
    """
    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with shown_progress(*columns) as show:
        results = run_plan(plan, show, keep=keep)
    asked_for = [case for case in results["cases"] if case["kind"] not in REFERENCES]
    if not any(case["repetitions"] for case in asked_for):
        reasons = [entry["error"] for entry in (*results["parity"], *asked_for) if entry["error"]]
        if reasons or plan.may_be_cut_short:
            raise RtsrError(reasons[0] if reasons else "There was no time for anything.")
    return results

"""From the answers of a case's repetitions to what results hold of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rtsr_bench.speed import steady, summary
from rtsr_bench.speed.matrix import Case, counted

_MEDIANS = (
    *("cold_start_ms", "launch_ms", "load_ms", "first_step_ms"),
    *("rss_mb", "device_mb", "cpu_power_w", "gpu_power_w"),
)
_KEPT = ("missed_by_the_clock", "warm_up_steps", "warm_up_settled")


def case_results(case: Case, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what is written of a case: every repetition, and the figures of all of them.

    Args:
        case: what was timed.
        answers: of :func:`rtsr_bench.speed.measure.measure`, one of each repetition; without any
            there are no figures.
    """
    entry: dict[str, Any] = {"label": case.label, **case.identity()}
    entry["repetitions"] = [_repetition(answer, case.period_ms) for answer in answers]
    if not answers:
        return entry
    runs = [np.array(answer["times_ms"]) for answer in answers]
    figures: dict[str, Any] = {**summary.pooled_figures(runs, case.period_ms)}
    for name in _MEDIANS:
        figures[name] = summary.median_of(answer[name] for answer in answers)
    late = [answer["missed_by_the_clock"] for answer in answers]
    figures["missed_by_the_clock"] = None if None in late else sum(late)
    entry["figures"] = figures
    entry["steady"] = all(repetition["steady"] for repetition in entry["repetitions"])
    entry["quantiles_ms"] = summary.quantiles(np.concatenate(runs))
    return entry


def _repetition(answer: dict[str, Any], period_ms: float) -> dict[str, Any]:
    times = np.array(answer["times_ms"])
    return {
        **{name: answer[name] for name in (*_MEDIANS, *_KEPT)},
        **summary.step_figures(times, period_ms),
        "drift": steady.drift(times),
        "steady": bool(answer["warm_up_settled"]) and steady.is_steady(times),
    }


def with_error(entry: dict[str, Any], wanted: int) -> dict[str, Any]:
    """Say in a case's results if there was no time for as many repetitions as were wanted."""
    taken = len(entry["repetitions"])
    if entry["error"] is None and taken < wanted:
        entry["error"] = (
            f"Cut short: there was time for {taken} of {counted(wanted, 'repetition')}."
            if taken
            else "There was no time left for it."
        )
    return entry

"""The report's plots, from results: distribution, histogram, streams against p99.9, steadiness."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from rtsr_bench.speed.html.svg import NINES, Plot, linear_scale, log_scale, series_class, sparkline
from rtsr_bench.speed.summary import LEVELS

_FEWEST_SHARE = 0.01


def latency_plots(cases: Sequence[dict[str, Any]]) -> str:
    """For each provider and period, the distribution and the histogram of its cases."""
    parts = []
    for (provider, period), group in _groups(cases).items():
        parts.append(f"<h3>{escape(provider)}, steps of {period:g} ms</h3>")
        parts.append(f'<div class="pair">{_distribution(group)}{_histogram(group)}</div>')
        parts.append(_legend([case["label"] for case in group]))
    return "".join(parts)


def _groups(
    cases: Sequence[dict[str, Any]],
) -> dict[tuple[str, float], list[dict[str, Any]]]:
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for case in cases:
        if "figures" in case:
            groups.setdefault((case["provider"], case["period_ms"]), []).append(case)
    return groups


def _distribution(cases: Sequence[dict[str, Any]]) -> str:
    times = [time for case in cases for time in case["quantiles_ms"]]
    plot = Plot(log_scale([*times, cases[0]["period_ms"]]), NINES, "ms", "steps below, %")
    plot.moment(cases[0]["period_ms"], "deadline")
    for index, case in enumerate(cases):
        # The slowest of n steps is the quantile at 1 - 1/n, as far as n steps can tell.
        last = 100.0 * (1.0 - 1.0 / case["figures"]["steps"])
        points = [
            (time, min(level, last))
            for level, time in zip(LEVELS, case["quantiles_ms"], strict=True)
        ]
        plot.line(points, index, case["label"])
    return plot.render()


def _histogram(cases: Sequence[dict[str, Any]]) -> str:
    outlines = [_outline(case["histogram"]) for case in cases]
    edges = [time for outline in outlines for time, _ in outline]
    tallest = max(share for outline in outlines for _, share in outline)
    plot = Plot(log_scale(edges), linear_scale(0.0, tallest, " %"), "ms", "share of the steps")
    for index, (case, outline) in enumerate(zip(cases, outlines, strict=True)):
        plot.line(outline, index, case["label"])
    return plot.render()


def _outline(histogram: dict[str, Any]) -> list[tuple[float, float]]:
    ratio = 10.0 ** (1.0 / histogram["bins_per_decade"])
    edge, total = histogram["first_edge_ms"], sum(histogram["counts"])
    points = [(edge, 0.0)]
    for count in histogram["counts"]:
        share = 100.0 * count / total
        points += [(edge, share), (edge * ratio, share)]
        edge *= ratio
    # Lone stalls would stretch the axis; the distribution beside it shows them.
    while len(points) > 3 and points[-1][1] < _FEWEST_SHARE:
        points.pop()
    return [*points, (points[-1][0], 0.0)]


def streams_plots(searches: Sequence[dict[str, Any]]) -> str:
    """For each limit, p99.9 of every trial; open dots did not pass."""
    by_limit: dict[float, list[dict[str, Any]]] = {}
    for search in searches:
        if any(trial["p99_9_ms"] is not None for trial in search["trials"]):
            by_limit.setdefault(search["limit_ms"], []).append(search)
    plots = "".join(_streams_plot(limit, group) for limit, group in by_limit.items())
    return f'<div class="pair">{plots}</div>'


def _streams_plot(limit: float, searches: Sequence[dict[str, Any]]) -> str:
    tried = [
        (index, trial)
        for index, search in enumerate(searches)
        for trial in search["trials"]
        if trial["p99_9_ms"] is not None
    ]
    plot = Plot(
        log_scale([1.0, *(trial["streams"] for _, trial in tried)]),
        log_scale([limit, *(trial["p99_9_ms"] for _, trial in tried)]),
        "streams in one batch",
        "p99.9, ms",
    )
    plot.level(limit, f"80 % of the period, {limit:g} ms")
    for index, search in enumerate(searches):
        passed = {
            trial["streams"]: trial["p99_9_ms"] for trial in search["trials"] if trial["passed"]
        }
        plot.line(sorted(passed.items()), index, search["label"])
    for index, trial in tried:
        text = f"{trial['streams']} streams: {trial['p99_9_ms']:.3g} ms"
        plot.marker(trial["streams"], trial["p99_9_ms"], index, text, trial["passed"])
    return f"<div>{plot.render()}{_legend([search['label'] for search in searches])}</div>"


def steadiness(case: dict[str, Any]) -> str:
    """How the repetitions of one case went: warm-up left of the rule, timed steps right of it."""
    runs = [
        (repetition["warm_up_timeline_ms"], repetition["timeline_ms"])
        for repetition in case["repetitions"]
    ]
    return sparkline(runs, f"{case['label']}: medians over each run, warm-up left of the rule")


def _legend(labels: Sequence[str]) -> str:
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 24 8"><polyline class="{series_class(index)}" '
        f'points="0,4 24,4"/></svg>{escape(label)}</li>'
        for index, label in enumerate(labels)
    )
    return f'<ul class="legend">{items}</ul>'

"""The report's plots, from results: the distribution, and p99.9 against streams."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from rtsr_bench.speed.html.svg import NINES, Plot, log_scale, series_class
from rtsr_bench.speed.summary import LEVELS

#: Colours times kinds of dashes: of more, no line could be told from another.
_MOST_LINES = 24


def latency_plots(cases: Sequence[dict[str, Any]]) -> str:
    """For each provider and period, the distributions of its first cases."""
    parts = []
    for (provider, period), group in _groups(cases).items():
        parts.append(f"<h3>{escape(provider)}, steps of {period:g} ms</h3>")
        parts.append(_distribution(group[:_MOST_LINES]))
        parts.append(_legend([case["label"] for case in group[:_MOST_LINES]]))
        if len(group) > _MOST_LINES:
            parts.append(f'<p class="soft">The first {_MOST_LINES} of {len(group)} cases.</p>')
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
    plot.level(limit, f"limit, {limit:g} ms")
    for index, search in enumerate(searches):
        passed = {
            trial["streams"]: trial["p99_9_ms"] for trial in search["trials"] if trial["passed"]
        }
        plot.line(sorted(passed.items()), index, search["label"])
    for index, trial in tried:
        text = f"{trial['streams']} streams: {trial['p99_9_ms']:.3g} ms"
        plot.marker(trial["streams"], trial["p99_9_ms"], index, text, trial["passed"])
    return f"<div>{plot.render()}{_legend([search['label'] for search in searches])}</div>"


def _legend(labels: Sequence[str]) -> str:
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 24 8"><polyline class="{series_class(index)}" '
        f'points="0,4 24,4"/></svg>{escape(label)}</li>'
        for index, label in enumerate(labels)
    )
    return f'<ul class="legend">{items}</ul>'

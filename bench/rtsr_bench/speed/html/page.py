"""One self-contained HTML page: tables, plots and how it was measured. It loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from rtsr_bench.speed.html.parts import facts_table, table, whole_page
from rtsr_bench.speed.html.plots import latency_plots, steadiness, streams_plots
from rtsr_bench.speed.summary import missed_steps
from rtsr_bench.speed.texts import (
    doubts,
    found_streams,
    known_quality,
    protocol_line,
    quality_domains,
    three_digits,
    verdict,
    whole_number,
)

_TIMES = ("p50_ms", "p99_ms", "p99_9_ms", "max_ms")
_STARTS = ("cold_start_ms", "first_step_ms", "p95_ms", "jitter_ms")
_RESOURCES = ("rss_mb", "device_mb", "cpu_power_w", "gpu_power_w")


def build_page(results: dict[str, Any]) -> str:
    """Build the whole page as text."""
    cases = results["cases"]
    body = [
        "<h1>rtsr bench speed</h1>",
        *(f'<p class="verdict {kind}">{escape(text)}</p>' for kind, text in verdict(results)),
        *(f'<p class="bad">{escape(doubt)}</p>' for doubt in doubts(results)),
        "<h2>Steps</h2>",
        _matrix(results),
        f'<p class="soft">Milliseconds, {escape(protocol_line(results))}.'
        f"{escape(_quality_note(results))}</p>",
    ]
    if results["searches"]:
        body += [
            "<h2>Streams in one batch</h2>",
            _searches(results["searches"]),
            streams_plots(results["searches"]),
            '<p class="soft">The most whose p99.9 stays below 80 % of the period; an open dot did '
            "not pass.</p>",
        ]
    body += [
        "<h2>Start and resources</h2>",
        _resources(cases),
        "<h2>Distribution</h2>",
        latency_plots(cases),
        "<h2>Repetitions and steady state</h2>",
        _repetitions(cases),
        "<h2>Machine and software</h2>",
        facts_table({"command": results["command"], "date": results["date"]}),
        *(facts_table(results[part], part) for part in ("machine", "software", "protocol")),
    ]
    return whole_page("rtsr bench speed", body)


def _head(case: dict[str, Any]) -> list[str]:
    names = [escape(f"{case['name']} {case['precision']}"), escape(case["provider"])]
    return [*names, f"{case['period_ms']:g}", str(case["streams"])]


_HEAD = ("model", "on", "ms", "streams")


def _matrix(results: dict[str, Any]) -> str:
    headings = [*_HEAD, "p50", "p99", "p99.9", "max", "missed", "x real time"]
    qualities = known_quality(results)
    headings += ["ViSQOL"] if qualities else []
    rows = []
    for case in results["cases"]:
        figures = case.get("figures")
        if figures is None:
            rows.append([*_head(case), f'<span class="bad">{escape(case["error"])}</span>'])
            continue
        missed = missed_steps(figures)
        row = [*_head(case), *(three_digits(figures[name]) for name in _TIMES)]
        row.append(f'<span class="bad">{missed}</span>' if missed else "0")
        row.append(three_digits(figures["real_time_factor"]))
        if qualities:
            row.append(qualities.get(f"{case['name']} {case['precision']}", "-"))
        rows.append(row)
    return table(headings, 2, rows)


def _quality_note(results: dict[str, Any]) -> str:
    domains = quality_domains(results)
    return f" ViSQOL of 8 kHz input, {domains}, from each model's card." if domains else ""


def _resources(cases: Sequence[dict[str, Any]]) -> str:
    headings = [*_HEAD, "threads", "steps", "cold start", "first step", "p95", "jitter"]
    headings += ["RSS MB", "GPU MB", "CPU W", "GPU W"]
    rows = [
        [
            *_head(case),
            str(case["threads"]),
            str(case["figures"]["steps"]),
            *(three_digits(case["figures"][name]) for name in _STARTS),
            *(whole_number(case["figures"][name]) for name in _RESOURCES),
        ]
        for case in cases
        if "figures" in case
    ]
    return table(headings, 2, rows)


def _searches(searches: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            escape(f"{search['name']} {search['precision']}"),
            escape(search["provider"]),
            f"{search['period_ms']:g}",
            str(search["threads"]),
            f"{search['limit_ms']:g}",
            f"<b>{found_streams(search)}</b>",
            "-" if search["fails_at"] is None else str(search["fails_at"]),
        ]
        for search in searches
    ]
    headings = ["model", "on", "ms", "threads", "limit ms", "streams", "fails at"]
    return table(headings, 2, rows)


def _repetitions(cases: Sequence[dict[str, Any]]) -> str:
    rows = []
    for case in cases:
        repetitions = case["repetitions"]
        if not repetitions:
            continue
        drift = max((repetition["drift"] for repetition in repetitions), key=abs)
        rows.append(
            [
                escape(case["label"]),
                steadiness(case),
                "yes" if case["steady"] else '<span class="bad">no</span>',
                ", ".join(str(repetition["warm_up_steps"]) for repetition in repetitions),
                f"{100 * drift:+.1f} %",
                *(_spread(repetitions, name) for name in ("p50_ms", "p99_ms", "p99_9_ms")),
            ]
        )
    headings = ["case", "runs", "steady", "warm-up steps", "largest drift"]
    return table([*headings, "p50", "p99", "p99.9"], 2, rows)


def _spread(repetitions: Sequence[dict[str, Any]], figure: str) -> str:
    values = [repetition[figure] for repetition in repetitions]
    return f"{three_digits(min(values))} to {three_digits(max(values))}"

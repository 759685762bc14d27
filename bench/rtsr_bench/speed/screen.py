"""Results and comparisons as tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtsr_bench.speed.compare import BETTER, WORSE, Comparison, headline, one_sided, remarks
from rtsr_bench.speed.matrix import REFERENCES
from rtsr_bench.speed.summary import missed_steps
from rtsr_bench.speed.texts import found_streams, is_short, notes, three_digits, whole_number

_TIMES = {
    "p50": "p50_ms",
    "p95": "p95_ms",
    "p99": "p99_ms",
    "p99.9": "p99_9_ms",
    "max": "max_ms",
    "jitter": "jitter_ms",
}
_STYLES = {BETTER: "green", WORSE: "red"}


def print_results(results: dict[str, Any], console: Console) -> None:
    """Print matrix, searches and what to know about them."""
    console.print(_matrix(results["cases"]))
    console.print(_resources(results["cases"]))
    if results["searches"]:
        console.print(_searches(results["searches"]))
    for line in notes(results):
        console.print(escape(line), highlight=False)


def _matrix(cases: Sequence[dict[str, Any]]) -> Table:
    return _table("one step, ms", cases, [*_TIMES, "missed"], _times)


def _resources(cases: Sequence[dict[str, Any]]) -> Table:
    headings = (
        "cold start ms",
        "first step ms",
        "x real time",
        "RSS MB",
        "GPU MB",
        "CPU W",
        "GPU W",
    )
    return _table("start and resources", cases, headings, _used)


def _table(
    title: str,
    cases: Sequence[dict[str, Any]],
    headings: Sequence[str],
    values: Callable[[dict[str, Any]], list[str]],
) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in ("what", "on"):
        table.add_column(heading, no_wrap=True)
    for heading in ("hops", "streams", *headings):
        table.add_column(heading, justify="right", min_width=len(heading.split()[0]))
    for index, case in enumerate(cases):
        if index and case["provider"] != cases[index - 1]["provider"]:
            table.add_section()
        steady = "" if case.get("steady", True) else " *"
        table.add_row(
            escape(_what(case)) + steady,
            case["provider"],
            str(case["hops"]),
            str(case["streams"]),
            *(values(case) if "figures" in case else ["-"] * len(headings)),
        )
    return table


def _times(case: dict[str, Any]) -> list[str]:
    figures = case["figures"]
    times = {heading: three_digits(figures[name]) for heading, name in _TIMES.items()}
    if is_short(case):
        times["p99.9"] = f"~{times['p99.9']}"
    return [*times.values(), str(missed_steps(figures))]


def _what(entry: dict[str, Any]) -> str:
    """Name a case; reference costs have no choice of precision that would have to be named."""
    return entry["name"] if entry["kind"] in REFERENCES else f"{entry['name']} {entry['precision']}"


def _used(case: dict[str, Any]) -> list[str]:
    figures = case["figures"]
    return [
        three_digits(figures["cold_start_ms"]),
        three_digits(figures["first_step_ms"]),
        three_digits(figures["real_time_factor"]),
        *(
            whole_number(figures[name])
            for name in ("rss_mb", "device_mb", "cpu_power_w", "gpu_power_w")
        ),
    ]


def _searches(searches: list[dict[str, Any]]) -> Table:
    title = "streams with p99.9 below 80 % of the period"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in ("what", "on"):
        table.add_column(heading, no_wrap=True)
    for heading in ("hops", "threads", "limit ms", "streams", "fails at", "trials"):
        table.add_column(heading, justify="right")
    for search in searches:
        table.add_row(
            escape(_what(search)),
            search["provider"],
            str(search["hops"]),
            str(search["threads"]),
            f"{search['limit_ms']:g}",
            found_streams(search),
            "-" if search["fails_at"] is None else str(search["fails_at"]),
            str(len(search["trials"])),
        )
    return table


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print what changed beyond the noise, and under which circumstances."""
    changed = comparison.beyond_noise()
    if changed:
        table = Table(title="changed beyond the noise", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("case", "figure"):
            table.add_column(heading)
        for heading in ("before", "after", "change", "noise"):
            table.add_column(heading, justify="right")
        table.add_column("verdict")
        for change in changed:
            percent = change.percent
            table.add_row(
                escape(change.label),
                change.figure_name,
                three_digits(change.before),
                f"{three_digits(change.after)} {change.unit}",
                "-" if percent is None else f"{percent:+.1f} %",
                "-" if change.noise is None else three_digits(change.noise),
                f"[{_STYLES[change.verdict]}]{change.verdict}[/]",
            )
        console.print(table)
    for line in (headline(comparison), *remarks(comparison), *one_sided(comparison)):
        console.print(escape(line), highlight=False)
    for what, before, after in comparison.circumstances:
        console.print(escape(f"{what}: {before} -> {after}"), highlight=False, style="dim")

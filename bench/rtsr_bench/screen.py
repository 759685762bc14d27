"""Results and comparisons as tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtsr_bench.compare import BETTER, UNKNOWN, WORSE, Comparison
from rtsr_bench.matrix import FLOORS, counted
from rtsr_bench.summary import STEPS_FOR_P99_9

_TIMES = {
    "p50": "p50_ms",
    "p95": "p95_ms",
    "p99": "p99_ms",
    "p99.9": "p99_9_ms",
    "max": "max_ms",
    "jitter": "jitter_ms",
}
_STYLES = {BETTER: "green", WORSE: "red", UNKNOWN: "yellow"}


def print_results(results: dict[str, Any], console: Console) -> None:
    """Matrix, searches and what to know about them."""
    console.print(_matrix(results["cells"]))
    console.print(_resources(results["cells"]))
    if results["searches"]:
        console.print(_searches(results["searches"]))
    for line in notes(results):
        console.print(escape(line), highlight=False)


def notes(results: dict[str, Any]) -> list[str]:
    """Sentences that belong under the tables."""
    lines = [f"{_machine_line(results)}."]
    protocol = results["protocol"]
    pace = "one step per period" if protocol["paced"] else "back to back"
    lines.append(
        f"{counted(protocol['repetitions'], 'repetition')} of {protocol['seconds']:g} s in fresh "
        f"processes, taken in turns, {pace}; "
        f"host to host, copies included; {results['seconds']:.0f} s in all."
    )
    cells = results["cells"]
    unsteady = [cell["label"] for cell in cells if cell.get("steady") is False]
    if unsteady:
        lines.append(
            f"* Not in a steady state ({len(unsteady)} of {len(cells)} cells): warm-up did not "
            "settle, or a run's end differs from its beginning by more than 5 %."
        )
    if any(_is_short(cell) for cell in cells):
        lines.append(f"~ From fewer than {STEPS_FOR_P99_9} steps: close to the slowest of all.")
    busy = results["machine"]["load_average"]
    threads = results["machine"]["cpu"]["usable_threads"]
    if busy is not None and threads and busy > 0.5 * threads:
        lines.append(
            f"The machine was busy before it began (load {busy:g} on {threads} threads): "
            "these figures are not its own."
        )
    lines += [f"{cell['label']}: {cell['error']}" for cell in cells if cell["error"]]
    return lines


def _machine_line(results: dict[str, Any]) -> str:
    machine, software = results["machine"], results["software"]
    cpu = machine["cpu"]
    parts = [f"{cpu['model'] or cpu['architecture']} ({cpu['usable_threads']} threads)"]
    parts += [f"{gpu['name']}, driver {gpu['driver_version']}" for gpu in machine["gpus"]]
    libraries = software["libraries"]
    parts += [f"{name} {libraries[name]}" for name in libraries if name.startswith("onnxruntime")]
    revision = software["revision"]
    parts.append(f"rtsr {software['rtsr']}" + (f" at {revision[:12]}" if revision else ""))
    return ", ".join(parts)


def _is_short(cell: dict[str, Any]) -> bool:
    return "figures" in cell and cell["figures"]["steps"] < STEPS_FOR_P99_9


def three_digits(value: float | None) -> str:
    """Three significant digits, as far as they are of use."""
    if value is None:
        return "-"
    if value >= 100.0 or isinstance(value, int):
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"


def _matrix(cells: Sequence[dict[str, Any]]) -> Table:
    return _table("one step, ms", cells, [*_TIMES, "missed"], _times)


def _resources(cells: Sequence[dict[str, Any]]) -> Table:
    headings = (
        "cold start ms",
        "first step ms",
        "x real time",
        "RSS MB",
        "GPU MB",
        "CPU W",
        "GPU W",
    )
    return _table("start and resources", cells, headings, _used)


def _table(
    title: str,
    cells: Sequence[dict[str, Any]],
    headings: Sequence[str],
    values: Callable[[dict[str, Any]], list[str]],
) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in ("what", "on"):
        table.add_column(heading, no_wrap=True)
    for heading in ("hops", "streams", *headings):
        table.add_column(heading, justify="right", min_width=len(heading.split()[0]))
    for index, cell in enumerate(cells):
        if index and cell["provider"] != cells[index - 1]["provider"]:
            table.add_section()
        steady = "" if cell.get("steady", True) else " *"
        table.add_row(
            escape(_what(cell)) + steady,
            cell["provider"],
            str(cell["hops"]),
            str(cell["streams"]),
            *(values(cell) if "figures" in cell else ["-"] * len(headings)),
        )
    return table


def _times(cell: dict[str, Any]) -> list[str]:
    figures = cell["figures"]
    times = {heading: three_digits(figures[name]) for heading, name in _TIMES.items()}
    if _is_short(cell):
        times["p99.9"] = f"~{times['p99.9']}"
    late = figures["missed_by_the_clock"]
    missed = figures["missed_deadlines"] if late is None else late
    return [*times.values(), str(missed)]


def _what(entry: dict[str, Any]) -> str:
    """Floors have no choice of precision that would have to be named."""
    return entry["name"] if entry["kind"] in FLOORS else f"{entry['name']} {entry['precision']}"


def _used(cell: dict[str, Any]) -> list[str]:
    figures = cell["figures"]
    return [
        three_digits(figures["cold_start_ms"]),
        three_digits(figures["first_step_ms"]),
        three_digits(figures["real_time_factor"]),
        *(
            "-" if figures[name] is None else f"{figures[name]:.0f}"
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


def found_streams(search: dict[str, Any]) -> str:
    """The number that a search found, and whether it is sure of it."""
    if not search["trials"]:
        return "no time left"
    return f"{search['streams']}" + ("" if search["finished"] else " (not confirmed)")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """What changed beyond the noise, and under which circumstances."""
    changed = comparison.beyond_noise()
    unknown = [change for change in comparison.changes if change.verdict == UNKNOWN]
    if changed:
        table = Table(title="changed beyond the noise", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("cell", "figure"):
            table.add_column(heading)
        for heading in ("before", "after", "change", "noise"):
            table.add_column(heading, justify="right")
        table.add_column("verdict")
        for change in changed:
            percent = change.percent
            table.add_row(
                escape(change.label),
                change.figure.removesuffix("_ms").replace("_", " "),
                three_digits(change.before),
                f"{three_digits(change.after)} {change.unit}",
                "-" if percent is None else f"{percent:+.1f} %",
                "-" if change.noise is None else three_digits(change.noise),
                f"[{_STYLES[change.verdict]}]{change.verdict}[/]",
            )
        console.print(table)
    same = len(comparison.changes) - len(changed) - len(unknown)
    console.print(
        f"{counted(len(changed), 'figure')} changed, {same} stayed within the noise, "
        f"{len(unknown)} cannot be told."
    )
    for name, labels in (
        ("before", comparison.only_before),
        ("after", comparison.only_after),
    ):
        if labels:
            console.print(escape(f"Only {name}: {'; '.join(labels)}."))
    if comparison.false_alarm is not None and comparison.false_alarm > 0.05:
        console.print(
            f"With so few repetitions, up to {100 * comparison.false_alarm:.0f} % of the figures "
            "that did not change may seem to; five repetitions bring that below 1 %."
        )
    for what, before, after in comparison.circumstances:
        console.print(escape(f"{what}: {before} -> {after}"), highlight=False, style="dim")

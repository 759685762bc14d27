"""Results and comparisons in words and tables, the same on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from rtsr.runtime.card import card_clips, card_medians, write_median
from rtsr_bench.speed import document
from rtsr_bench.speed.compare import (
    BETTER,
    SAME,
    WORSE,
    Change,
    Comparison,
    headline,
    one_sided,
    remarks,
)
from rtsr_bench.speed.document import BAD, GOOD, SOFT, Cell, Line, Part, Picture, Table
from rtsr_bench.speed.html.plots import latency_plots, streams_plots
from rtsr_bench.speed.matrix import MODEL, REFERENCES, counted
from rtsr_bench.speed.parity import holds
from rtsr_bench.speed.results import LEFT_OUT
from rtsr_bench.speed.summary import STEPS_FOR_P99_9, keeps_up, missed_steps

_TIMES = ("p50", "p95", "p99", "p99.9", "max", "jitter")
_USED = ("rss_mb", "device_mb", "cpu_power_w", "gpu_power_w")
_VERDICTS = {BETTER: GOOD, WORSE: BAD, SAME: SOFT}

Entry = dict[str, Any]


def show_results(results: Entry, console: Console | None = None) -> None:
    """Print the tables, and what to know about them."""
    cases = results["cases"]
    parts: list[Part] = [
        *_parity(results),
        _times(results),
        _resources(cases),
        _searches(results["searches"]),
        Line(f"{machine_line(results)}."),
        Line(f"{protocol_line(results)}."),
    ]
    if any(is_short(case) for case in cases):
        parts.append(
            Line(f"~ From fewer than {STEPS_FOR_P99_9} steps: close to the slowest of all.")
        )
    if quality := known_quality(results):
        values = "; ".join(f"{name} {value}" for name, value in quality.items())
        parts.append(Line(f"ViSQOL of 8 kHz input, {quality_domains(results)}: {values}."))
    document.show([*parts, *map(Line, doubts(results))], console)


def show_page(results: Entry) -> str:
    """Build a page that begins with whether each model keeps up."""
    cases, qualities = results["cases"], known_quality(results)
    of_quality = f" ViSQOL of 8 kHz input, {quality_domains(results)}, from each model's card."
    of_streams = Picture(
        streams_plots(results["searches"]), "p99.9 by streams; an open dot did not pass"
    )
    parts: list[Part] = [
        *verdict(results),
        *(Line(doubt, BAD) for doubt in doubts(results)),
        _times(results, qualities),
        Line(f"Milliseconds, {protocol_line(results)}.{of_quality * bool(qualities)}", SOFT),
        *_parity(results),
        _searches(results["searches"]),
        _resources(cases),
        *([of_streams] if results["searches"] else []),
        Picture(latency_plots(cases), "Distribution"),
        _repetitions(cases),
        Picture(
            document.facts_table({"command": results["command"], "date": results["date"]})
            + "".join(
                document.facts_table(results[part], part)
                for part in ("machine", "software", "protocol")
            ),
            "Machine and software",
        ),
    ]
    return document.page("rtsr bench speed", parts)


def comparison_parts(comparison: Comparison, sides: str = "") -> list[Part]:
    """Say what changed beyond the noise, under which circumstances; what did not, on a page only.

    Args:
        comparison: of two results.
        sides: what they are called; only a page has room for it and for what did not change.
    """
    changed = comparison.beyond_noise()
    verdicts = {change.verdict for change in changed}
    kind = BAD if WORSE in verdicts else GOOD if BETTER in verdicts else ""
    parts: list[Part] = [
        Line(headline(comparison), kind, is_verdict=True),
        *map(Line, remarks(comparison)),
        _changes("changed beyond the noise", changed),
        *map(Line, one_sided(comparison)),
        *(Line(f"{what}: {one} -> {other}", SOFT) for what, one, other in comparison.circumstances),
    ]
    if sides:
        others = [change for change in comparison.changes if change not in changed]
        parts += [_changes("everything else", others), Line(f"{sides}.", SOFT)]
    return parts


def verdict(results: Entry) -> list[Line]:
    """Say of each model whether it computes the same, and whether it keeps up.

    The latter at its fewest hops and streams, step alone, back to back where there is that.
    """
    lines = []
    checked = _compared(results)
    for entry in checked:
        if not holds(entry):
            lines.append(_verdict(f"{entry['label']}: parity FAILED, so do not use it.", BAD))
    if checked and not lines:
        lines.append(_verdict("Parity holds: every provider and way computes the same.", GOOD))
    if any(entry["provider"] != "cpu" and not entry["captured"] for entry in checked):
        lines.append(_verdict("Steps are NOT CAPTURED as CUDA graphs.", BAD))
    found: dict[tuple[str, str, str], Entry] = {}
    for case in results["cases"]:
        if case["kind"] == MODEL and "figures" in case:
            key = (case["name"], case["precision"], case["provider"])
            found[key] = min(found.get(key, case), case, key=_simplicity)
    for key, case in found.items():
        name, precision, provider = key
        figures, period = case["figures"], case["period_ms"]
        is_enough = keeps_up(figures, period)
        text = (
            f"{name} {precision} on {provider} {'keeps up' if is_enough else 'does not keep up'}: "
            f"{counted(case['streams'], 'stream')}, {period:g} ms of sound in "
            f"{three_digits(figures['p50_ms'])} ms (p99.9 {_p99_9(case)})"
        )
        if late := figures["missed_by_the_clock"]:
            text += f", {late} of {counted(figures['steps'], 'step')} after their time"
        fitting: dict[str, str] = {}
        for search in results["searches"]:
            if (search["name"], search["precision"], search["provider"]) == key:
                fitting.setdefault(" whole" * bool(search.get("whole")), found_streams(search))
        if fitting:
            counts = ", ".join(f"{count}{way}" for way, count in fitting.items())
            text += f"; streams that fit: {counts}"
        lines.append(_verdict(f"{text}.", GOOD if is_enough else BAD))
    return lines


def _verdict(text: str, kind: str) -> Line:
    return Line(text, kind, is_verdict=True)


def _simplicity(case: Entry) -> tuple[Any, ...]:
    return (bool(case.get("whole")), bool(case.get("paced")), case["hops"], case["streams"])


def doubts(results: Entry) -> list[str]:
    """List what speaks against these figures, and what could not be measured."""
    cases = results["cases"]
    lines = []
    if not results.get("finished", True) and not results["protocol"].get("fresh_processes", True):
        lines.append(
            "It ended before everything was measured: what is missing is the least valuable."
        )
    unsteady = [case["label"] for case in cases if case.get("steady") is False]
    if unsteady:
        lines.append(
            f"* Not in a steady state ({len(unsteady)} of {len(cases)} cases): warm-up did not "
            "settle, or a run's end differs from its beginning by more than 5 %."
        )
    lines += _busy(results)
    failed = [entry for entry in (*results.get("parity", ()), *cases) if entry["error"]]
    hopeless = [entry for entry in failed if entry["error"].startswith(LEFT_OUT)]
    if hopeless:
        lines.append(
            f"{counted(len(hopeless), 'case')} left out: fewer streams were far too slow already."
        )
    return lines + [
        f"{entry['label']}: {entry['error']}" for entry in failed if entry not in hopeless
    ]


def _busy(results: Entry) -> list[str]:
    """Say when other programs took much of the machine; loads are of all of its threads."""
    before, after = results["machine"]["load_average"] or 0.0, results.get("load_average_after")
    threads = results["machine"]["cpu"]["threads"] or 1
    own = max((case["threads"] for case in results["cases"]), default=1)
    if before > 0.5 * threads:
        text = f"before it began (load {before:g} on {counted(threads, 'thread')})"
    elif (after or 0.0) - own > 0.5 * threads:
        text = f"meanwhile (load {after:g} on {counted(threads, 'thread')}, {own} of them its own)"
    else:
        return []
    return [f"The machine was busy {text}: these figures are not its own."]


def known_quality(results: Entry) -> dict[str, str]:
    """Collect ViSQOL of 8 kHz input, by model and precision, as models' cards have it."""
    return {
        name: " / ".join(map(write_median, values))
        for name, metrics in results.get("quality", {}).items()
        if (values := card_medians(metrics).get("8 kHz", {}).get("visqol"))
    }


def quality_domains(results: Entry) -> str:
    """Name the domains of :func:`known_quality`; empty where nothing is known."""
    for metrics in results.get("quality", {}).values():
        _, found, domains = card_clips(metrics).partition("medians ")
        if found:
            return domains.partition(";")[0]
    return ""


def protocol_line(results: Entry) -> str:
    """Say how it was measured."""
    protocol = results["protocol"]
    pace = "one step per period" if protocol["paced"] else "back to back"
    turns = "in fresh processes, taken in turns"
    return (
        f"{counted(protocol['repetitions'], 'repetition')} of {protocol['seconds']:g} s "
        f"{turns if protocol.get('fresh_processes', True) else 'in one process'}, {pace}; "
        f"host to host, copies included; {results['seconds']:.0f} s in all"
    )


def machine_line(results: Entry) -> str:
    """Say on what it was measured."""
    machine, software = results["machine"], results["software"]
    cpu = machine["cpu"]
    parts = [f"{cpu['model'] or cpu['architecture']} ({counted(cpu['usable_threads'], 'thread')})"]
    parts += [f"{gpu['name']}, driver {gpu['driver_version']}" for gpu in machine["gpus"]]
    libraries = software["libraries"]
    parts += [f"{name} {libraries[name]}" for name in libraries if name.startswith("onnxruntime")]
    revision = software["revision"]
    parts.append(f"rtsr {software['rtsr']}" + (f" at {revision[:12]}" if revision else ""))
    return ", ".join(parts)


def is_short(case: Entry) -> bool:
    """Tell whether a case has too few steps for its p99.9."""
    return "figures" in case and case["figures"]["steps"] < STEPS_FOR_P99_9


def _p99_9(case: Entry) -> str:
    return "~" * is_short(case) + three_digits(case["figures"]["p99_9_ms"])


def found_streams(search: Entry) -> str:
    """Write the number that a search found, and whether it is sure of it."""
    if not search["trials"]:
        return "no time left"
    return f"{search['streams']}" + ("" if search["finished"] else " (not confirmed)")


def three_digits(value: float | None) -> str:
    """Write three significant digits, as far as they are of use."""
    if value is None:
        return "-"
    if value >= 100.0 or isinstance(value, int):
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"


def _what(entry: Entry) -> str:
    """Name a case; reference costs have no choice of precision that would have to be named."""
    name = entry["name"] if entry["kind"] in REFERENCES else f"{entry['name']} {entry['precision']}"
    ways = [way for way in ("whole", "paced") if entry.get(way)]
    return " ".join([name, *ways]) + ("" if entry.get("steady", True) else " *")


def _head(case: Entry) -> list[str]:
    return [_what(case), case["provider"], str(case["hops"]), str(case["streams"])]


_HEAD = ("what", "on", "hops", "streams")


def _times(results: Entry, qualities: dict[str, str] | None = None) -> Table:
    rows: list[list[Cell]] = []
    for case in results["cases"]:
        figures = case.get("figures")
        row: list[Cell] = [*_head(case)]
        if figures is None:
            rows.append([*row, *["-"] * (len(_TIMES) + 1 + bool(qualities))])
            continue
        times = {name: f"{name.replace('.', '_')}_ms" for name in _TIMES}
        shown = {name: three_digits(figures[key]) for name, key in times.items()}
        shown["p99.9"] = _p99_9(case)
        missed = missed_steps(figures)
        row += [*shown.values(), Line(f"{missed} of {figures['steps']}", BAD) if missed else "0"]
        if qualities:
            row.append(qualities.get(f"{case['name']} {case['precision']}", "-"))
        rows.append(row)
    of_quality = ["ViSQOL"] if qualities else []
    return Table("one step, ms", [*_HEAD, *_TIMES, "missed", *of_quality], rows)


def _resources(cases: Sequence[Entry]) -> Table:
    rows: list[list[Cell]] = []
    for case in cases:
        figures = case.get("figures")
        if figures is None:
            continue
        names = ("cold_start_ms", "first_step_ms", "real_time_factor")
        used = ("-" if figures[name] is None else f"{figures[name]:.0f}" for name in _USED)
        rows.append([*_head(case), *(three_digits(figures[name]) for name in names), *used])
    headings = ("cold start ms", "first step ms", "x real time")
    used_headings = ("RSS MB", "GPU MB", "CPU W", "GPU W")
    return Table("start and resources", [*_HEAD, *headings, *used_headings], rows)


def _searches(searches: Sequence[Entry]) -> Table:
    rows = [
        [
            _what(search),
            search["provider"],
            str(search["hops"]),
            str(search["threads"]),
            f"{search['limit_ms']:g}",
            found_streams(search),
            "-" if search["fails_at"] is None else str(search["fails_at"]),
            str(len(search["trials"])),
        ]
        for search in searches
    ]
    headings = ("what", "on", "hops", "threads", "limit ms", "streams", "fails at", "trials")
    return Table("streams in one batch with p99.9 below the limit", headings, rows)


def _compared(results: Entry) -> list[Entry]:
    """Return what was compared with another provider or way; the CPU alone has none."""
    parity = results.get("parity", ())
    return [entry for entry in parity if entry["error"] is None and "to_eager" in entry]


def _parity(results: Entry) -> Iterable[Part]:
    checked = _compared(results)
    if not checked:
        return
    rows = [
        [
            _what(entry),
            entry["provider"],
            str(entry["hops"]),
            "yes" if entry["captured"] else "no",
            *(_difference(entry, name) for name in ("to_eager", "to_cpu")),
        ]
        for entry in checked
    ]
    headings = ("what", "on", "hops", "captured", "to single launches", "to the CPU")
    yield Table("largest difference over 200 hops, relative to the signal", headings, rows)


def _difference(entry: Entry, name: str) -> Line:
    if name not in entry:
        return Line("-")
    value, limit = entry[name], entry[f"{name}_limit"]
    text = "no number" if value is None else f"{value:.1e}"
    is_alike = value is not None and value <= limit
    return Line(text) if is_alike else Line(f"{text} > {limit:.0e}", BAD)


def _changes(title: str, changes: Iterable[Change]) -> Table:
    rows: list[list[Cell]] = [
        [
            change.label,
            change.figure_name,
            three_digits(change.before),
            f"{three_digits(change.after)} {change.unit}",
            "-" if change.percent is None else f"{change.percent:+.1f} %",
            "-" if change.noise is None else three_digits(change.noise),
            Line(change.verdict, _VERDICTS.get(change.verdict, "")),
        ]
        for change in changes
    ]
    headings = ("case", "figure", "before", "after", "change", "noise", "verdict")
    return Table(title, headings, rows)


def _repetitions(cases: Sequence[Entry]) -> Table:
    rows: list[list[Cell]] = []
    for case in cases:
        repetitions = case["repetitions"]
        if repetitions:
            drift = max((repetition["drift"] for repetition in repetitions), key=abs)
            rows.append([
                case["label"],
                "yes" if case["steady"] else Line("no", BAD),
                *(
                    ", ".join(str(repetition[name]) for repetition in repetitions)
                    for name in ("warm_up_steps", "steps")
                ),
                f"{100 * drift:+.1f} %",
                *(_spread(repetitions, name) for name in ("p50_ms", "p99_ms", "p99_9_ms")),
            ])  # fmt: skip
    counts = ("warm-up steps", "timed steps")
    headings = ("case", "steady", *counts, "largest drift", "p50", "p99", "p99.9")
    return Table("repetitions and steady state", headings, rows)


def _spread(repetitions: Sequence[Entry], figure: str) -> str:
    values = [repetition[figure] for repetition in repetitions]
    return f"{three_digits(min(values))} to {three_digits(max(values))}"

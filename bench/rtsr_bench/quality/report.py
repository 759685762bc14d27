"""The quality report as text: tables of medians, and what each system costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rtsr.cli.metric_meanings import HIGHER, LOWER, MEANINGS, NEAR_ZERO, Meaning
from rtsr.quality.band_levels import BAND_LEVELS
from rtsr_bench.markdown import table
from rtsr_bench.quality.artefacts import markdown_table
from rtsr_bench.quality.systems import BASELINE, MODEL

_UNKNOWN = Meaning("", LOWER, 3)
NOTHING = "-"

Table = list[str]


def markdown(report: Mapping[str, Any]) -> str:
    """Return the whole report; ``report`` is the object that is also written as JSON."""
    lines = [
        "# Quality report",
        "",
        f"{report['date']}, rtsr {report['software']['rtsr']}, `{report['command']}`",
        "",
        _what_was_scored(report),
        "",
        "## Systems",
        "",
        *_systems_table(report),
    ]
    for corpus in report["corpora"]:
        for cutoff, rows in corpus["cutoffs"].items():
            lines += ["", f"## {corpus['name']}, input cutoff {_kilohertz(cutoff)}", ""]
            lines += _domain_tables(rows, report["metrics"])
    lines += not_scored(report)
    lines += against_baselines(report)
    lines += ["", "Metrics:", "", *_legend(report["metrics"])]
    lines += _artefacts(report.get("artefacts", {}))
    if report["conditions"]:
        lines += ["", "## The same sound, degraded in other ways", "", *_conditions(report)]
    if report["pictures"]:
        lines += ["", "## Spectrograms", "", "Dashed: the cutoff of the input."]
    for picture in report["pictures"]:
        lines += ["", f"![{picture['title']}]({picture['file']})"]
    return "\n".join(lines) + "\n"


def better_by(metric: str, value: float, than: float) -> float:
    """By how much a value is better than another one; negative where it is worse."""
    direction = MEANINGS.get(metric, _UNKNOWN).better
    if direction == HIGHER:
        return value - than
    if direction == NEAR_ZERO:
        return abs(than) - abs(value)
    return than - value


def number(metric: str, value: float | None) -> str:
    """Return a value of a metric, or a dash where there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:.{MEANINGS.get(metric, _UNKNOWN).decimals}f}"


def not_scored(report: Mapping[str, Any]) -> Table:
    """Return what is missing from the tables, and why; nothing where nothing is."""
    notes = list(report["failed"])
    for corpus in report["corpora"]:
        name = corpus["name"]
        notes += [f"`{clip}` of {name}: {why}" for clip, why in corpus["left_out"].items()]
        if "visqol" in report["metrics"] and (short := _without_visqol(corpus)):
            clips = ", ".join(f"`{clip}`" for clip in short)
            notes.append(f"by ViSQOL, with less than 1 s of sound, of {name}: {clips}")
    return ["", "## Not scored", "", *(f"- {note}" for note in notes)] if notes else []


def _without_visqol(corpus: Mapping[str, Any]) -> list[str]:
    return list(
        dict.fromkeys(
            clip
            for rows in corpus["cutoffs"].values()
            for row in rows.values()
            for clip, values in row["clips"].items()
            if values.get("visqol") is None
        )
    )


def against_baselines(report: Mapping[str, Any]) -> Table:
    """In how many domains each model is better than each baseline, by cutoff and metric."""
    kinds = {name: facts["kind"] for name, facts in report["systems"].items()}
    baselines = [name for name, kind in kinds.items() if kind == BASELINE]
    lines: Table = []
    for baseline in baselines:
        rows = []
        for place, name, row, scored in _scored(report):
            if kinds[name] == MODEL and baseline in scored:
                theirs = scored[baseline]["by_domain"]
                rows.append([*place, name, *_wins(row["by_domain"], theirs, report["metrics"])])
        lines += ["", f"## Better than `{baseline}`", "", "Medians won, of so many domains:", ""]
        lines += table(["corpus", "cutoff", "system", *report["metrics"]], rows)
    return lines


def _scored(report: Mapping[str, Any]) -> Iterator[tuple[list[str], str, Any, Mapping[str, Any]]]:
    """Yield corpus and cutoff, a system, what it reached there, and what all did."""
    for corpus in report["corpora"]:
        for cutoff, scored in corpus["cutoffs"].items():
            for name, row in scored.items():
                yield [corpus["name"], _kilohertz(cutoff)], name, row, scored


def _wins(
    ours: Mapping[str, Any], baseline: Mapping[str, Any], metrics: Sequence[str]
) -> list[str]:
    cells = []
    for metric in metrics:
        pairs = [
            (ours[one].get(metric), baseline[one].get(metric)) for one in ours if one in baseline
        ]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        won = sum(better_by(metric, a, b) > 0.0 for a, b in known)
        cells.append(f"{won}/{len(known)}" if known else NOTHING)
    return cells


def _kilohertz(cutoff: str) -> str:
    return f"{float(cutoff) / 1000:g} kHz"


def _what_was_scored(report: Mapping[str, Any]) -> str:
    corpora = "; ".join(
        f"{corpus['name']}: "
        + ", ".join(f"{count} {domain}" for domain, count in corpus["clips"].items())
        for corpus in report["corpora"]
    )
    cpu, load = report["machine"]["cpu"], report["machine"]["load_average"]
    return (
        f"Medians over the valid clips ({corpora}), the loudest {report['seconds']:g} s of each. "
        "Inputs are 16-bit files at twice the cutoff; models stream them hop by hop and write "
        "16-bit files at 48 kHz. "
        f"Run on {cpu['model'] or cpu['architecture']} ({cpu['cores'] or '?'} cores, load "
        f"{NOTHING if load is None else load} before)."
    )


def _systems_table(report: Mapping[str, Any]) -> Table:
    cutoffs = report["corpora"][0]["cutoffs"]
    kilohertz = " / ".join(f"{2.0 * float(cutoff) / 1000:g}" for cutoff in cutoffs)
    rows = []
    for name, facts in report["systems"].items():
        rows.append(
            [
                name,
                facts["precision"] or NOTHING,
                NOTHING if facts["file_bytes"] is None else f"{facts['file_bytes'] / 1e6:.2f}",
                NOTHING if facts["parameters"] is None else f"{facts['parameters']:,}",
                _each(facts["real_time"], "{:.1f}"),
                # Reports of format 3 and before have a table of it instead.
                _each(facts.get("streaming", {}), "{:g}"),
                _each(facts["latency_ms"], "{:.2f}"),
            ]
        )
    costs = ["x real time", "streaming", "latency, ms"]
    head = ["system", "precision", "file, MB", "parameters", *costs]
    note = (
        f"The last three depend on the input rate ({kilohertz} kHz). Times are those of the whole "
        "chain with one thread and blocks of 10 ms. Streaming: the largest difference of a sample "
        "between odd blocks and one long one. Latency is algorithmic: resampler, hop and overlap."
    )
    return [*table(head, rows), "", note]


def _domain_tables(rows: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    """For each domain what is told of the sound, and below it what is told of levels alone."""
    parts = [[m for m in metrics if (m in BAND_LEVELS) == is_level] for is_level in (False, True)]
    lines: Table = []
    for domain in dict.fromkeys(domain for row in rows.values() for domain in row["by_domain"]):
        lines += [f"**{domain}**", ""]
        for part in filter(None, parts):
            cells = [
                [name, *(number(m, _median(row, domain, m)) for m in part)]
                for name, row in rows.items()
            ]
            lines += [*table(["system", *part], cells), ""]
    return lines[:-1]


def _artefacts(found: Mapping[str, Any]) -> Table:
    lines: Table = []
    for corpus, by_cutoff in found.items():
        for cutoff, systems in by_cutoff.items():
            lines += ["", f"## Artefacts, {corpus}, input cutoff {_kilohertz(cutoff)}"]
            for system, clips in systems.items():
                lines += ["", f"**{system}**", "", *markdown_table(clips)]
    note = "median (worst; clips beyond the limit / clips scored); ! median beyond the limit"
    return [*lines, "", note] if lines else []


def _conditions(report: Mapping[str, Any]) -> Table:
    found = report["conditions"]
    metrics, titles = found["metrics"], found["titles"]
    lines: Table = [
        f"Content to {found['cutoff_hz'] / 1000:g} kHz, the loudest {found['seconds']:g} s of each "
        "clip, medians; models of less precision are left out. A cliff is a row that is much worse "
        "than the first of its system where the input has not fallen as far.",
        "",
    ]
    systems = found["scores"]
    for domain in next(iter(next(iter(systems.values())).values()))["by_domain"]:
        rows = [
            [system, titles[key], *(number(m, _median(row, domain, m)) for m in metrics)]
            for system, by_condition in systems.items()
            for key, row in by_condition.items()
        ]
        lines += [f"**{domain}**", "", *table(["system", "degraded as", *metrics], rows), ""]
    lines += ["Largest loss against the first row, over domains and conditions:", ""]
    rows = [
        [system, *(_largest_loss(by_condition, metric, titles) for metric in metrics)]
        for system, by_condition in systems.items()
    ]
    lines += table(["system", *metrics], rows)
    return lines


def _largest_loss(by_condition: Mapping[str, Any], metric: str, titles: Mapping[str, str]) -> str:
    first, *others = by_condition
    losses = []
    for domain, values in by_condition[first]["by_domain"].items():
        for key in others:
            before, after = values.get(metric), _median(by_condition[key], domain, metric)
            if before is not None and after is not None:
                losses.append((-better_by(metric, after, before), domain, titles[key]))
    if not losses:
        return NOTHING
    loss, domain, title = max(losses)
    return f"{number(metric, loss)} ({title}, {domain})" if loss > 0.0 else "none"


def _median(row: Mapping[str, Any], domain: str, metric: str) -> float | None:
    """None too where a system failed on all clips of a domain."""
    value: float | None = row["by_domain"].get(domain, {}).get(metric)
    return value


def _legend(metrics: Sequence[str]) -> Table:
    rows = [[metric, *MEANINGS.get(metric, _UNKNOWN)[:2]] for metric in metrics]
    return table(["metric", "meaning", "better"], rows)


def _each(values: Mapping[Any, float | str | None], form: str) -> str:
    """All figures, or one where all are the same."""
    texts = [
        value if isinstance(value, str) else NOTHING if value is None else form.format(value)
        for value in values.values()
    ]
    return " / ".join(texts if len(set(texts)) > 1 else texts[:1]) or NOTHING

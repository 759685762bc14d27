"""Tables of a campaign: what was trained, how it scores, and how it differs from the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from rtsr.errors import RtsrError
from rtsr_bench.ablation_run import FORMAT, PLAN, RESULT
from rtsr_bench.ablation_scores import INPUT, LATENT, TEACHER, read_json
from rtsr_bench.validation import DOMAINS

#: right at zero, so that a difference is one of magnitudes
SIGNED = ("hf_bias_db", "lf_gain_db")
#: chance that a difference as one-sided as a starred one is none
SIGNIFICANT = 0.05
#: file with the command and the machine that made a campaign
MADE = "made.json"
_FIRST_STEP = "1 step"

Values = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Row:
    """Scores of one rendering of one variant at one cutoff."""

    variant: str
    rendering: str
    by_domain: Values
    clips: Values

    @property
    def domains(self) -> list[str]:
        """Those it was judged on, in the tables' order."""
        return [domain for domain in DOMAINS if domain in self.by_domain]


@dataclass(frozen=True)
class Report:
    """What lies in a campaign's folder."""

    title: str
    note: str
    reference: str
    results: list[dict[str, Any]]
    inputs: dict[str, Any]
    made: dict[str, Any] | None = None

    @property
    def cutoffs(self) -> list[str]:
        """Cutoffs in Hz, as keys of scores."""
        found = {cutoff for result in self.results for cutoff in result["scores"]}
        return sorted(found, key=float)

    def rows(self, cutoff: str) -> list[Row]:
        """Every rendering of every variant, in the order of the plan."""
        return [
            Row(result["name"], rendering, scores["by_domain"], scores["clips"])
            for result in self.results
            for rendering, scores in result["scores"].get(cutoff, {}).items()
        ]

    def input_row(self, cutoff: str) -> Row | None:
        """Scores of the narrow-band input itself."""
        scores = self.inputs.get(cutoff, {}).get(INPUT)
        return scores and Row(INPUT, "", scores["by_domain"], scores["clips"])


def load_report(folder: Path) -> Report:
    """Read the results of all variants that are finished.

    Raises:
        RtsrError: the folder holds no campaign, or nothing of it is finished.
    """
    plan = read_json(folder / PLAN)
    if plan is None or plan.get("format") != FORMAT:
        raise RtsrError(f"{folder} holds no ablation; give the --out folder of a run.")
    found = {name: read_json(folder / name / RESULT) for name in plan["variants"]}
    results = [result for result in found.values() if result is not None]
    if not results:
        raise RtsrError(f"No variant in {folder} is judged yet; run the plan to its end first.")
    reference = found.get(plan["reference"])
    inputs = read_json(folder / INPUT / RESULT) or {"scores": {}}
    return Report(
        plan["title"],
        plan["note"],
        reference["name"] if reference else results[0]["name"],
        results,
        inputs["scores"],
        read_json(folder / MADE),
    )


def markdown(report: Report) -> str:
    """All tables of a campaign."""
    parts = [f"# {report.title}"]
    if report.made:
        libraries = report.made["software"]["libraries"]
        versions = ", ".join(f"{name} {version}" for name, version in libraries.items())
        cpu = report.made["cpu"] or "a processor that does not tell its name"
        parts.append(f"`{report.made['command']}`")
        parts.append(f"{report.made['date']}, {cpu}, {versions}.")
    if report.note:
        parts.append(report.note)
    parts.append(_variants_table(report.results))
    for cutoff in report.cutoffs:
        parts += _cutoff_tables(report, cutoff)
    return "\n\n".join(parts) + "\n"


def difference(row: Row, base: Row, domain: str, metric: str) -> tuple[float, bool] | None:
    """Median over a domain's clips of ``row - base``, and whether a sign test finds it real.

    The sign test (two-sided binomial on how many clips went up) asks nothing of how differences
    are distributed. Metrics that are right at zero are compared by magnitude. ``None`` where no
    clip has both values.
    """
    differences = []
    for name, values in row.clips.items():
        one, other = values.get(metric), base.clips.get(name, {}).get(metric)
        if name.startswith(f"{domain}/") and one is not None and other is not None:
            pair = (abs(one), abs(other)) if metric in SIGNED else (one, other)
            differences.append(pair[0] - pair[1])
    if not differences:
        return None
    ups, downs = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    is_real = ups + downs > 0 and binomtest(ups, ups + downs).pvalue < SIGNIFICANT
    return float(np.median(differences)), bool(is_real)


def _variants_table(results: Sequence[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        seconds = result["seconds_per_step"]
        rows.append(
            [
                result["name"],
                result["note"] or "-",
                result["parent"] or "-",
                " + ".join(f"{steps}" for steps in result["steps"]),
                " / ".join(f"{value:.3g}" for value in seconds.values()) or "-",
                f"{result['minutes']:.1f}",
                f"{result['parameters'] / 1e6:.2f} M",
                result["facts"]["device"],
            ]
        )
    head = ["variant", "what differs", "goes on from", "steps", "s per step", "minutes"]
    return _table([*head, "parameters", "device"], rows)


def _cutoff_tables(report: Report, cutoff: str) -> list[str]:
    rows = report.rows(cutoff)
    if not rows:
        return []
    domains = " / ".join(rows[0].domains)
    metrics = list(next(iter(rows[0].by_domain.values())))
    shown = [row for row in (report.input_row(cutoff),) if row is not None] + rows
    parts = [
        f"## Input up to {float(cutoff):g} Hz",
        f"Medians, {domains}.",
        _table(
            ["variant", "rendering", *metrics],
            ([row.variant, row.rendering, *_medians(row, metrics)] for row in shown),
        ),
    ]
    base = _base_of(rows, report.reference)
    if base is not None and len(rows) > 1:
        signed = [metric for metric in metrics if metric in SIGNED]
        by_magnitude = f"; {' and '.join(signed)} by magnitude" if signed else ""
        parts += [
            f"Differences clip by clip to *{base.variant}, {base.rendering}* (decodings of a noisy "
            f"latent to the same of *{base.variant}*): medians, {domains}. * where a sign test "
            f"finds p < {SIGNIFICANT:g}{by_magnitude}.",
            _differences(_against_reference(rows, base), metrics),
        ]
    teachers = _against_teachers(rows)
    if teachers:
        parts += [
            f"One step of the refined weights minus their own teacher in several: medians, "
            f"{domains}.",
            _differences(teachers, metrics),
        ]
    return parts


def _base_of(rows: Sequence[Row], reference: str) -> Row | None:
    mine = [row for row in rows if row.variant == reference]
    return next((row for row in mine if row.rendering == _FIRST_STEP), mine[0] if mine else None)


def _against_reference(rows: Sequence[Row], base: Row) -> list[tuple[str, str, Row, Row]]:
    own = {row.rendering: row for row in rows if row.variant == base.variant}
    pairs = []
    for row in rows:
        other = own.get(row.rendering, base) if row.rendering.startswith(LATENT) else base
        if row is not other:
            pairs.append((row.variant, row.rendering, row, other))
    return pairs


def _against_teachers(rows: Sequence[Row]) -> list[tuple[str, str, Row, Row]]:
    first = {row.variant: row for row in rows if row.rendering == _FIRST_STEP}
    return [
        (row.variant, f"{_FIRST_STEP} - {row.rendering}", first[row.variant], row)
        for row in rows
        if row.rendering.startswith(TEACHER) and row.variant in first
    ]


def _medians(row: Row, metrics: Sequence[str]) -> list[str]:
    return [
        " / ".join(_number(row.by_domain[domain].get(metric)) for domain in row.domains)
        for metric in metrics
    ]


def _differences(pairs: Sequence[tuple[str, str, Row, Row]], metrics: Sequence[str]) -> str:
    def cell(row: Row, base: Row, metric: str) -> str:
        found = (difference(row, base, domain, metric) for domain in row.domains)
        return " / ".join("-" if d is None else f"{d[0]:+.2f}{'*' * d[1]}" for d in found)

    return _table(
        ["variant", "rendering", *metrics],
        ([name, label, *(cell(a, b, metric) for metric in metrics)] for name, label, a, b in pairs),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

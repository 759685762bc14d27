"""``rtsr bench speed --compare``: what changed between two results beyond their noise.

The rule. A figure was measured once in every repetition, each in a fresh process, so each side has
as many values as repetitions. Its *noise* is the larger of the two sides' spreads (largest minus
smallest value), and at least 2 % of the median of the first. A figure has changed only if

1. the two sides do not overlap: every value of one is above every value of the other, and
2. their medians differ by more than the noise.

If nothing had changed, the first alone would happen by chance once in ``C(m + n, m) / 2``
comparisons of m against n repetitions: 5 against 5, once in 126 (an exact permutation test). With
2 against 2 it is once in 3, so few repetitions find more than there is. Where a side has a single
repetition there is no spread, and nothing is claimed.

The number of streams comes from a search between a number that passed and one that failed. It has
changed only if one side passed with a number at which the other failed, of the same limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtsr_bench.files import flat
from rtsr_bench.speed.matrix import counted
from rtsr_bench.speed.summary import missed_steps

SMALLEST_NOISE = 0.02
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "within noise", "cannot tell"

# Figure and its unit; of all of them less is better.
FIGURES = {
    **dict.fromkeys(("cold_start_ms", "first_step_ms", "p50_ms", "p95_ms", "p99_ms"), "ms"),
    **dict.fromkeys(("p99_9_ms", "max_ms", "jitter_ms"), "ms"),
    "missed_percent": "%",
    **dict.fromkeys(("rss_mb", "device_mb"), "MB"),
    **dict.fromkeys(("cpu_power_w", "gpu_power_w"), "W"),
}


@dataclass(frozen=True)
class Change:
    """One figure of one case on both sides.

    Attributes:
        before, after: medians of the repetitions, or the numbers of streams.
        noise: in the figure's unit, ``None`` where it is not known.
        verdict: ``better``, ``worse``, ``within noise`` or ``cannot tell``.
    """

    label: str
    figure: str
    unit: str
    before: float
    after: float
    noise: float | None
    verdict: str

    @property
    def figure_name(self) -> str:
        """What tables call it."""
        return self.figure.removesuffix("_ms").replace("99_9", "99.9").replace("_", " ")

    @property
    def percent(self) -> float | None:
        """Relative change."""
        return 100.0 * (self.after / self.before - 1.0) if self.before else None


@dataclass(frozen=True)
class Comparison:
    """Two results side by side.

    Attributes:
        changes: every figure that both have, the unchanged ones too.
        only_before, only_after: cases that the other does not have.
        circumstances: (what, before, after) of machine, software and protocol where they differ.
        false_alarm: how likely one figure is called changed though nothing changed, at most.
        is_same: whether both are one and the same measurement.
    """

    changes: list[Change]
    only_before: list[str]
    only_after: list[str]
    circumstances: list[tuple[str, Any, Any]]
    false_alarm: float | None
    is_same: bool = False

    def beyond_noise(self) -> list[Change]:
        """Return the figures that changed."""
        return [change for change in self.changes if change.verdict in (BETTER, WORSE)]


def compare(before: dict[str, Any], after: dict[str, Any]) -> Comparison:
    """Compare two results as :func:`rtsr_bench.speed.results.read_results` returns them."""
    changes: list[Change] = []
    first, second = _by_label(before, "cases"), _by_label(after, "cases")
    counts = []
    for label, case in first.items():
        if label not in second or not (case["repetitions"] and second[label]["repetitions"]):
            continue
        sides = case["repetitions"], second[label]["repetitions"]
        counts.append((len(sides[0]), len(sides[1])))
        for figure, unit in FIGURES.items():
            values = [_values(side, figure) for side in sides]
            if values[0] and values[1]:
                changes.append(_verdict(label, figure, unit, *values))
    searches = _by_label(before, "searches"), _by_label(after, "searches")
    for label in searches[0]:
        if label in searches[1]:
            changes.append(_search_verdict(label, searches[0][label], searches[1][label]))
    return Comparison(
        changes,
        [label for label in first if label not in second],
        [label for label in second if label not in first],
        _circumstances(before, after),
        max((chance_of_separation(*pair) for pair in counts), default=None),
        before == after,
    )


def headline(comparison: Comparison) -> str:
    """Say in a sentence how much changed."""
    if comparison.is_same:
        return "Both files hold the same measurement, so nothing changed."
    verdicts = [change.verdict for change in comparison.changes]
    better, worse, same = (verdicts.count(one) for one in (BETTER, WORSE, SAME))
    changed = better + worse
    text = f"{counted(changed, 'figure')} changed"
    text += f" ({better} better, {worse} worse)" if changed else ""
    return f"{text}, {same} stayed within the noise."


def one_sided(comparison: Comparison) -> list[str]:
    """List the cases that only one side has."""
    sides = (("before", comparison.only_before), ("after", comparison.only_after))
    return [f"Only {name}: {'; '.join(labels)}." for name, labels in sides if labels]


def remarks(comparison: Comparison) -> list[str]:
    """List what limits a comparison."""
    if comparison.is_same:
        return []
    lines = []
    unknown = [change for change in comparison.changes if change.verdict == UNKNOWN]
    if unknown:
        lines.append(
            f"Whether {counted(len(unknown), 'figure')} changed cannot be said: measured once, a "
            "figure has no spread to compare a difference with, a search that was cut short has "
            "no answer, and searches below different limits are not alike. Measure both sides in "
            "the same way, with --repetitions 5."
        )
    if comparison.false_alarm is not None and 0.05 < comparison.false_alarm < 1.0:
        lines.append(
            f"With so few repetitions, up to {100 * comparison.false_alarm:.0f} % of the figures "
            "that did not change may seem to; five repetitions bring that below 1 %."
        )
    return lines


def chance_of_separation(before: int, after: int) -> float:
    """How often two samples of one distribution do not overlap, either way round."""
    return min(2.0 / math.comb(before + after, before), 1.0)


def _verdict(label: str, figure: str, unit: str, before: list[float], after: list[float]) -> Change:
    medians = float(np.median(before)), float(np.median(after))
    if len(before) < 2 or len(after) < 2:
        return Change(label, figure, unit, *medians, None, UNKNOWN)
    noise = max(np.ptp(before), np.ptp(after), SMALLEST_NOISE * abs(medians[0]))
    rose, fell = min(after) > max(before), max(after) < min(before)
    verdict = SAME
    if (rose or fell) and abs(medians[1] - medians[0]) > noise:
        verdict = WORSE if rose else BETTER
    return Change(label, figure, unit, *medians, float(noise), verdict)


def _search_verdict(label: str, before: dict[str, Any], after: dict[str, Any]) -> Change:
    def fails(search: dict[str, Any]) -> float:
        return math.inf if search["fails_at"] is None else search["fails_at"]

    verdict = SAME
    if before["limit_ms"] != after["limit_ms"]:
        verdict = UNKNOWN
    elif after["streams"] >= fails(before):
        verdict = BETTER
    elif before["streams"] >= fails(after):
        verdict = WORSE
    elif not (before["finished"] and after["finished"]):
        verdict = UNKNOWN
    return Change(label, "streams", "streams", before["streams"], after["streams"], None, verdict)


def _values(repetitions: list[dict[str, Any]], figure: str) -> list[float]:
    if figure == "missed_percent":
        return [
            100.0 * missed_steps(repetition) / repetition["steps"]
            for repetition in repetitions
            if repetition.get("steps")
        ]
    values = [repetition.get(figure) for repetition in repetitions]
    return [float(value) for value in values if value is not None]


def _by_label(results: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {entry["label"]: entry for entry in results[kind]}


def _circumstances(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    parts = ("machine", "software", "protocol")
    sides = [
        {".".join(place): value for part in parts for place, value in flat(results.get(part), part)}
        for results in (before, after)
    ]
    names = dict.fromkeys([*sides[0], *sides[1]])
    return [
        (name, sides[0].get(name), sides[1].get(name))
        for name in names
        if sides[0].get(name) != sides[1].get(name) and not name.endswith("load_average")
    ]

"""``rtsr bench speed --compare --html``: what changed, as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

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
from rtsr_bench.speed.html.parts import table, whole_page
from rtsr_bench.speed.texts import three_digits

_CLASSES = {BETTER: "good", WORSE: "bad"}


def build_comparison_page(comparison: Comparison, before: str, after: str) -> str:
    """Build the whole page as text.

    Args:
        comparison: of two results.
        before: what the first is called.
        after: what the second is called.
    """
    changed = comparison.beyond_noise()
    verdicts = {change.verdict for change in changed}
    kind = "bad" if WORSE in verdicts else "good" if BETTER in verdicts else ""
    others = [change for change in comparison.changes if change not in changed]
    body = [
        "<h1>rtsr bench speed: what changed</h1>",
        f'<p class="verdict {kind}">{escape(headline(comparison))}</p>',
        *(f"<p>{escape(line)}</p>" for line in remarks(comparison)),
        f'<p class="soft">{escape(before)} against {escape(after)}.</p>',
    ]
    if changed:
        body += ["<h2>Changed beyond the noise</h2>", _changes(changed)]
    if comparison.circumstances:
        rows = [[escape(str(one)) for one in row] for row in comparison.circumstances]
        body += ["<h2>Other circumstances</h2>", table(["what", "before", "after"], 3, rows)]
    if others:
        body += ["<h2>Everything else</h2>", _changes(others)]
    body += [f'<p class="soft">{escape(line)}</p>' for line in one_sided(comparison)]
    return whole_page("rtsr bench speed: what changed", body)


def _changes(changes: Iterable[Change]) -> str:
    rows = []
    for change in changes:
        percent = change.percent
        name = _CLASSES.get(change.verdict, "soft" if change.verdict == SAME else "")
        rows.append(
            [
                escape(change.label),
                change.figure_name,
                three_digits(change.before),
                f"{three_digits(change.after)} {change.unit}",
                "-" if percent is None else f"{percent:+.1f} %",
                "-" if change.noise is None else three_digits(change.noise),
                f'<span class="{name}">{change.verdict}</span>',
            ]
        )
    return table(["case", "figure", "before", "after", "change", "noise", "verdict"], 2, rows)

"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table; cells are written as ``str`` writes them."""
    lines = [list(head), ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, row))} |" for row in lines]

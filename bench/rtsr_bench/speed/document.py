"""What a report consists of, once: shown on a terminal, or as a page that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from rtsr.terminal import plain_console
from rtsr_bench.files import flat
from rtsr_bench.speed.html.style import STYLE

GOOD, BAD, SOFT = "good", "bad", "soft"
_STYLES = {GOOD: "green", BAD: "red", SOFT: "dim"}


@dataclass(frozen=True)
class Line:
    """A sentence, or the text of a table's cell.

    Attributes:
        text: what it says.
        kind: ``good``, ``bad``, ``soft`` or nothing.
        is_verdict: whether it is what a reader looks for first.
    """

    text: str
    kind: str = ""
    is_verdict: bool = False


@dataclass(frozen=True)
class Picture:
    """HTML that a terminal leaves out, under a title of its own if it has one."""

    html: str
    title: str = ""


Cell = str | Line


@dataclass(frozen=True)
class Table:
    """Rows of cells under a title; the first ``texts`` columns are aligned as text."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    texts: int = 2


Part = Line | Table | Picture


def show(parts: Iterable[Part], console: Console | None = None) -> None:
    """Print what a terminal can show."""
    console = console or plain_console()
    for part in parts:
        if isinstance(part, Line):
            style = _STYLES[SOFT] if part.kind == SOFT else None
            console.print(Text(part.text), style=style)
        elif isinstance(part, Table) and part.rows:
            console.print(_on_terminal(part))


def _on_terminal(table: Table) -> RichTable:
    shown = RichTable(title=table.title, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for index, heading in enumerate(table.headings):
        is_text = index < table.texts
        words = heading.split()
        # Where there is no room, names and headings are wrapped and numbers stay whole.
        shown.add_column(
            heading,
            justify="left" if is_text else "right",
            min_width=0 if is_text else max(map(len, words)),
            no_wrap=not is_text and len(words) == 1,
        )
    for row in table.rows:
        cells = [_line(cell) for cell in row]
        shown.add_row(*(Text(cell.text, _STYLES.get(cell.kind, "")) for cell in cells))
    return shown


def page(title: str, parts: Iterable[Part]) -> str:
    """Build the whole page as text."""
    body = "".join(_on_page(part) for part in parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _on_page(part: Part) -> str:
    if isinstance(part, Picture):
        return (f"<h2>{escape(part.title)}</h2>" if part.title else "") + part.html
    if isinstance(part, Line):
        classes = " ".join([*["verdict"] * part.is_verdict, part.kind]).strip()
        attribute = f' class="{classes}"' if classes else ""
        return f"<p{attribute}>{escape(part.text)}</p>"
    return f"<h2>{escape(part.title)}</h2>{_table_html(part)}" if part.rows else ""


def _table_html(table: Table) -> str:
    """Write a table without its title."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if index < table.texts else ''}>{value}</{tag}>"
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', [_cell(one) for one in row])}</tr>" for row in table.rows)
    head = cells("th", [escape(heading) for heading in table.headings])
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _line(cell: Cell) -> Line:
    return cell if isinstance(cell, Line) else Line(cell)


def _cell(cell: Cell) -> str:
    line = _line(cell)
    text = escape(line.text)
    return f'<span class="{line.kind}">{text}</span>' if line.kind else text


def facts_table(facts: Mapping[str, Any], title: str = "") -> str:
    """Write facts as HTML: a table of names and values, one row for each of a nested fact."""
    rows = "".join(
        f'<tr><td class="text">{escape(", ".join(place).replace("_", " "))}</td>'
        f'<td class="text">{escape(_fact(value))}</td></tr>'
        for place, value in flat(facts)
    )
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f'{heading}<table class="facts"><tbody>{rows}</tbody></table>'


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)

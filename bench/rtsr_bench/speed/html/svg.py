"""Plots as SVG text: axes with ticks, lines, markers and rules; colours come from the style sheet.

Every series has a class ``series-K`` that the page colours, light or dark, and a ``<title>`` that
browsers show when the pointer rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

COLOURS = 8
Points = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT = 660, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 10, 42


@dataclass(frozen=True)
class Scale:
    """From values to a part of the axis: 0 is its beginning, 1 its end.

    Attributes:
        low, high: values at the ends.
        ticks: (value, text) of the marks.
        kind: ``log``, or ``nines``: equal steps from 90 to 99 to 99.9 per cent.
    """

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    kind: str

    def place(self, value: float) -> float:
        """Where a value lies; beyond an end, at the end."""
        low, high, here = (self._bend(one) for one in (self.low, self.high, value))
        return min(max((here - low) / (high - low), 0.0), 1.0)

    def _bend(self, value: float) -> float:
        if self.kind == "nines":
            return -math.log10(max(1.0 - value / 100.0, 1e-9))
        return math.log10(max(value, 1e-12))


def log_scale(values: Iterable[float], unit_ticks: Sequence[int] = (1, 2, 5)) -> Scale:
    """Return a logarithmic scale around some positive values, marked at 1, 2 and 5."""
    known = [value for value in values if value > 0.0] or [1.0]
    low, high = min(known) / 1.15, max(known) * 1.15
    ticks = [
        (unit * 10.0**decade, f"{unit * 10.0**decade:g}")
        for decade in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for unit in unit_ticks
    ]
    within = [tick for tick in ticks if low <= tick[0] <= high]
    if len(within) > 12 and len(unit_ticks) > 1:
        return log_scale(known, (1,))
    return Scale(low, high, within, "log")


NINES = Scale(
    0.0,
    99.99,
    [(0.0, "0"), (50.0, "50"), (90.0, "90"), (99.0, "99"), (99.9, "99.9"), (99.99, "99.99")],
    "nines",
)


@dataclass
class Plot:
    """One plot; add to it, then :meth:`render`."""

    x: Scale
    y: Scale
    x_label: str
    y_label: str
    _inside: list[str] = field(default_factory=list)

    def line(self, points: Points, series: int, title: str) -> None:
        """Draw a line through points."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self._inside.append(
            f'<polyline class="{series_class(series)}" points="{path}">'
            f"<title>{escape(title)}</title></polyline>"
        )

    def marker(self, x: float, y: float, series: int, title: str, filled: bool) -> None:
        """Draw a dot, filled or open."""
        kind = "dot" if filled else "ring"
        self._inside.append(
            f'<circle class="{kind} {series_class(series)}" cx="{self._x(x):.1f}" '
            f'cy="{self._y(y):.1f}" r="4"><title>{escape(title)}</title></circle>'
        )

    def level(self, y: float, text: str) -> None:
        """Draw a horizontal rule with its meaning."""
        place = self._y(y)
        self._inside += [
            _segment("rule", _LEFT, _WIDTH - _RIGHT, place, place),
            _text(_LEFT + 6, place - 5, text, 'class="note"'),
        ]

    def moment(self, x: float, text: str) -> None:
        """Draw a vertical rule with its meaning."""
        place = self._x(x)
        self._inside += [
            _segment("rule", place, place, _TOP, _HEIGHT - _BOTTOM),
            _text(place - 5, _TOP + 12, text, 'class="note" text-anchor="end"'),
        ]

    def render(self) -> str:
        """Render the whole plot."""
        return (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{escape(self.y_label)} against {escape(self.x_label)}">'
            f"{self._axes()}{''.join(self._inside)}</svg>"
        )

    def _axes(self) -> str:
        right, bottom, middle = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, 'text-anchor="middle"'
        parts = []
        for value, text in self.x.ticks:
            place = self._x(value)
            parts += [_segment("grid", place, place, _TOP, bottom)]
            parts += [_text(place, bottom + 16, text, middle)]
        for value, text in self.y.ticks:
            place = self._y(value)
            parts += [_segment("grid", _LEFT, right, place, place)]
            parts += [_text(_LEFT - 6, place + 4, text, 'text-anchor="end"')]
        parts += [_text((_LEFT + right) / 2, _HEIGHT - 6, self.x_label, middle)]
        turned = f'transform="translate(14,{(_TOP + bottom) / 2}) rotate(-90)"'
        return "".join([*parts, _text(0, 0, self.y_label, f"{middle} {turned}")])

    def _x(self, value: float) -> float:
        return _LEFT + self.x.place(value) * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - self.y.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _segment(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text {style} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def series_class(series: int) -> str:
    """Colour by index; when the colours are used up, the lines are dashed."""
    dash = series // COLOURS % 3
    return f"series-{series % COLOURS}" + (f" dash-{dash}" if dash else "")

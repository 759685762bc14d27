"""A live session in the terminal: levels, spectrum, latency, step times, controls."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from rtsr.closing import Closing
from rtsr.live.controls.board import CONTROLS, Control
from rtsr.live.controls.keyboard import KEYS, KeyControls
from rtsr.live.monitor.drawing import (
    Glyphs,
    Row,
    colour_row,
    frequency_row,
    level_row,
    spectrum_rows,
    step_rows,
)
from rtsr.live.monitor.report import STEP_BIN_MS, LiveSnapshot
from rtsr.terminal import plain_console
from rtsr.timing import HOP_MS

#: Pictures per second: what an eye needs of a level, and little work.
PICTURES_PER_SECOND = 10
_SPECTRUM_ROWS = 6
_STEP_COLUMNS = 40
_CONTROL_BAR = 12
_MARGIN = 11

_STYLES = {
    "plain": Style(),
    "dim": Style(dim=True),
    "bold": Style(bold=True),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "input": Style(color="blue"),
    "added": Style(color="green"),
    "input on added": Style(color="blue", bgcolor="green"),
    "chosen": Style(reverse=True),
}


class LiveScreen(Closing):
    """Shows snapshots in the terminal, on a page of its own that goes away at the end.

    Nothing is drawn except in :meth:`show`, so the caller decides how often and in which thread.

    Args:
        keys: the keyboard's state, for the chosen control and the help; may be ``None``.
        console: where to draw; stdout if ``None``.
    """

    def __init__(self, keys: KeyControls | None = None, console: Console | None = None) -> None:
        self._keys = keys
        self._console = console or plain_console()
        self._live: Live | None = None
        self._notice = ""
        self._gone = False
        if self.usable:
            self._live = Live(
                console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop"
            )
            self._live.start()

    @property
    def usable(self) -> bool:
        """Whether there is a terminal that can show it."""
        return not self._gone and self._console.is_terminal and not self._console.is_dumb_terminal

    def show(self, snapshot: LiveSnapshot) -> None:
        """Draw a snapshot in place of the one before; a terminal that was closed gets no more."""
        if self._live is None or self._gone:
            return
        try:
            self._live.update(Picture(snapshot, self._keys, self._notice), refresh=True)
        except OSError:
            self._gone = True

    def notice(self, sentence: str) -> None:
        """Have a sentence in every picture from now on, in place of the one before."""
        self._notice = sentence

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()
            self._live = None


class Picture:
    """One snapshot, for rich to print at whatever size the terminal has."""

    def __init__(
        self, snapshot: LiveSnapshot, keys: KeyControls | None = None, notice: str = ""
    ) -> None:
        self._snapshot = snapshot
        self._keys = keys
        self._notice = notice

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = Glyphs(options.ascii_only)
        width = options.max_width
        rows = list(self._rows(glyphs, width, _SPECTRUM_ROWS))
        # Within another renderable, as rich's full screen is, `options.height` is always `None`.
        height = options.height if options.height is not None else options.size.height
        if len(rows) > height:
            # A low terminal loses the empty lines and the parts of the latency, then height of the
            # spectrum and the step times: what can be turned is there as long as possible.
            rows = self._compact(glyphs, width, _SPECTRUM_ROWS)
            missing = max(0, len(rows) - height)
            rows = self._compact(glyphs, width, max(2, _SPECTRUM_ROWS - missing))
            if len(rows) > height:
                rows = self._compact(glyphs, width, 2, steps=False)[:height]
        for number, row in enumerate(rows):
            if number:
                yield Segment.line()
            left = width
            for text, style in row:
                if left <= 0:
                    break
                yield Segment(text[:left], _STYLES[style])
                left -= len(text)

    def _compact(self, glyphs: Glyphs, width: int, spectrum: int, steps: bool = True) -> list[Row]:
        rows = self._rows(glyphs, width, spectrum, compact=True, steps=steps)
        return [row for row in rows if row]

    def _rows(
        self,
        glyphs: Glyphs,
        width: int,
        spectrum_rows: int,
        compact: bool = False,
        steps: bool = True,
    ) -> Iterator[Row]:
        snapshot = self._snapshot
        yield from _head(glyphs, snapshot, width)
        if self._notice:
            yield [(self._notice, "warn")]
        yield []
        yield from _levels(glyphs, snapshot, width)
        yield []
        if self._keys is not None and self._keys.show_keys:
            yield from ([(keys.ljust(20), "bold"), (does, "plain")] for keys, does in KEYS)
            return
        yield from _spectrum(glyphs, snapshot, width, spectrum_rows)
        yield []
        yield from _wrapped("latency", _latency(snapshot, compact), width)
        if steps:
            yield from _steps(glyphs, snapshot, width)
        yield from _wrapped("fallback", _fallback_level(glyphs, snapshot), width)
        if snapshot.colour is not None:
            yield from _wrapped("colour", colour_row(glyphs, snapshot.colour), width)
        yield from _wrapped("counts", _counts(snapshot), width)
        yield []
        yield from _controls(glyphs, snapshot, self._keys)


def _head(glyphs: Glyphs, snapshot: LiveSnapshot, width: int) -> Iterator[Row]:
    minutes, seconds = divmod(int(snapshot.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    state_style = "good" if snapshot.state == "playing" else "bad"
    keys = "? keys  q stop"
    title = f"rtsr live  {hours}:{minutes:02d}:{seconds:02d}  "
    space = " " * max(2, width - len(title) - len(snapshot.state) - len(keys))
    yield [(title, "bold"), (snapshot.state, state_style), (space, "plain"), (keys, "dim")]
    channels = "1 channel" if snapshot.channels == 1 else f"{snapshot.channels} channels"
    devices = f"{snapshot.input_name} {glyphs.arrow} {snapshot.output_name}"
    rates = f"{snapshot.rate}"
    if snapshot.output_rate != snapshot.rate:
        rates += f" {glyphs.arrow} {snapshot.output_rate}"
    form = f"  {rates} Hz, {snapshot.block} frames, {channels}"
    yield [(devices[: max(20, width - len(form))], "plain"), (form, "dim")]


def _levels(glyphs: Glyphs, snapshot: LiveSnapshot, width: int) -> Iterator[Row]:
    half = (width - 2) // 2
    inputs = list(zip(snapshot.in_rms_db, snapshot.in_db, strict=False))
    outputs = list(zip(snapshot.out_rms_db, snapshot.out_db, strict=False))
    for number in range(max(len(inputs), len(outputs))):
        row: Row = []
        for side, levels in (("in ", inputs), ("out", outputs)):
            if number < len(levels):
                row += level_row(glyphs, f"{side} {number + 1}", *levels[number], half)
            else:
                row.append((" " * half, "plain"))
            row.append(("  ", "plain"))
        yield row


def _spectrum(glyphs: Glyphs, snapshot: LiveSnapshot, width: int, height: int) -> Iterator[Row]:
    before, after = snapshot.in_spectrum, snapshot.out_spectrum
    # A narrow terminal shows the louder of two neighbours.
    if width < len(before) + _MARGIN:
        before, after = (bands.reshape(-1, 2).max(axis=1) for bands in (before, after))
    names = [("input", "input"), ("added", "added")]
    for number, row in enumerate(spectrum_rows(glyphs, before, after, height)):
        name, style = names[number] if number < len(names) else ("", "plain")
        yield [(name.ljust(_MARGIN), style), *row]
    yield [
        (f"{snapshot.cutoff_hz / 1000:.1f} kHz".ljust(_MARGIN), "warn"),
        *frequency_row(glyphs, len(before), snapshot.cutoff_hz, snapshot.top_hz),
    ]


def _latency(snapshot: LiveSnapshot, compact: bool) -> Row:
    """Return the total and its parts that are not zero; in `compact`, devices and engine alone."""
    parts = snapshot.latency_ms
    if compact:
        devices = sum(part for name, part in parts.items() if name.startswith("device_"))
        parts = {"devices": devices, "engine": sum(parts.values()) - devices}
    named = [f"{name.replace('_', ' ')} {part:.1f}" for name, part in parts.items() if part > 0.0]
    row: Row = [(f"{snapshot.latency_total_ms:.1f} ms", "bold")]
    return row + [
        (f" {'+' if number else '='} {part}", "plain") for number, part in enumerate(named)
    ]


def _steps(glyphs: Glyphs, snapshot: LiveSnapshot, width: int) -> Iterator[Row]:
    figures = (
        f"  p50 {snapshot.step_p50_ms:.2f}  p99 {snapshot.step_p99_ms:.2f}  "
        f"max {snapshot.step_max_ms:.2f} ms"
    )
    columns = max(10, min(_STEP_COLUMNS, width - _MARGIN - len(figures)))
    bars, axis = step_rows(glyphs, snapshot.step_histogram, columns, STEP_BIN_MS, HOP_MS)
    yield [("step".ljust(_MARGIN), "dim"), *bars, (figures, "plain")]
    yield [(" " * _MARGIN, "dim"), *axis, ("  ms", "dim")]


def _fallback_level(glyphs: Glyphs, snapshot: LiveSnapshot) -> Row:
    row: Row = []
    for name in snapshot.fallback_levels:
        row += [
            (f" {name} ", "chosen" if name == snapshot.fallback_level else "dim"),
            (" ", "plain"),
        ]
    change = snapshot.last_change
    if change is not None:
        ago = max(0, round(snapshot.seconds - change.time_s))
        text = f" {ago} s ago {change.from_level} {glyphs.arrow} {change.to_level}: {change.cause}"
        row.append((text, "plain"))
    return row


def _counts(snapshot: LiveSnapshot) -> Row:
    counts = [
        ("under-runs", snapshot.underruns),
        ("over-runs", snapshot.overruns),
        ("late callbacks", snapshot.late_callbacks),
        ("xruns", snapshot.xruns),
        ("worker restarts", snapshot.worker_restarts),
        ("device restarts", snapshot.device_restarts),
    ]
    row: Row = [(f"{name} {count}  ", "warn" if count else "plain") for name, count in counts]
    row.append((f"ahead {snapshot.ahead_ms:.1f} ms  ", "plain"))
    if snapshot.cpu_percent is not None:
        row.append((f"CPU {snapshot.cpu_percent:.0f} %  ", "plain"))
    if snapshot.priority:
        row.append((f"priority {snapshot.priority}", "dim"))
    return row


def _wrapped(name: str, pieces: Row, width: int) -> Iterator[Row]:
    """Pieces after a name in the margin, on as many lines as they need."""
    row: Row = [(name.ljust(_MARGIN), "dim")]
    used = _MARGIN
    for text, style in pieces:
        if used + len(text.rstrip()) > width and len(row) > 1:
            yield row
            row, used = [(" " * _MARGIN, "dim")], _MARGIN
        row.append((text, style))
        used += len(text)
    yield row


def _controls(glyphs: Glyphs, snapshot: LiveSnapshot, keys: KeyControls | None) -> Iterator[Row]:
    known = [control for control in CONTROLS if control.name in snapshot.controls]
    half = (len(known) + 1) // 2
    chosen = keys.chosen if keys is not None else ""
    for number in range(half):
        row: Row = []
        for control in known[number::half]:
            value = snapshot.controls[control.name]
            name_style = "chosen" if control.name == chosen else "dim"
            low, high = snapshot.limits.get(control.name, (control.low, control.high))
            bar = glyphs.bar(_share(control, value, low, high), _CONTROL_BAR)
            row += [
                (control.name.ljust(_MARGIN - 1), name_style),
                (" ", "plain"),
                (bar, "input"),
                (f" {_value(control, value, snapshot.fallback_levels)}".ljust(16), "plain"),
            ]
        yield row


def _share(control: Control, value: float, low: float, high: float) -> float:
    if high <= low:
        return 0.0
    if control.kind == "log":
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _value(control: Control, value: float, fallback_levels: tuple[str, ...]) -> str:
    if control.kind == "switch":
        return "on" if value else "off"
    if control.kind == "choice":
        return fallback_levels[min(len(fallback_levels) - 1, max(0, int(value)))]
    if control.at_low and value <= control.low:
        return control.at_low
    if control.at_high and value >= control.high:
        return control.at_high
    if control.kind in ("integer", "log"):
        return f"{value:.0f} {control.unit}".rstrip()
    return f"{value:.2f} {control.unit.replace('octave', 'oct')}".rstrip()

"""Bars, spectra and histograms as rows of characters.

A row is a list of (text, style name); rich's tables and panels would take several times as long
to lay out, ten times a second, on a machine that has something better to do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.bands import MAX_GAIN_DB
from rtsr.live.monitor.colour_state import ColourState
from rtsr.live.monitor.meters import LOWEST_BAND_HZ
from rtsr_kernels.band_limit import FULL_BAND_HZ

Row = list[tuple[str, str]]

# From the noise of 16 bits to the loudest band of loud music.
_SPECTRUM_FLOOR_DB = -96.0
_SPECTRUM_TOP_DB = -12.0
_LEVEL_FLOOR_DB = -60.0
_FIRST_STEP_MS = 0.1
_TICKS_HZ = (100, 200, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000)
_TICKS_MS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Glyphs:
    """The characters of bars: block elements, or plain letters where the terminal has no others."""

    def __init__(self, ascii_only: bool = False) -> None:
        self.upward = " .:-=+*%#" if ascii_only else " ▁▂▃▄▅▆▇█"
        self.rightward = "        #" if ascii_only else " ▏▎▍▌▋▊▉█"
        self.peak = "|" if ascii_only else "│"
        self.arrow = "->" if ascii_only else "→"
        self.cutoff = "^" if ascii_only else "▲"

    def bar(self, fill: float, width: int) -> str:
        """Return a bar from the left, ``fill`` 0 to 1 of ``width`` characters."""
        eighths = round(min(1.0, max(0.0, fill)) * width * 8)
        whole, rest = divmod(eighths, 8)
        part = self.rightward[rest] if whole < width else ""
        return (self.rightward[8] * whole + part).ljust(width)


def level_row(glyphs: Glyphs, name: str, rms_db: float, peak_db: float, width: int) -> Row:
    """One channel's level: a bar for its root mean square and a mark at its peak."""
    space = max(4, width - len(name) - 10)
    bar = glyphs.bar(1.0 - rms_db / _LEVEL_FLOOR_DB, space)
    at = round((1.0 - max(peak_db, _LEVEL_FLOOR_DB) / _LEVEL_FLOOR_DB) * (space - 1))
    at = min(space - 1, max(0, at))
    style = "bad" if peak_db >= -0.1 else "warn" if peak_db >= -3.0 else "good"
    figure = f"{peak_db:6.1f} dB" if peak_db > -100.0 else "  quiet  "
    return [
        (f"{name} ", "dim"),
        (bar[:at], style),
        (glyphs.peak, style),
        (bar[at + 1 :], style),
        (figure, "plain"),
    ]


def spectrum_rows(
    glyphs: Glyphs,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    rows: int,
) -> list[Row]:
    """Band levels in dBFS, top row first: the input's, and above it what the engine added."""
    lower, upper = (_heights(levels, rows) for levels in (before, after))
    picture = []
    for row in range(rows - 1, -1, -1):
        line: Row = []
        for first, second in zip(lower, upper, strict=True):
            _append(line, *_cell(glyphs, first - 8 * row, second - 8 * row))
        picture.append(line)
    return picture


def _heights(levels: NDArray[np.float32], rows: int) -> list[int]:
    span = _SPECTRUM_TOP_DB - _SPECTRUM_FLOOR_DB
    share = (np.nan_to_num(levels, nan=-200.0) - _SPECTRUM_FLOOR_DB) / span
    heights: list[int] = np.rint(np.clip(share, 0.0, 1.0) * rows * 8).astype(int).tolist()
    return heights


def _cell(glyphs: Glyphs, before: int, after: int) -> tuple[str, str]:
    before, after = min(8, max(0, before)), min(8, max(0, after))
    if before >= after:
        return glyphs.upward[before], "input"
    if before and after == 8:
        return glyphs.upward[before], "input on added"
    return glyphs.upward[after], "added"


def _append(row: Row, text: str, style: str) -> None:
    """Neighbours of one style become one piece: each costs an escape sequence."""
    if row and (row[-1][1] == style or text == " "):
        row[-1] = (row[-1][0] + text, row[-1][1])
    else:
        row.append((text, style))


def band_of(hz: float, bands: int, top_hz: float = FULL_BAND_HZ) -> int:
    """Return the column of a spectrum up to `top_hz` in which a frequency lies."""
    share = math.log(max(hz, LOWEST_BAND_HZ) / LOWEST_BAND_HZ)
    share /= math.log(top_hz / LOWEST_BAND_HZ)
    return min(bands - 1, int(share * bands))


def frequency_row(
    glyphs: Glyphs, bands: int, cutoff_hz: float, top_hz: float = FULL_BAND_HZ
) -> Row:
    """Return the frequencies under a spectrum, with a mark where the input's content ends."""
    labels = [
        (band_of(hz, bands, top_hz), f"{hz // 1000}k" if hz >= 1000 else str(hz))
        for hz in _TICKS_HZ
        if hz < top_hz
    ]
    mark = band_of(cutoff_hz, bands, top_hz)
    labels = [(at, text) for at, text in labels if not at - 1 <= mark <= at + len(text)]
    line = list(_ruler(labels, bands))
    line[mark] = glyphs.cutoff
    text = "".join(line)
    return [(text[:mark], "dim"), (text[mark], "warn"), (text[mark + 1 :], "dim")]


def colour_row(glyphs: Glyphs, colour: ColourState) -> Row:
    """Say how much is known and used of a colour, and draw the gains of its bands."""
    row: Row = [(colour.in_words(), "plain")]
    if colour.gains_db:
        span = 2.0 * MAX_GAIN_DB
        heights = [round(8.0 * (gain / span + 0.5)) for gain in colour.gains_db]
        low, high = colour.bands_hz[0] / 1000.0, colour.bands_hz[-1] / 1000.0
        bars = "".join(glyphs.upward[max(1, height)] for height in heights)
        # One piece, so that bars and their ends stay on one line.
        row.append((f"  {low:.0f}k {bars} {high:.0f}k", "added"))
        row.append((f"  {min(colour.gains_db):+.1f} to {max(colour.gains_db):+.1f} dB", "plain"))
    return row


def step_rows(
    glyphs: Glyphs, histogram: NDArray[np.int64], columns: int, bin_ms: float, budget_ms: float
) -> list[Row]:
    """Return a histogram of step times and its axis in ms; beyond the budget in another style."""
    edges = _step_edges(len(histogram), columns, bin_ms)
    counts = np.add.reduceat(histogram, edges)
    # One stall among a million steps is what people hear, so it must be seen.
    share = np.log1p(counts) / max(1e-9, math.log1p(int(counts.max())))
    # The two logarithms may differ in the last bit.
    heights = np.minimum(8, np.ceil(share * 8)).astype(int).tolist()
    late = int(np.searchsorted(edges * bin_ms, budget_ms))
    bars = "".join(glyphs.upward[height] for height in heights)
    labels = [
        (max(0, int(np.searchsorted(edges * bin_ms, at, side="right")) - 1), f"{at:g}")
        for at in _TICKS_MS
    ]
    axis = _ruler(labels, len(edges))
    return [[(bars[:late], "good"), (bars[late:], "bad")], [(axis, "dim")]]


def _step_edges(bins: int, columns: int, bin_ms: float) -> NDArray[np.intp]:
    edges = np.geomspace(_FIRST_STEP_MS / bin_ms, bins, columns + 1)[:-1]
    whole = np.unique(np.rint(edges).astype(np.intp))
    whole[0] = 0
    return whole


def _ruler(labels: list[tuple[int, str]], width: int) -> str:
    """Labels at columns; one that would touch its left neighbour or the end is left out."""
    line = ""
    for column, label in labels:
        if (not line or column > len(line)) and column + len(label) <= width:
            line = line.ljust(column) + label
    return line.ljust(width)

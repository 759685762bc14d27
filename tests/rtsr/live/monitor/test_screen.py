"""What the screen shows of a session, at every size, and what showing it costs."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from rich.segment import Segment

from rtsr import AutoColour, Colour
from rtsr.live.controls.board import ControlBoard
from rtsr.live.controls.keyboard import KeyControls
from rtsr.live.monitor.colour_state import ColourMonitor, ColourState
from rtsr.live.monitor.drawing import (
    Glyphs,
    band_of,
    frequency_row,
    level_row,
    spectrum_rows,
    step_rows,
)
from rtsr.live.monitor.report import STEP_BIN_MS, FallbackChange, LiveSnapshot
from rtsr.live.monitor.screen import LiveScreen, Picture


def _snapshot() -> LiveSnapshot:
    hz = np.geomspace(60, 24000, 65)[:-1]
    after = (-30 - 8 * np.log2(hz / 200 + 0.5)).astype(np.float32)
    histogram = np.zeros(4096, np.int64)
    histogram[60:80] = 500
    histogram[1500] = 1
    return LiveSnapshot(
        seconds=3725.4,
        input_name="Headset",
        output_name="Cable",
        channels=2,
        in_db=(-12.3, -2.0),
        out_db=(-12.0, 0.0),
        in_rms_db=(-22.0, -18.0),
        out_rms_db=(-21.0, -17.0),
        in_spectrum=np.where(hz < 4000, after, -120).astype(np.float32),
        out_spectrum=after,
        latency_ms={"device_input": 2.7, "delay": 16.0, "overlap": 2.5, "device_output": 2.7},
        latency_total_ms=23.9,
        step_histogram=histogram,
        step_p50_ms=0.67,
        step_p99_ms=1.1,
        step_max_ms=15.0,
        fallback_level="small",
        fallback_levels=("base", "small", "replicate", "dry"),
        fallback_level_changes=(FallbackChange(3713.0, "base", "small", "step time"),),
        underruns=3,
        ahead_ms=6.5,
        cutoff_hz=4000.0,
        controls=ControlBoard().as_dict(),
        cpu_percent=17.4,
        priority="nice -10",
    )


def _text(
    snapshot: LiveSnapshot,
    width: int = 100,
    height: int = 40,
    keys: KeyControls | None = None,
    encoding: str = "utf-8",
) -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
    options = console.options.update(height=height)
    segments = Picture(snapshot, keys).__rich_console__(console, options)
    return "".join(part.text for part in segments if isinstance(part, Segment)).split("\n")


def test_everything_is_there() -> None:
    text = "\n".join(_text(_snapshot()))
    for words in (
        "1:02:05  playing",
        "Headset → Cable  48000 Hz, 128 frames, 2 channels",
        "-12.3 dB",
        "0.0 dB",
        "4.0 kHz",
        "23.9 ms = device input 2.7 + delay 16.0 + overlap 2.5 + device output 2.7",
        "p50 0.67  p99 1.10  max 15.00 ms",
        "12 s ago base → small: step time",
        "under-runs 3",
        "ahead 6.5 ms",
        "CPU 17 %",
        "priority nice -10",
        "24000 Hz",
        "0.00 dB/oct",
        "measured",
    ):
        assert words in text, words
    for name in ControlBoard().names:
        assert name in text
    assert re.search("gate_dbfs +off ", text)


def test_a_fresh_session() -> None:
    text = "\n".join(_text(LiveSnapshot(0.0)))
    assert "0:00:00" in text
    assert "quiet" in text
    assert "ago" not in text


@pytest.mark.parametrize("width", [1, 20, 40, 66, 80, 200])
@pytest.mark.parametrize("height", [1, 10, 24, 60])
def test_any_size(width: int, height: int) -> None:
    for channels in (1, 2, 8):
        levels = (-20.0,) * channels
        snapshot = replace(
            _snapshot(),
            channels=channels,
            in_db=levels,
            out_db=levels,
            in_rms_db=levels,
            out_rms_db=levels,
        )
        lines = _text(snapshot, width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width


_PARTS_MS = {
    "device_input": 2.7,
    "capture_resampler": 0.7,
    "hop": 10.0,
    "allowance": 5.0,
    "overlap": 2.5,
    "look_ahead": 1.3,
    "block": 2.7,
    "scheduling": 2.0,
    "playback_resampler": 0.3,
    "device_output": 5.3,
}


@pytest.mark.parametrize("channels", [1, 2, 4], ids=lambda count: f"{count} channels")
def test_an_ordinary_terminal_shows_every_control(channels: int) -> None:
    levels = (-9.0,) * channels
    snapshot = replace(
        _snapshot(),
        channels=channels,
        in_db=levels,
        in_rms_db=levels,
        out_db=levels,
        out_rms_db=levels,
        latency_ms=_PARTS_MS,
        latency_total_ms=sum(_PARTS_MS.values()),
    )
    lines = _text(snapshot, 80, 24)
    text = "\n".join(lines)
    for name in ControlBoard().names:
        assert name in text, name
    assert "under-runs 3" in text
    assert [line for line in lines if line.startswith("latency")] == [
        "latency    32.5 ms = devices 8.0 + engine 24.5"
    ]


def test_parts_of_the_latency_that_are_nothing_are_left_out() -> None:
    parts = {**_PARTS_MS, "capture_resampler": 0.0, "scheduling": 0.0}
    text = "\n".join(_text(replace(_snapshot(), latency_ms=parts)))
    assert "device input 2.7 + hop 10.0 + allowance 5.0" in text
    assert "scheduling" not in text


def test_terminals_without_block_characters() -> None:
    text = "\n".join(_text(_snapshot(), encoding="ascii"))
    assert text.isascii()
    assert "Headset -> Cable" in text


def _colour(gains_db: np.ndarray) -> Colour:
    return Colour("small", "0" * 64, 12.3, (tuple(gains_db.tolist()),) * 4)


def test_a_colour_is_shown_with_its_bands() -> None:
    assert not any(line.startswith("colour  ") for line in _text(replace(_snapshot(), controls={})))
    state = ColourMonitor(_colour(np.linspace(-12.0, 12.0, 24))).state(4000.0, 0.85)
    for encoding, bars in (("utf-8", "▁▁▁"), ("ascii", "...")):
        lines = _text(replace(_snapshot(), colour=state, controls={}), encoding=encoding)
        (line,) = (line for line in lines if line.startswith("colour"))
        assert "12.3 s learnt, 85 % used  4k " + bars in line
        assert line.rstrip().endswith("24k  -12.0 to +12.0 dB")


def test_an_ordinary_terminal_shows_all_of_colour_and_fallback_levels() -> None:
    state = ColourMonitor(_colour(np.linspace(-12.0, 12.0, 24))).state(4000.0, 0.85)
    levels = ("base+octaves", "base", "small", "replicate", "dry")
    change = FallbackChange(20.0, "base+octaves", "base", "machine overloaded")
    snapshot = replace(
        _snapshot(),
        colour=replace(state, learns=True, skipped_seconds=123.0),
        fallback_levels=levels,
        fallback_level="base",
        fallback_level_changes=(change,),
    )
    text = "\n".join(_text(snapshot, 80, 40))
    assert "12.3 s learnt, 123 s skipped, 85 % used" in text
    assert "  4k ▁" in text
    assert "24k  -12.0 to +12.0 dB" in text
    for level in levels:
        assert f" {level} " in text
    assert "ago base+octaves → base: machine overloaded" in text


@pytest.mark.parametrize(
    ("cutoff_hz", "first_hz"), [(4000.0, 4000.0), (8000.0, 7831.9), (24000.0, 4000.0)]
)
def test_the_bands_of_a_colour_are_those_above_the_cutoff(
    cutoff_hz: float, first_hz: float
) -> None:
    state = ColourMonitor(_colour(np.arange(24.0) / 2.0)).state(cutoff_hz, 1.0)
    assert state.bands_hz[0] == pytest.approx(first_hz, abs=1.0)
    assert state.bands_hz[-1] == 24000.0
    assert len(state.gains_db) == len(state.bands_hz) - 1
    assert state.gains_db[-1] == 11.5


def test_a_colour_that_is_still_to_be_learnt() -> None:
    state = ColourMonitor(AutoColour()).state(24000.0, 0.0)
    assert state == ColourState(True, 0.0, 0.0, 0.0, 0.0, (), ())
    lines = _text(replace(_snapshot(), colour=state, controls={}))
    assert any("nothing learnt yet" in line for line in lines)


def test_the_keys_are_shown_when_asked_for() -> None:
    keys = KeyControls(ControlBoard(), lambda: None)
    assert "bypass on or off" not in "\n".join(_text(_snapshot(), keys=keys))
    keys.press("?")
    assert "bypass on or off" in "\n".join(_text(_snapshot(), keys=keys))


def test_levels() -> None:
    glyphs = Glyphs()

    def bar(rms: float, peak: float) -> str:
        return "".join(text for text, _ in level_row(glyphs, "in", rms, peak, 33)[1:4])

    assert bar(-60.0, -60.0) == "│" + " " * 20
    assert bar(0.0, 0.0) == "█" * 20 + "│"
    assert bar(-30.0, -15.0) == "█" * 10 + "▌" + " " * 4 + "│" + " " * 5
    assert bar(5.0, 9.0) == bar(0.0, 0.0)
    assert len(bar(-200.0, -200.0)) == 21


def test_spectrum_heights() -> None:
    before = np.array([-120.0, -96.0, -54.0, -12.0, 0.0, np.nan, -54.0], np.float32)
    after = np.array([-120.0, -54.0, -54.0, -12.0, 0.0, -12.0, -12.0], np.float32)
    rows = spectrum_rows(Glyphs(), before, after, 2)
    text = ["".join(piece for piece, _ in row) for row in rows]
    assert text == ["   ████", " ██████"]
    styles = ["".join(style[0] * len(piece) for piece, style in row) for row in rows]
    # Input up to its level, above it what was added; empty cells have the style of a neighbour.
    assert styles[0][3:] == "iiaa"
    assert styles[1][1:] == "aiiiai"


def test_frequencies() -> None:
    assert band_of(60.0, 64) == 0
    assert band_of(24000.0, 64) == 63
    assert band_of(1200.0, 64) == 32
    assert band_of(0.0, 64) == 0
    line = "".join(text for text, _ in frequency_row(Glyphs(), 64, 5500.0))
    assert len(line) == 64
    assert line.index("▲") == band_of(5500.0, 64)
    assert line.index("1k") == band_of(1000.0, 64)
    assert re.findall(r"\w+", line) == ["100", "200", "500", "1k", "2k", "4k", "8k", "16k"]


def test_step_histogram() -> None:
    late = np.zeros(4096, np.int64)
    late[[50, 1200]] = [100000, 1]
    bars, axis = step_rows(Glyphs(), late, 40, STEP_BIN_MS, 10.0)
    assert [len("".join(text for text, _ in row)) for row in (bars, axis)] == [40, 40]
    (in_time, good), (too_late, bad) = bars
    assert (good, bad) == ("good", "bad")
    # One late step among a hundred thousand is seen.
    assert in_time.strip() == "█"
    assert too_late.strip() == "▁"


def _terminal() -> Console:
    return Console(
        file=io.StringIO(), width=100, height=40, force_terminal=True, color_system="256"
    )


def test_the_terminal_is_left_as_it_was() -> None:
    console = _terminal()
    with LiveScreen(console=console) as screen:
        screen.show(_snapshot())
    screen.show(_snapshot())
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert printed.count("\x1b[?1049h") == printed.count("\x1b[?1049l") == 1
    assert printed.rindex("\x1b[?25h") > printed.rindex("\x1b[?25l")


def test_what_is_drawn_on_a_low_terminal_has_every_control() -> None:
    state = ColourMonitor(_colour(np.linspace(-12.0, 12.0, 24))).state(4000.0, 0.85)
    snapshot = replace(_snapshot(), colour=state, latency_ms=_PARTS_MS)
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    with LiveScreen(console=console) as screen:
        screen.notice("move the knob for wet")
        screen.show(snapshot)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for name in ControlBoard().names:
        assert name in printed, name
    assert "= devices 8.0 + engine 24.5" in printed


def test_a_notice_stays_until_the_next() -> None:
    console = _terminal()
    with LiveScreen(console=console) as screen:
        screen.notice("move the knob for wet")
        screen.show(_snapshot())
        screen.notice("CC 21 is wet now")
        screen.show(_snapshot())
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert printed.count("move the knob for wet") == printed.count("CC 21 is wet now") == 1


def test_no_terminal_no_screen() -> None:
    console = Console(file=io.StringIO())
    with LiveScreen(console=console) as screen:
        assert not screen.usable
        screen.show(_snapshot())
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_picture_costs_little() -> None:
    snapshot = _snapshot()
    with LiveScreen(console=_terminal()) as screen:
        screen.show(snapshot)
        times = []
        for _ in range(30):
            started = time.thread_time()
            screen.show(snapshot)
            times.append(time.thread_time() - started)
    # About 1 ms, that is 1 % of one core at ten pictures a second.
    assert sorted(times)[len(times) // 2] < 0.01


def test_a_terminal_that_is_closed_stops_only_the_screen() -> None:
    console = _terminal()

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    with LiveScreen(console=console) as screen:
        screen.show(_snapshot())
        console.file = Closed()
        screen.show(_snapshot())
        screen.notice("nobody reads this")
        assert not screen.usable

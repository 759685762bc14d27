"""Positions of knobs, picking up, and pads."""

from __future__ import annotations

import pytest

from rtsr.live.controls.board import ControlBoard
from rtsr.live.controls.midi.knob import Knob, position
from rtsr.live.controls.midi.map import Binding, parse_map


def test_positions() -> None:
    assert position(0) == 0.0
    assert position(64) == 0.5
    assert position(127) == 1.0
    assert all(position(value) < position(value + 1) for value in range(127))


@pytest.mark.parametrize(
    ("binding", "values"),
    [
        (Binding("wet", 1), {0: 0.0, 64: 0.5, 127: 1.0}),
        (Binding("level_db", 1, low=-12, high=12), {0: -12.0, 64: 0.0, 127: 12.0}),
        (Binding("wet", 1, low=1, high=0.5), {0: 1.0, 64: 0.75, 127: 0.5}),
        (Binding("ceiling_hz", 1), {0: 8000.0, 64: (8000 * 24000) ** 0.5, 127: 24000.0}),
        (Binding("bypass", 1), {0: 0.0, 63: 0.0, 64: 1.0, 127: 1.0}),
        (Binding("bypass", 1, low=1, high=0), {0: 1.0, 127: 0.0}),
        (Binding("model", 1), {0: 0.0, 31: 0.0, 33: 1.0, 65: 2.0, 127: 3.0}),
        (Binding("seed", 1, low=0, high=127), {0: 0.0, 64: 64.0, 127: 127.0}),
    ],
)
def test_values(binding: Binding, values: dict[int, float]) -> None:
    board = ControlBoard()
    knob = Knob(binding, board)
    for sent, expected in values.items():
        assert knob.turned(sent) == pytest.approx(expected, rel=1e-12)
        assert board.get(binding.name) == pytest.approx(expected, rel=1e-12)


def test_pickup_waits_for_the_present_value() -> None:
    board = ControlBoard()
    board.set("wet", 0.5)
    knob = Knob(Binding("wet", 1, pickup=True), board)
    assert [knob.turned(value) for value in (10, 20, 60)] == [None, None, None]
    assert knob.turned(63) == pytest.approx(position(63))
    assert knob.turned(100) == pytest.approx(position(100))
    # A key moves the control; the knob has to come back to it, this time past it in one step.
    board.set("wet", 0.2)
    assert knob.turned(90) is None
    assert board.get("wet") == 0.2
    assert knob.turned(10) == pytest.approx(position(10))


def test_pickup_of_a_value_beyond_the_knobs_range() -> None:
    board = ControlBoard()
    knob = Knob(Binding("ceiling_hz", 1, low=10000, high=20000, pickup=True), board)
    assert knob.turned(64) is None
    assert board.get("ceiling_hz") == 24000.0
    assert knob.turned(127) == pytest.approx(20000.0)
    assert knob.turned(0) == pytest.approx(10000.0)


@pytest.mark.parametrize("top_hz", [24000.0, 48000.0, 96000.0])
@pytest.mark.parametrize("high", ["", "high = 96000"])
def test_a_knob_turns_the_ceiling_as_far_as_the_session_goes(top_hz: float, high: str) -> None:
    board = ControlBoard(top_hz=top_hz)
    midi_map = parse_map(f'[[control]]\nname = "ceiling_hz"\ncc = 1\n{high}\n', "map")
    knob = Knob(midi_map.bindings[0], board)
    assert knob.turned(0) == 8000.0
    assert knob.turned(127) == top_hz


def test_pads_toggle_when_pressed() -> None:
    board = ControlBoard()
    pad = Knob(Binding("bypass", 1, toggle=True), board)
    assert [pad.turned(value) for value in (127, 0, 127, 0, 90)] == [1.0, None, 0.0, None, 1.0]


def test_pads_go_round_the_levels_that_is_there() -> None:
    board = ControlBoard(fallback_levels=("small", "replicate", "dry"))
    pad = Knob(Binding("model", 1, toggle=True), board)
    assert [pad.turned(127) for _ in range(4)] == [1.0, 2.0, 0.0, 1.0]
    # A map written where there were more levels.
    assert Knob(Binding("model", 1, high=3), board).turned(127) == 2.0
    limited = Knob(Binding("model", 1, low=1, high=2, toggle=True), board)
    assert [limited.turned(127) for _ in range(3)] == [1.0, 2.0, 1.0]

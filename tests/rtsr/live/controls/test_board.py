"""The table of controls, the board that holds them, and the way the sound follows them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rtsr.errors import ArgumentError
from rtsr.live.controls.board import CONTROLS, FALLBACK_LEVELS, ControlBoard, find_control
from rtsr.live.controls.smoothing import SmoothedControls

NAMES = [control.name for control in CONTROLS]


@pytest.fixture
def board() -> ControlBoard:
    return ControlBoard()


@pytest.mark.parametrize("control", CONTROLS, ids=NAMES)
def test_default_lies_in_its_range_and_is_where_a_board_starts(control, board):
    assert control.low <= control.default <= control.high
    assert board.get(control.name) == control.default
    assert control.help
    assert "\n" not in control.help


@pytest.mark.parametrize("control", CONTROLS, ids=NAMES)
def test_both_ends_of_a_knob_reach_both_ends_of_the_range(control, board):
    assert board.from_unit(control.name, 0.0) == control.low
    assert board.from_unit(control.name, 1.0) == control.high
    assert board.from_unit(control.name, -3.0) == control.low
    assert board.from_unit(control.name, 9.0) == control.high


@pytest.mark.parametrize("control", CONTROLS, ids=NAMES)
@pytest.mark.parametrize("position", [0.0, 0.2, 0.5, 0.77, 1.0])
def test_position_of_a_value_leads_back_to_the_value(control, position, board):
    value = board.from_unit(control.name, position)
    at = board.unit(control.name)
    assert 0.0 <= at <= 1.0
    assert board.from_unit(control.name, at) == pytest.approx(value)


def test_log_control_goes_in_equal_ratios(board):
    middle = board.from_unit("ceiling_hz", 0.5)
    assert middle == pytest.approx(math.sqrt(8000.0 * 24000.0))


def test_choice_takes_equal_parts_of_a_knob(board):
    positions = np.linspace(0.0, 1.0, 128)
    chosen = [board.from_unit("model", float(position)) for position in positions]
    assert np.bincount(np.array(chosen, int)).tolist() == [32, 32, 32, 32]


def test_knob_may_be_given_a_part_of_the_range_also_backwards(board):
    assert board.from_unit("level_db", 0.25, low=-6.0, high=6.0) == -3.0
    assert board.from_unit("level_db", 1.0, low=6.0, high=-6.0) == -6.0
    assert board.from_unit("bypass", 1.0, low=1.0, high=0.0) == 0.0
    assert board.from_unit("model", 1.0, low=3.0, high=1.0) == 1.0
    with pytest.raises(ArgumentError, match=r"level_db.*-24 to 12 dB"):
        board.from_unit("level_db", 0.5, low=-60.0)


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("wet", 1.01, "0 to 1"),
        ("wet", -0.01, "0 to 1"),
        ("wet", math.nan, "0 to 1"),
        ("wet", "loud", "0 to 1"),
        ("wet", None, "0 to 1"),
        ("tilt_db", 6.5, "-6 to 6 dB/octave"),
        ("ceiling_hz", math.inf, "8000 to 24000 Hz"),
        ("bypass", 0.5, "0 .off. or 1 .on."),
        ("seed", 1.5, "whole numbers from 0 to 4294967295"),
        ("seed", -1, "whole numbers"),
        ("model", "large", "one of base, small, replicate, dry"),
        ("model", 4, "one of base"),
        ("model", -1, "one of base"),
    ],
)
def test_refused_value_is_named_with_what_is_accepted(name, value, accepted, board):
    before = board.as_dict()
    with pytest.raises(ArgumentError, match=f"'{name}' takes {accepted}") as refusal:
        board.set(name, value)
    assert str(refusal.value).count(".") >= 1
    assert "\n" not in str(refusal.value)
    assert board.as_dict() == before


@pytest.mark.parametrize("call", ["get", "set", "from_unit", "unit", "limits"])
def test_unknown_control_is_refused_with_the_known_ones(call, board):
    arguments = ("volume", 0.5) if call in ("set", "from_unit") else ("volume",)
    with pytest.raises(ArgumentError, match="'volume'; there are wet, level_db"):
        getattr(board, call)(*arguments)
    with pytest.raises(ArgumentError, match="'volume'"):
        find_control("volume")


def test_switch_and_numpy_values_are_taken(board):
    assert board.set("bypass", True) == 1.0
    assert board.set("bypass", np.False_) == 0.0
    assert board.set("wet", np.float32(0.5)) == 0.5
    assert board.set("seed", np.int64(7)) == 7.0


def test_model_is_chosen_by_name_or_index():
    board = ControlBoard(fallback_levels=("small", "replicate", "dry"))
    assert board.highest_level == "small"
    assert board.set("model", "replicate") == 1.0
    assert board.highest_level == "replicate"
    assert board.limits("model") == (0.0, 2.0)
    # A MIDI map written for the full list of fallback levels.
    assert board.set("model", len(FALLBACK_LEVELS) - 1) == 2.0
    assert board.highest_level == "dry"


def test_the_ceiling_reaches_as_far_as_what_is_played() -> None:
    board = ControlBoard(top_hz=48000.0)
    assert board.get("ceiling_hz") == 48000.0
    assert board.limits("ceiling_hz") == (8000.0, 48000.0)
    assert board.set("ceiling_hz", 30000.0) == 30000.0
    assert board.from_unit("ceiling_hz", 1.0) == 48000.0
    with pytest.raises(ArgumentError, match="8000 to 48000 Hz, not 48001"):
        board.set("ceiling_hz", 48001.0)
    board.reset()
    assert board.as_dict() == {name: board.default(name) for name in board.names}
    assert board.default("ceiling_hz") == 48000.0


def test_boards_on_one_array_see_the_same_and_attaching_changes_nothing():
    memory = np.zeros(16)
    parent = ControlBoard(memory)
    parent.reset()
    parent.set("wet", 0.25)
    worker = ControlBoard(memory)
    assert worker.get("wet") == 0.25
    parent.set("tilt_db", -2.0)
    assert worker.as_dict() == parent.as_dict()
    assert not memory[len(CONTROLS) :].any()


@pytest.mark.parametrize(
    "array",
    [np.zeros(len(CONTROLS) - 1), np.zeros((2, len(CONTROLS))), np.zeros(16, np.float32)],
    ids=["too short", "two dimensions", "float32"],
)
def test_unfit_array_is_refused(array):
    with pytest.raises(ArgumentError, match=f"needs {len(CONTROLS)} float64 values"):
        ControlBoard(array)


def test_empty_levels_is_refused():
    with pytest.raises(ArgumentError, match="must not be empty"):
        ControlBoard(fallback_levels=())


def board_follower(board: ControlBoard) -> SmoothedControls:
    follower = SmoothedControls(board)
    follower.advance()
    return follower


def test_first_hop_takes_the_values_as_they_are(board):
    board.set("wet", 0.3)
    board.set("ceiling_hz", 9000.0)
    assert SmoothedControls(board).advance() == board.array.tolist()


@pytest.mark.parametrize("control", CONTROLS, ids=NAMES)
def test_change_arrives_exactly_and_in_the_time_the_table_says(control, board):
    follower = board_follower(board)
    target = board.from_unit(control.name, 0.9 if control.default == control.low else 0.1)
    hops = max(1, round(control.smoothing_ms / 10.0))
    values = [follower.advance()[NAMES.index(control.name)] for _ in range(hops + 2)]
    assert values[hops - 1 :] == [target] * 3
    if hops > 1:
        way = np.diff([control.default, *values[:hops]])
        assert (np.sign(way) == np.sign(target - control.default)).all()


def test_log_control_glides_in_equal_ratios_and_the_level_in_equal_steps(board):
    follower = board_follower(board)
    board.set("ceiling_hz", 8000.0)
    board.set("level_db", -12.0)
    values = np.array([list(follower.advance()) for _ in range(4)])
    ceiling = np.array([24000.0, *values[:, NAMES.index("ceiling_hz")]])
    assert ceiling[1:] / ceiling[:-1] == pytest.approx(np.full(4, 3.0**-0.25))
    assert values[:2, NAMES.index("level_db")].tolist() == [-6.0, -12.0]


def test_knob_that_turns_on_while_it_is_followed_is_followed_on(board):
    follower = board_follower(board)
    heard = []
    for value in (0.5, 0.2, 0.2, 0.2):
        board.set("wet", value)
        heard.append(follower.advance()[0])
    assert heard == pytest.approx([0.75, 0.475, 0.2, 0.2])
    assert heard[-1] == 0.2

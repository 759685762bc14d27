"""MIDI maps: what they mean, what is refused and where, and what learning leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtsr.errors import RtsrError
from rtsr.live.controls.board import CONTROLS
from rtsr.live.controls.midi.map import (
    Binding,
    MidiMap,
    default_map_path,
    load_map,
    parse_map,
    save_map,
)

EXAMPLE = Path(__file__).parents[5] / "examples" / "midi-map.toml"

COMMENTED = """\
# my desk

[[control]]   # first knob
name = "wet"  # how much
cc = 21       # leftmost
pickup = true

# the fader
[[control]]
name = "level_db"
channel = 2
cc = 7
low = -12
high = 0.5

# last words
"""


def test_the_example_binds_every_control() -> None:
    bindings = load_map(EXAMPLE).bindings
    assert {binding.name for binding in bindings} == {control.name for control in CONTROLS}
    # And each to a knob of its own.
    assert len({binding.cc for binding in bindings}) == len(bindings)


def test_all_keys() -> None:
    wet, level = parse_map(COMMENTED, "map").bindings
    assert wet == Binding("wet", 21, pickup=True)
    assert level == Binding("level_db", 7, channel=2, low=-12.0, high=0.5)
    assert wet.is_moved_by(1, 21)
    assert wet.is_moved_by(16, 21)
    assert not wet.is_moved_by(1, 22)
    assert level.is_moved_by(2, 7)
    assert not level.is_moved_by(1, 7)


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "control = []\n"])
def test_a_map_may_be_empty(text: str) -> None:
    assert parse_map(text, "map").bindings == ()


_HEAD = '[[control]]\nname = "wet"\ncc = 3\n'


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("[[control]\n", 1, 10, "]]"),
        ('[[control]]\nname = "wet\ncc = 1\n', 2, 12, ""),
        (_HEAD + "cc = 4\n", 4, 7, "overwrite"),
        (_HEAD + "low = = 2\n", 4, 7, "value"),
        (_HEAD + "low =", 4, 6, "value"),
        ('[[control]]\nname = "wett"\ncc = 1\n', 2, 8, "no control 'wett'"),
        ('[[control]]\n  name = "wet"\n  cc = 200\n', 3, 8, "cc is 200"),
        (_HEAD + "channel = 0\n", 4, 11, "channel is 0"),
        (_HEAD + "channel=17\n", 4, 9, "channel is 17"),
        (_HEAD + "low = -0.1\n", 4, 7, "wet goes from 0 to 1"),
        ('[[control]]\nname = "ceiling_hz"\ncc = 3\nhigh = 96001\n', 4, 8, "8000 to 96000"),
        (_HEAD + "high = nan\n", 4, 8, "wet goes from 0 to 1"),
        ('[[control]]\nname = "model"\ncc = 3\nlow = 0.5\n', 4, 7, "model takes whole numbers"),
        ('[[control]]\nname = "bypass"\ncc = 3\nhigh = 0.6\n', 4, 8, "bypass takes whole numbers"),
        ('[[control]]\nname = "seed"\ncc = 3\nhigh = 2.5\n', 4, 8, "seed takes whole numbers"),
        (_HEAD + "high = true\n", 4, 8, "must be a number"),
        (_HEAD + 'pickup = "yes"\n', 4, 10, "true or false"),
        (_HEAD + "toggle = true\n", 4, 10, "toggle is for bypass and model"),
        (_HEAD + "\n  chanel = 3\n", 5, 3, "unknown key 'chanel'"),
        (_HEAD + "low.value = 3\n", 4, 13, "low is"),
        ('# map\n\n[[control]]\nname = "wet"\n', 3, 1, "no cc"),
        (" [[control]]\ncc = 3\n", 1, 2, "no name"),
        ("[[control]]\nname = 'wet'\ncc = 2.5\n", 3, 6, "whole number"),
        ("[[control]]\nname = 'wet'\ncc = true\n", 3, 6, "whole number"),
        (_HEAD + "[[control]]\nname = 'wet'\ncc = 3\nchannel = 5\n", 6, 6, "moves wet already"),
        ("title = 'desk'\n", 1, 1, "only [[control]] tables"),
        ("# x\n [knobs]\n", 2, 2, "only [[control]] tables"),
        ("[control]\nname = 'wet'\n", 1, 1, "under a line [[control]]"),
        ("control = 3\n", 1, 1, "under a line [[control]]"),
        ("control = [{name = 'wet'}]\n", 1, 1, "no cc"),
    ],
)
def test_errors_say_where(text: str, line: int, column: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(RtsrError) as caught:
        load_map(path)
    message = str(caught.value)
    assert message.startswith(f"MIDI map '{path}', line {line}, column {column}: "), message
    assert words in message
    assert message.endswith(".")
    assert "\n" not in message


def test_a_file_that_is_no_map(tmp_path: Path) -> None:
    with pytest.raises(RtsrError, match=r"Cannot read the MIDI map .*No such file"):
        load_map(tmp_path / "none.toml")
    with pytest.raises(RtsrError, match="directory"):
        load_map(tmp_path)
    binary = tmp_path / "knobs.bin"
    binary.write_bytes(b"\xff\x00\x81")
    with pytest.raises(RtsrError, match="not a text file"):
        load_map(binary)


def test_editors_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_bytes(b"\xef\xbb\xbf" + COMMENTED.replace("\n", "\r\n").encode())
    assert load_map(path) == parse_map(COMMENTED, "map")


def test_learning_changes_only_what_it_must() -> None:
    learned = parse_map(COMMENTED, "map").learned("wet", 3, 50)
    assert learned.text == COMMENTED.replace(
        "cc = 21       # leftmost\npickup = true\n",
        "cc = 50       # leftmost\npickup = true\nchannel = 3\n",
    )
    assert parse_map(learned.text, "map") == learned
    assert learned.bindings[0] == Binding("wet", 50, channel=3, pickup=True)


def test_learning_takes_a_knob_away_from_what_it_moved() -> None:
    learned = parse_map(COMMENTED, "map").learned("level_db", 1, 21)
    assert learned.bindings == (Binding("level_db", 21, channel=1, low=-12.0, high=0.5),)
    assert learned.text == (
        '# my desk\n\n# the fader\n[[control]]\nname = "level_db"\nchannel = 1\ncc = 21\n'
        "low = -12\nhigh = 0.5\n\n# last words\n"
    )


def test_learning_a_new_control() -> None:
    learned = parse_map(COMMENTED, "map").learned("tilt_db", 16, 0)
    assert learned.text == (COMMENTED + '\n[[control]]\nname = "tilt_db"\ncc = 0\nchannel = 16\n')
    assert learned.bindings[2] == Binding("tilt_db", 0, channel=16)
    first = MidiMap().learned("wet", 1, 2)
    assert first.text == '[[control]]\nname = "wet"\ncc = 2\nchannel = 1\n'


def test_learning_where_text_cannot_be_edited() -> None:
    inline = parse_map('control = [{name = "wet", cc = 2, low = 0}]\n', "map")
    learned = inline.learned("level_db", 1, 5)
    assert parse_map(learned.text, "map").bindings == (
        Binding("wet", 2, low=0.0),
        Binding("level_db", 5, channel=1),
    )


def test_saved_maps_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "map.toml"
    learned = load_map(EXAMPLE).learned("wet", 4, 99)
    save_map(path, learned)
    assert load_map(path) == learned
    assert load_map(path).text == learned.text
    assert os.listdir(path.parent) == ["map.toml"]


def test_saving_keeps_links_and_modes(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text(COMMENTED)
    real.chmod(0o600)
    link = tmp_path / "link.toml"
    link.symlink_to(real)
    save_map(link, load_map(link).learned("wet", 1, 1))
    assert link.is_symlink()
    assert load_map(real).bindings[0].cc == 1
    assert real.stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_the_old_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "map.toml"
    path.write_text(COMMENTED)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RtsrError, match=r"Cannot write the MIDI map .*No space left"):
        save_map(path, MidiMap().learned("wet", 1, 1))
    assert path.read_text() == COMMENTED
    assert os.listdir(tmp_path) == ["map.toml"]
    blocked = tmp_path / "map.toml" / "map.toml"
    with pytest.raises(RtsrError, match="Cannot write the MIDI map"):
        save_map(blocked, MidiMap())


def test_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_map_path() == tmp_path / "rtsr" / "midi-map.toml"

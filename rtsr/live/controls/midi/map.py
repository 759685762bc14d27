"""Which knob moves which control: a small TOML file of MIDI control change (CC) numbers.

One table per knob::

    [[control]]
    name = "wet"        # a control of `rtsr live`
    cc = 21             # control change number, 0 to 119
    channel = 1         # MIDI channel, 1 to 16; any channel if left out
    low = 0.2           # value at the knob's lower end; the control's own if left out
    high = 1.0          # value at its upper end; below `low` turns the knob round
    pickup = true       # nothing moves until the knob has reached the control's present value
    toggle = true       # for a pad: each press flips a switch or takes the next choice
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr.live.controls.board import CONTROLS, widest_limits
from rtsr.live.controls.midi.map_text import MapText
from rtsr.whole_file import write_whole

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# 120 to 127 are channel mode messages (all notes off and the like), which no knob sends.
HIGHEST_CC = 119


@dataclass(frozen=True)
class Binding:
    """One knob, or pad, and the control it moves; the fields are those of the file."""

    name: str
    cc: int
    channel: int | None = None
    low: float | None = None
    high: float | None = None
    pickup: bool = False
    toggle: bool = False

    def learnt(self, path: Path) -> str:
        """Say that a knob that was moved now turns this control, and where that is written."""
        return f"CC {self.cc} of channel {self.channel} is {self.name} now; written to '{path}'."

    def is_moved_by(self, channel: int, cc: int) -> bool:
        """Whether a message of MIDI channel 1 to 16 and this CC number is this knob's."""
        return cc == self.cc and self.channel in (None, channel)

    def overlaps(self, channel: int | None, cc: int) -> bool:
        """Whether some message could be both this knob's and that one's."""
        return cc == self.cc and (None in (self.channel, channel) or self.channel == channel)


@dataclass(frozen=True)
class MidiMap:
    """All bindings of a map, in the order of the file, and the text they were read from."""

    bindings: tuple[Binding, ...] = ()
    text: str = field(default="", compare=False)

    def learned(self, name: str, channel: int, cc: int) -> MidiMap:
        """Return a map in which this knob moves this control and no other.

        The control's range and way of moving stay as they were; comments in the text as well.
        """
        before = next((old for old in self.bindings if old.name == name), None)
        bound = replace(before or Binding(name, cc), cc=cc, channel=channel)
        kept: list[Binding] = []
        removed: list[int] = []
        place: int | None = None
        for table, old in enumerate(self.bindings):
            if old is before:
                place = table
                kept.append(bound)
            elif old.name == name or old.overlaps(channel, cc):
                removed.append(table)
            else:
                kept.append(old)
        if before is None:
            kept.append(bound)
        return MidiMap(tuple(kept), self._edited(kept, bound, place, removed))

    def _edited(
        self, kept: list[Binding], bound: Binding, place: int | None, removed: list[int]
    ) -> str:
        """Return the text with as little changed as can be; written anew where that goes wrong."""
        values = _written(bound)
        if place is not None:
            values = {key: values[key] for key in ("cc", "channel")}
        text = MapText(self.text).edited(place, values, removed)
        with contextlib.suppress(RtsrError):
            if parse_map(text, "").bindings == tuple(kept):
                return text
        return "\n".join(MapText.table(_written(binding)) for binding in kept)


def default_map_path() -> Path:
    """Where the map lies if no file is named: the user's configuration folder of this system."""
    if sys.platform == "win32":
        folder = os.environ.get("APPDATA") or "~/AppData/Roaming"
    elif sys.platform == "darwin":
        folder = "~/Library/Application Support"
    else:
        folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "rtsr" / "midi-map.toml"


def load_map(path: Path) -> MidiMap:
    """Read a map; raises RtsrError, with line and column, for what it cannot mean."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RtsrError(f"Cannot read the MIDI map '{path}': {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise RtsrError(
            f"The MIDI map '{path}' is not a text file in UTF-8; see examples/midi-map.toml."
        ) from error
    return parse_map(text.replace("\r\n", "\n"), str(path))


def parse_map(text: str, source: str) -> MidiMap:
    """Turn the text of a map into bindings.

    Args:
        text: TOML.
        source: what the text came from, for messages.

    Raises:
        RtsrError: not TOML, an unknown key or control, a value out of range, or a knob that is
            bound twice to one control; says line and column.
    """
    where = MapText(text)

    def refuse(position: tuple[int, int], problem: str) -> RtsrError:
        line, column = position
        return RtsrError(f"MIDI map '{source}', line {line}, column {column}: {problem}.")

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, position = where.syntax_error(str(error))
        raise refuse(position, problem) from error
    for key in document:
        if key != "control":
            raise refuse(
                where.key(None, key), f"there is {key!r}, but a map holds only [[control]] tables"
            )
    tables = document.get("control", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise refuse(
            where.key(None, "control"), "write each knob as a table under a line [[control]]"
        )
    bindings: list[Binding] = []
    for number, table in enumerate(tables):
        key, problem = _problem(table, bindings)
        if problem:
            at = where.value(number, key) if key in table else where.header(number)
            if key in table and key not in _KEYS:
                at = where.key(number, key)
            raise refuse(at, problem)
        bindings.append(_binding(table))
    return MidiMap(tuple(bindings), text)


def save_map(path: Path, midi_map: MidiMap) -> None:
    """Write a map, whole or not at all; its folder is made if there is none.

    Raises:
        RtsrError: the folder or file cannot be written.
    """
    try:
        Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, midi_map.text)
    except OSError as error:
        raise RtsrError(
            f"Cannot write the MIDI map '{path}': {error.strerror or error}."
        ) from error


_KEYS = tuple(entry.name for entry in fields(Binding))
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "a control's name in quotes"),
    "cc": (int, f"a whole number from 0 to {HIGHEST_CC}"),
    "channel": (int, "a whole number from 1 to 16"),
    "low": ((int, float), "a number"),
    "high": ((int, float), "a number"),
    "pickup": (bool, "true or false"),
    "toggle": (bool, "true or false"),
}


def _problem(table: dict[str, Any], before: Iterable[Binding]) -> tuple[str, str]:
    """Return the key at fault and what is wrong with it; two empty strings if nothing is."""
    for key, value in table.items():
        if key not in _KINDS:
            return key, f"unknown key {key!r}; known ones are {', '.join(_KEYS)}"
        kind, accepted = _KINDS[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return key, f"{key} is {value!r}; it must be {accepted}"
    for key in ("name", "cc"):
        if key not in table:
            return key, f"this [[control]] has no {key}, which must be {_KINDS[key][1]}"
    name = table["name"]
    controls = {control.name: control for control in CONTROLS}
    if name not in controls:
        return "name", f"there is no control {name!r}; there are {', '.join(controls)}"
    if not 0 <= table["cc"] <= HIGHEST_CC:
        return "cc", f"cc is {table['cc']}; it must be {_KINDS['cc'][1]}"
    channel = table.get("channel")
    if channel is not None and not 1 <= channel <= 16:
        return "channel", f"channel is {channel}; it must be {_KINDS['channel'][1]}"
    control = controls[name]
    lowest, highest = widest_limits(name)
    for key in ("low", "high"):
        if key in table and not lowest <= table[key] <= highest:
            return key, f"{key} is {table[key]:g}; {name} goes from {lowest:g} to {highest:g}"
        if key in table and control.takes_whole and table[key] != int(table[key]):
            return key, f"{key} is {table[key]:g}; {name} takes whole numbers"
    if table.get("toggle") and control.kind not in ("switch", "choice"):
        return "toggle", f"{name} has a range, so a knob moves it; toggle is for bypass and model"
    if table.get("toggle") and table.get("pickup"):
        return "pickup", "a pad that toggles has no position to pick up; leave out one of the two"
    if any(old.name == name and old.overlaps(channel, table["cc"]) for old in before):
        return "cc", f"cc {table['cc']} moves {name} already; leave out one of the two"
    return "", ""


def _binding(table: dict[str, Any]) -> Binding:
    values = dict(table)
    for key in ("low", "high"):
        if key in values:
            values[key] = float(values[key])
    return Binding(**values)


def _written(binding: Binding) -> dict[str, Any]:
    """Return the keys that differ from what leaving them out means."""
    values = {key: getattr(binding, key) for key in _KEYS}
    return {key: value for key, value in values.items() if value is not None and value is not False}

"""Keys move the controls of a live session.

The keys are those of :data:`KEYS`; the screen shows them with ``?``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from rtsr.closing import Closing
from rtsr.live.controls.board import CONTROLS, Control, ControlBoard, find_control
from rtsr.live.controls.terminal import open_terminal

KEYS: tuple[tuple[str, str], ...] = (
    ("space b", "bypass on or off: compare with the untouched sound"),
    ("up down", "choose a control"),
    ("left right", "turn it down or up"),
    ("page-down page-up", "turn it down or up in large steps"),
    ("home end", "turn it to its lowest or highest value"),
    ("d", "set it to its default"),
    ("r", "set all to their defaults"),
    ("w W", "less or more of the generated band (wet)"),
    ("l L", "generated band softer or louder (level_db)"),
    ("t T", "generated band darker or brighter (tilt_db)"),
    ("c C", "end of the output lower or higher (ceiling_hz)"),
    ("g G", "silence gate lower or higher (gate_dbfs)"),
    ("f F", "end of the input's content lower or higher (cutoff_hz)"),
    ("o O", "less or more of the colour, where one was given (colour)"),
    ("m M", "next or previous highest model"),
    ("s", "another seed"),
    ("?", "show or hide the keys"),
    ("q", "stop"),
)

_LETTERS = {
    "w": "wet",
    "l": "level_db",
    "t": "tilt_db",
    "c": "ceiling_hz",
    "g": "gate_dbfs",
    "f": "cutoff_hz",
    "o": "colour",
}
_LARGE = 5
# Steps that a range is divided into, before they are made round.
_STEPS = 25
_SEMITONE = 2.0 ** (1.0 / 12.0)


class KeyControls:
    """What each key does; knows no terminal, so keys may come from anywhere.

    Args:
        board: where values are stored.
        on_quit: called when the session is to stop.
    """

    def __init__(self, board: ControlBoard, on_quit: Callable[[], None]) -> None:
        self._board = board
        self._on_quit = on_quit
        self._chosen = 0
        self.show_keys = False

    @property
    def chosen(self) -> str:
        """Name of the control that left and right turn."""
        return CONTROLS[self._chosen].name

    def press(self, key: str) -> bool:
        """Do what a key (a character, or a name of :data:`KEYS`) means; return whether it did."""
        control = CONTROLS[self._chosen]
        if key in ("up", "down"):
            step = -1 if key == "up" else 1
            self._chosen = (self._chosen + step) % len(CONTROLS)
        elif key in ("left", "right"):
            self._turn(control, 1 if key == "right" else -1)
        elif key in ("page-down", "page-up"):
            self._turn(control, _LARGE if key == "page-up" else -_LARGE)
        elif key in ("home", "end"):
            low, high = self._board.limits(control.name)
            self._board.set(control.name, low if key == "home" else high)
        elif key == "d":
            self._board.set(control.name, self._board.default(control.name))
        elif key == "r":
            self._board.reset()
        elif key in (" ", "b"):
            self._turn(find_control("bypass"), 1)
        elif key.lower() in _LETTERS:
            self._turn(find_control(_LETTERS[key.lower()]), 1 if key.isupper() else -1)
        elif key in ("m", "M"):
            self._turn(find_control("model"), 1 if key == "m" else -1)
        elif key == "s":
            self._turn(find_control("seed"), 1)
        elif key == "?":
            self.show_keys = not self.show_keys
        elif key == "q":
            self._on_quit()
        else:
            return False
        return True

    def _turn(self, control: Control, steps: int) -> None:
        low, high = self._board.limits(control.name)
        value = self._board.get(control.name)
        self._board.set(control.name, turned(control.kind, value, steps, low, high))


def turned(kind: str, value: float, steps: int, low: float, high: float) -> float:
    """Return a control's value so many keyboard steps further, within its range.

    Values fall on a grid of round numbers: 1 dB, 0.05, a semitone from the upper end. Switches
    and choices start again after their last value.
    """
    if kind in ("switch", "choice"):
        count = round(high - low) + 1
        return low + (round(value - low) + steps) % count
    if kind == "integer":
        moved = value + steps
    elif kind == "log":
        place = round(math.log(value / high, _SEMITONE)) + steps
        moved = float(round(high * _SEMITONE**place))
    else:
        step = round_step((high - low) / _STEPS)
        # A value between two places moves on to the next one, not past it.
        places = value / step
        nearest = round(places)
        if abs(places - nearest) > 1e-6:
            nearest = math.floor(places) if steps > 0 else math.ceil(places)
        # Without the division's last digits: 0.15, not 0.15000000000000002.
        moved = round((nearest + steps) * step, 6)
    return min(high, max(low, moved))


def round_step(step: float) -> float:
    """Return the closest of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return min((factor * power for factor in (1, 2, 5, 10)), key=lambda near: abs(near - step))


class Keyboard(Closing):
    """Reads keys from the terminal while a session runs, and leaves it as it was.

    Where there is no terminal to read from, or the program runs in its background, nothing is
    read and nothing changed.
    """

    def __init__(self, controls: KeyControls) -> None:
        self.controls = controls
        self._stopping = threading.Event()
        self._terminal = open_terminal()
        self._thread: threading.Thread | None = None
        if self._terminal is not None:
            self._thread = threading.Thread(target=self._listen, name="rtsr-keys", daemon=True)
            self._thread.start()

    @property
    def active(self) -> bool:
        """Whether there is a terminal to read from."""
        return self._terminal is not None

    def close(self) -> None:
        """Stop reading and put the terminal back into its former state."""
        self._stopping.set()
        if self._terminal is not None:
            self._terminal.wake()
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join()
            self._terminal.close()
            self._terminal = None

    def _listen(self) -> None:
        terminal = self._terminal
        while terminal is not None and not self._stopping.is_set():
            for key in terminal.read_keys():
                self.controls.press(key)

"""What can be turned while the sound goes on: one table, one array, one writer.

The array may lie in shared memory. The session writes to it, whatever moved the control (a key, a
MIDI knob, a call), and the worker reads it once per hop. Every value is one aligned 64-bit word,
which all processors that rtsr runs on store whole, so neither side needs a lock.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtsr.arguments import MIN_CUTOFF_HZ
from rtsr.errors import ArgumentError
from rtsr.live.shared.timing import TIMELINE_RATES
from rtsr_kernels.band_limit import FULL_BAND_HZ

__all__ = [
    "CONTROLS",
    "FALLBACK_LEVELS",
    "Control",
    "ControlBoard",
    "find_control",
    "widest_limits",
]

#: The fallback levels that the engine knows, best first. Not every installation has all of them.
FALLBACK_LEVELS = ("base", "small", "replicate", "dry")

_CEILING = "ceiling_hz"

Kind = Literal["linear", "log", "switch", "choice", "integer"]


@dataclass(frozen=True)
class Control:
    """One thing that can be turned.

    Attributes:
        name: as in the API, in MIDI maps and on the command line.
        unit: of its value; empty for a plain number.
        low: the smallest value; ``high`` the largest.
        default: what it stands at until somebody turns it, up to 48 kHz; a board's own
            :meth:`ControlBoard.default` knows what is played.
        kind: how a knob's way is laid over the range. ``log`` in equal ratios, ``switch`` off below
            the middle, ``choice`` an index in equal parts, ``integer`` rounded.
        smoothing_ms: time in which the sound follows a change.
        help: one line for people.
        at_low, at_high: what the smallest and the largest value stand for, where that is no number.
    """

    name: str
    unit: str
    low: float
    high: float
    default: float
    kind: Kind
    smoothing_ms: float
    help: str
    at_low: str = ""
    at_high: str = ""

    @property
    def takes_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.kind in ("switch", "choice", "integer")


CONTROLS = (
    Control("wet", "", 0.0, 1.0, 1.0, "linear", 20.0, "share of the high band that is heard"),
    Control("level_db", "dB", -24.0, 12.0, 0.0, "linear", 20.0, "level of the high band"),
    Control(
        "tilt_db",
        "dB/octave",
        -6.0,
        6.0,
        0.0,
        "linear",
        40.0,
        "slope of the high band above the cutoff: negative is darker, positive brighter",
    ),
    Control(
        _CEILING,
        "Hz",
        8000.0,
        24000.0,
        24000.0,
        "log",
        40.0,
        "where the high band ends; the highest value leaves it to the model",
    ),
    Control(
        "gate_dbfs",
        "dBFS",
        -100.0,
        -30.0,
        -100.0,
        "linear",
        0.0,
        "no high band while the input is quieter than this; -100 is off",
        at_low="off",
    ),
    Control(
        "colour",
        "",
        0.0,
        1.0,
        1.0,
        "linear",
        40.0,
        "how much of the colour is used, where one was given: 0 none, 1 all",
    ),
    Control("bypass", "", 0.0, 1.0, 0.0, "switch", 10.0, "only the dry signal, equally late"),
    Control(
        "model",
        "",
        0.0,
        len(FALLBACK_LEVELS) - 1,
        0.0,
        "choice",
        10.0,
        "highest fallback level to run",
    ),
    Control("seed", "", 0.0, 2.0**32 - 1, 0.0, "integer", 0.0, "of the model's noise"),
    # The engine fades a new cutoff over a hop; one that glides would be a new one in every hop.
    Control(
        "cutoff_hz",
        "Hz",
        MIN_CUTOFF_HZ,
        FULL_BAND_HZ,
        FULL_BAND_HZ,
        "log",
        0.0,
        "where the input's content ends; 24000 has it measured",
        at_high="measured",
    ),
)
"""All controls, in the order in which they lie in a board's array."""

_INDEX = {control.name: index for index, control in enumerate(CONTROLS)}


def find_control(name: str) -> Control:
    """Return the control of that name; raise :class:`ArgumentError` if there is none."""
    if name not in _INDEX:
        raise ArgumentError(f"There is no control {name!r}; there are {', '.join(_INDEX)}.")
    return CONTROLS[_INDEX[name]]


def widest_limits(name: str) -> tuple[float, float]:
    """Smallest and largest value that a control has on any board.

    Raises:
        ArgumentError: no such control.
    """
    control = find_control(name)
    return control.low, TIMELINE_RATES[-1] / 2.0 if name == _CEILING else control.high


class ControlBoard:
    """The values of all controls, in an array of float64.

    Args:
        array: ``(controls,)``, one per entry of :data:`CONTROLS`, or longer, contiguous. It is
            left as it is, since it may be another's, in shared memory: whoever owns it calls
            :meth:`reset` once. ``None`` makes a private one at the defaults.
        fallback_levels: their names, best first, that the control ``model`` chooses from.
        top_hz: half of the rate that is played, which the ceiling reaches up to.

    Raises:
        ArgumentError: the array is too short or of another type, or there is no fallback level.
    """

    __slots__ = (
        "__weakref__",
        "_array",
        "_fallback_levels",
        "_top_hz",
    )

    def __init__(
        self,
        array: NDArray[np.float64] | None = None,
        fallback_levels: Sequence[str] = FALLBACK_LEVELS,
        top_hz: float = FULL_BAND_HZ,
    ) -> None:
        if not fallback_levels:
            raise ArgumentError("Fallback levels must not be empty; 'dry' needs no model.")
        self._fallback_levels = tuple(fallback_levels)
        self._top_hz = float(top_hz)
        own = array is None
        values = np.zeros(len(CONTROLS)) if array is None else array
        if values.ndim != 1 or values.dtype != np.float64 or len(values) < len(CONTROLS):
            raise ArgumentError(
                f"A control board needs {len(CONTROLS)} float64 values in one dimension, "
                f"not {values.dtype} {values.shape}."
            )
        self._array = values[: len(CONTROLS)]
        if own:
            self.reset()

    @property
    def array(self) -> NDArray[np.float64]:
        """The values, in the order of :data:`CONTROLS`."""
        return self._array

    @property
    def fallback_levels(self) -> tuple[str, ...]:
        """Names of the levels that the control ``model`` chooses from, best first."""
        return self._fallback_levels

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all controls."""
        return tuple(_INDEX)

    @property
    def highest_level(self) -> str:
        """Name of the highest fallback level that is wanted, the control ``model`` in words."""
        index = int(self._array[_INDEX["model"]])
        return self._fallback_levels[min(max(index, 0), len(self._fallback_levels) - 1)]

    def limits(self, name: str) -> tuple[float, float]:
        """Smallest and largest value of a control on this board.

        Raises:
            ArgumentError: no such control.
        """
        control = find_control(name)
        if control.kind == "choice":
            return control.low, float(len(self._fallback_levels) - 1)
        return control.low, self._top_hz if name == _CEILING else control.high

    def default(self, name: str) -> float:
        """Value at which a control of this board stands until somebody turns it.

        Raises:
            ArgumentError: no such control.
        """
        # Left open, the ceiling is at the end of what is played.
        return self._top_hz if name == _CEILING else find_control(name).default

    def get(self, name: str) -> float:
        """Value of a control.

        Raises:
            ArgumentError: no such control.
        """
        if name not in _INDEX:
            find_control(name)
        return float(self._array[_INDEX[name]])

    def check(self, name: str, value: float | bool | str) -> float:
        """Return what :meth:`set` would store, and turn nothing.

        Args:
            name: of the control.
            value: as for :meth:`set`.

        Raises:
            ArgumentError: no such control, or a value that it does not take.
        """
        control = find_control(name)
        number = self._number(control, value)
        low, high = self.limits(name)
        # A value that is not a number fails the comparison.
        accepted = low <= number <= max(high, control.high)
        if not accepted or (control.takes_whole and number != math.floor(number)):
            raise ArgumentError(f"Control {name!r} takes {self._accepted(control)}, not {value!r}.")
        # A knob laid out for all levels finds the last one, dry, at the end of a shorter list too.
        return min(number, high)

    def set(self, name: str, value: float | bool | str) -> float:
        """Turn a control; returns the value as it was stored.

        Args:
            name: of the control.
            value: in the control's unit. A switch takes ``True`` and ``False`` too, the model also
                the name of a fallback level; an integer control rounds nothing.

        Raises:
            ArgumentError: no such control, or a value that it does not take.
        """
        number = self.check(name, value)
        self._array[_INDEX[name]] = number
        return number

    def from_unit(
        self, name: str, position: float, low: float | None = None, high: float | None = None
    ) -> float:
        """Turn a control to a knob's position; returns the value.

        Args:
            name: of the control.
            position: 0 to 1; what lies outside is taken for the nearer end.
            low: value at 0 if not the control's own; it may lie above ``high``.
            high: value at 1.

        Raises:
            ArgumentError: no such control, or ``low`` or ``high`` is outside its range.
        """
        control = find_control(name)
        lowest, highest = self.limits(name)
        start = lowest if low is None else float(low)
        stop = highest if high is None else float(high)
        for value in (start, stop):
            if not lowest <= value <= highest:
                raise ArgumentError(
                    f"Control {name!r} takes {self._accepted(control)}, not {value!r}."
                )
        position = min(max(float(position), 0.0), 1.0) if position == position else 0.0
        if control.kind == "log":
            value = start * (stop / start) ** position
        elif control.kind == "switch":
            value = stop if position >= 0.5 else start
        elif control.kind == "choice":
            # Equal parts of the way, and not half a part at both ends as rounding would give.
            way = stop - start
            steps = min(math.floor(position * (abs(way) + 1.0)), abs(way))
            value = start + math.copysign(steps, way)
        else:
            value = start + (stop - start) * position
        if control.kind != "log" and control.kind != "linear":
            value = round(value)
        # The power may miss an end by a rounding error.
        return self.set(name, min(max(value, lowest), highest))

    def unit(self, name: str) -> float:
        """Position 0 to 1 of a knob that :meth:`from_unit` would turn to the present value."""
        control = find_control(name)
        low, high = self.limits(name)
        value = self.get(name)
        if high == low:
            return 0.0
        if control.kind == "log":
            return math.log(value / low) / math.log(high / low)
        if control.kind == "choice":
            return (value - low + 0.5) / (high - low + 1.0)
        return (value - low) / (high - low)

    def reset(self) -> None:
        """Turn everything back to its default."""
        self._array[:] = [self.default(name) for name in _INDEX]

    def as_dict(self) -> dict[str, float]:
        """Name and value of every control."""
        return dict(zip(_INDEX, self._array.tolist(), strict=True))

    def _number(self, control: Control, value: Any) -> float:
        if isinstance(value, str) and control.kind == "choice":
            if value not in self._fallback_levels:
                raise ArgumentError(
                    f"Control {control.name!r} takes {self._accepted(control)}, not {value!r}."
                )
            return float(self._fallback_levels.index(value))
        if isinstance(value, np.bool_):
            value = bool(value)
        if not isinstance(value, numbers.Real):
            raise ArgumentError(
                f"Control {control.name!r} takes {self._accepted(control)}, not {value!r}."
            )
        try:
            return float(value)
        except OverflowError:
            # A whole number beyond all floats.
            return math.inf

    def _accepted(self, control: Control) -> str:
        low, high = self.limits(control.name)
        if control.kind == "switch":
            return "0 (off) or 1 (on)"
        if control.kind == "choice":
            return f"one of {', '.join(self._fallback_levels)} or an index from 0 to {high:.0f}"
        if control.kind == "integer":
            return f"whole numbers from {low:.0f} to {high:.0f}"
        unit = f" {control.unit}" if control.unit else ""
        return f"{low:g} to {high:g}{unit}"

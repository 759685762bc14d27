"""What turning a knob, or pressing a pad, does to the control it is bound to."""

from __future__ import annotations

import math

from rtsr.live.controls.board import ControlBoard, find_control
from rtsr.live.controls.midi.map import Binding

_PRESSED = 64
# Two steps of a knob: it need not hit the very value to pick it up.
_CLOSE = 2.0 / 127.0


def position(value: int) -> float:
    """Return a 7-bit value as 0 to 1, its middle (64, where knobs have their notch) at a half."""
    return value / 128.0 if value <= 64 else 0.5 + (value - 64) / 126.0


class Knob:
    """One binding at work: remembers what its knob did last."""

    def __init__(self, binding: Binding, board: ControlBoard) -> None:
        self.binding = binding
        self._board = board
        # A map may be made for more levels than this installation has.
        lowest, highest = board.limits(binding.name)
        self._low = lowest if binding.low is None else min(binding.low, highest)
        self._high = highest if binding.high is None else min(binding.high, highest)
        self._before: float | None = None
        self._stored: float | None = None

    def turned(self, value: int) -> float | None:
        """Take a control change's value, 0 to 127.

        Returns:
            What was stored on the board, or ``None`` if nothing was.
        """
        name = self.binding.name
        if self.binding.toggle:
            return self._board.set(name, self._next()) if value >= _PRESSED else None
        now = position(value)
        before, self._before = self._before, now
        if self.binding.pickup and not self._picked_up(before, now):
            return None
        self._stored = self._board.from_unit(name, now, self._low, self._high)
        return self._stored

    def _picked_up(self, before: float | None, now: float) -> bool:
        present = self._board.get(self.binding.name)
        if self._stored == present:
            return True
        at = self._position_of(present)
        crossed = before is not None and (before - at) * (now - at) <= 0.0
        return crossed or abs(now - at) <= _CLOSE

    def _position_of(self, value: float) -> float:
        """Where the knob would stand for a value; at its nearer end for one beyond its range."""
        low, high = self._low, self._high
        if low == high:
            return 0.0
        if find_control(self.binding.name).kind == "log":
            at = math.log(value / low) / math.log(high / low)
        else:
            at = (value - low) / (high - low)
        return min(1.0, max(0.0, at))

    def _next(self) -> float:
        lowest, highest = sorted((self._low, self._high))
        following = self._board.get(self.binding.name) + 1.0
        return following if lowest <= following <= highest else lowest

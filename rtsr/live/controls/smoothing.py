"""Controls as the sound follows them: a value that jumps on the board glides in the engine."""

from __future__ import annotations

from rtsr.live.controls.board import CONTROLS, ControlBoard
from rtsr.timing import HOP_MS

__all__ = ["SmoothedControls"]


class SmoothedControls:
    """Reads the board once per hop and goes in equal steps to every new value.

    Values that jump by nature (model, seed) and the gate's threshold, which is no gain, are passed
    on at once. ``log`` controls move in equal ratios.
    """

    def __init__(self, board: ControlBoard) -> None:
        self._array = board.array
        self._hops = [
            max(1, round(control.smoothing_ms / HOP_MS))
            if control.kind in ("linear", "log", "switch")
            else 1
            for control in CONTROLS
        ]
        self._log = [control.kind == "log" for control in CONTROLS]
        self.reset()

    def reset(self) -> None:
        """Let the next call take all values as they are."""
        self._target = self._array.tolist()
        self._value = list(self._target)
        self._left = [0] * len(self._value)
        self._fresh = True

    def advance(self) -> list[float]:
        """Values at the end of the next hop, in the order of :data:`CONTROLS`.

        The next call changes the list.
        """
        read = self._array.tolist()
        if self._fresh:
            self._fresh = False
            self._target = read
            self._value = list(read)
        elif read != self._target:
            for index, value in enumerate(read):
                if value != self._target[index]:
                    self._left[index] = self._hops[index]
            self._target = read
        for index, left in enumerate(self._left):
            if not left:
                continue
            value, target = self._value[index], self._target[index]
            if left == 1:
                self._value[index] = target
            elif self._log[index]:
                self._value[index] = value * (target / value) ** (1.0 / left)
            else:
                self._value[index] = value + (target - value) / left
            self._left[index] = left - 1
        return self._value

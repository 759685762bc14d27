"""The knobs of a call: those of the live engine, on the new band alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ArgumentError
from rtsr.live.controls.board import CONTROLS, ControlBoard
from rtsr.live.worker.tone import SilenceGate, Tone
from rtsr.timing import HOP

__all__ = ["BandControls"]

Audio = NDArray[np.float32]

# All calls share one model; a call's codec tells its cutoff, and its colour is given or learnt.
_LIVE_ALONE = ("model", "cutoff_hz", "colour")
#: What a call has of the live engine's controls.
NAMES = tuple(control.name for control in CONTROLS if control.name not in _LIVE_ALONE)


class BandControls:
    """Shapes the new band of one call by a board of controls.

    Args:
        channels: of the sound.
    """

    __slots__ = (
        "__weakref__",
        "_board",
        "_gate",
        "_tone",
    )

    def __init__(self, channels: int) -> None:
        self._board = ControlBoard()
        self._tone = Tone(channels)
        self._gate = SilenceGate(opening_frames=120)

    @property
    def board(self) -> ControlBoard:
        """What may be turned at any time; controls other than :data:`NAMES` do nothing here."""
        return self._board

    def check(self, name: str, value: float | str) -> float:
        """Return what :meth:`set` would store, and turn nothing.

        Raises:
            ArgumentError: no such control, or a value that it does not take.
        """
        if name not in NAMES:
            raise ArgumentError(
                f"There is no control {name!r} in a call; there are {', '.join(NAMES)}."
            )
        return self._board.check(name, value)

    def set(self, name: str, value: float | str) -> float:
        """Turn a control; returns the value as it was stored.

        Raises:
            ArgumentError: no such control, or a value that it does not take.
        """
        self.check(name, value)
        return self._board.set(name, value)

    def as_dict(self) -> dict[str, float]:
        """Return name and value of every control of a call."""
        return {name: self._board.get(name) for name in NAMES}

    def shape(self, band: Audio, dry: Audio, cutoff_hz: float) -> None:
        """Change the new band ``(samples, channels)`` in place, by the controls' present values.

        Args:
            band: the generated signal, at 48 kHz.
            dry: the sound that it will be added to.
            cutoff_hz: where the slope is anchored.
        """
        get = self._board.get
        level, tilt, ceiling = get("level_db"), get("tilt_db"), get("ceiling_hz")
        gate, around = get("gate_dbfs"), max(500.0, cutoff_hz)
        for start in range(0, len(band), HOP):
            part = band[start : start + HOP]
            self._tone.shape(part, level, tilt, ceiling, around)
            self._gate.apply(part, dry[start : start + HOP], gate)

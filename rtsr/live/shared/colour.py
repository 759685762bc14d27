"""The colour of a session in shared memory: the session writes it, the worker takes it.

A checksum tells the reader that it has seen all of a colour: what is being written meanwhile is
taken at the next look, and nobody waits for anybody.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from rtsr.colour.bands import BANDS, CUTOFFS_HZ
from rtsr.colour.colour import Colour
from rtsr.colour.spectrum import BANDS as SPECTRUM_BANDS

_GAINS = len(CUTOFFS_HZ) * BANDS
# How many were written, seconds of sound, whether there is a spectrum; the gains; the spectrum.
_NUMBER, _SECONDS, _HAS_SPECTRUM, _FIRST_GAIN = range(4)
_FIRST_LEVEL = _FIRST_GAIN + _GAINS
_VALUES = _FIRST_LEVEL + SPECTRUM_BANDS

#: What a colour and its checksum take.
COLOUR_BYTES = 8 * (_VALUES + 1)


class SharedColour:
    """The newest colour of one session; lives in `COLOUR_BYTES` of memory, all zero at first."""

    def __init__(self, buffer: Any) -> None:
        self._values = np.frombuffer(buffer, np.float64, _VALUES)
        self._checksum = np.frombuffer(buffer, np.int64, 1, offset=8 * _VALUES)

    def write(self, colour: Colour) -> None:
        """Give the worker a colour of its own model in place of the one before."""
        values = np.zeros(_VALUES)
        values[_NUMBER] = self._values[_NUMBER] + 1.0
        values[_SECONDS] = colour.seconds
        values[_FIRST_GAIN:_FIRST_LEVEL] = np.ravel(colour.gains_db)
        if colour.spectrum_db is not None:
            values[_HAS_SPECTRUM] = 1.0
            values[_FIRST_LEVEL:] = colour.spectrum_db
        self._values[:] = values
        self._checksum[0] = zlib.crc32(values.tobytes())

    def take(self, taken: float, model: str, weights_sha256: str) -> tuple[float, Colour] | None:
        """Return the colour and its number, or ``None`` if there is none but the one taken last.

        Args:
            taken: number of the colour that this reader took last, 0 at first.
            model: name of the model that it is for.
            weights_sha256: of that model's weights.
        """
        if self._values[_NUMBER] == taken:
            return None
        values = self._values.copy()
        if zlib.crc32(values.tobytes()) != self._checksum[0]:
            return None
        gains = values[_FIRST_GAIN:_FIRST_LEVEL].reshape(-1, BANDS)
        colour = Colour(
            model,
            weights_sha256,
            float(values[_SECONDS]),
            tuple(map(tuple, gains.tolist())),
            tuple(values[_FIRST_LEVEL:].tolist()) if values[_HAS_SPECTRUM] else None,
        )
        return float(values[_NUMBER]), colour

    def release(self) -> None:
        """Let go of the buffer. It is unusable after."""
        del self._values, self._checksum

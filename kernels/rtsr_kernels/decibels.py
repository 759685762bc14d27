"""Levels in dB of many powers side by side; a library's logarithm takes one at a time."""

from __future__ import annotations

import numpy as np
from numba import void
from numpy.typing import NDArray

from .compiled import VECTOR, kernel

_MANTISSA = 0x000F_FFFF_FFFF_FFFF
_ONE = 0x3FF0_0000_0000_0000
#: The bits of ``2.0**52``: an integer in its mantissa is that much more, as a number.
_SHIFT = 0x4330_0000_0000_0000
_SHIFT_AND_BIAS = 2.0**52 + 1023.0
_ROOT = np.sqrt(2.0)
_PER_OCTAVE = 10.0 * np.log10(2.0)
_PER_SERIES = 20.0 / np.log(10.0)


@kernel(void(VECTOR, VECTOR))
def to_decibels(powers: NDArray[np.float64], spare: NDArray[np.float64]) -> None:
    """Replace each power by ``10 log10(power)``, to 1e-12 dB.

    The exponent gives the octaves, the mantissa ``m`` in ``sqrt(1/2)`` to ``sqrt(2)`` the rest by
    ``ln m = 2 artanh((m - 1) / (m + 1))`` (Abramowitz and Stegun, 4.1.27).

    Args:
        powers: positive normal numbers.
        spare: scratch memory of the same length.
    """
    if spare.shape[0] < powers.shape[0]:
        raise ValueError("to_decibels: the scratch memory is too short")
    bits, mantissas = powers.view(np.int64), spare.view(np.int64)
    for k in range(powers.shape[0]):
        here = bits[k]
        mantissas[k] = (here & _MANTISSA) | _ONE
        bits[k] = (here >> 52) | _SHIFT
    for k in range(powers.shape[0]):
        mantissa = spare[k]
        octaves = powers[k] - _SHIFT_AND_BIAS
        is_upper = mantissa > _ROOT
        mantissa = 0.5 * mantissa if is_upper else mantissa
        octaves = octaves + 1.0 if is_upper else octaves
        share = (mantissa - 1.0) / (mantissa + 1.0)
        square = share * share
        series = 1.0 / 15.0
        series = series * square + 1.0 / 13.0
        series = series * square + 1.0 / 11.0
        series = series * square + 1.0 / 9.0
        series = series * square + 1.0 / 7.0
        series = series * square + 1.0 / 5.0
        series = series * square + 1.0 / 3.0
        series = series * square + 1.0
        powers[k] = _PER_OCTAVE * octaves + _PER_SERIES * share * series

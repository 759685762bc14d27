"""Power spectra of many unrelated signals side by side, one in each lane of vector registers.

Signals stand in the columns of arrays ``(rows, LANES)``. Their rows are vectors here: written as a
loop over the lanes, each butterfly would begin with thirty comparisons to see that its eight rows
do not overlap, which take as long as the butterfly itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import float32, int64, types, void
from numba.extending import intrinsic

from .compiled import SAMPLES_IN, kernel

#: Signals that stand side by side.
LANES = 32
#: Rows of all lanes that are taken through the first stages while they are in the nearest cache.
_BLOCK_ROWS = 64

_ROWS = types.Array(float32, 2, "C")
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_FLOAT_BYTES = 4


class _Complex(NamedTuple):
    """Real and imaginary part, both vectors, while code is generated."""

    real: Any
    imaginary: Any


class _Rows:
    """Generate code that reads and writes whole rows of arrays ``(rows, LANES)``."""

    def __init__(self, context: Any, builder: Any, types_: Any, arrays: Any) -> None:
        self._builder = builder
        self._data = [
            context.make_array(type_)(context, builder, array).data
            for type_, array in zip(types_, arrays, strict=True)
        ]

    def _pointer(self, array: int, row: Any) -> Any:
        builder = self._builder
        start = builder.gep(self._data[array], [builder.mul(row, row.type(LANES))])
        return builder.bitcast(start, _VECTOR.as_pointer())

    def read(self, row: Any) -> _Complex:
        """Read one row of the first two arrays: real and imaginary parts."""
        real, imaginary = (
            self._builder.load(self._pointer(array, row), align=_FLOAT_BYTES) for array in (0, 1)
        )
        return _Complex(real, imaginary)

    def write(self, array: int, row: Any, vector: Any) -> None:
        """Write one row of one array."""
        self._builder.store(vector, self._pointer(array, row), align=_FLOAT_BYTES)

    def spread(self, number: Any) -> Any:
        """Fill a vector with one number."""
        builder = self._builder
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, _INDEX(0))
        lanes = ir.Constant(ir.VectorType(_INDEX, LANES), None)
        return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), lanes)

    def add(self, one: _Complex, other: _Complex) -> _Complex:
        """Add two."""
        fadd = self._builder.fadd
        return _Complex(fadd(one.real, other.real), fadd(one.imaginary, other.imaginary))

    def subtract(self, one: _Complex, other: _Complex) -> _Complex:
        """Subtract the second from the first."""
        fsub = self._builder.fsub
        return _Complex(fsub(one.real, other.real), fsub(one.imaginary, other.imaginary))

    def turn(self, one: _Complex, by: _Complex) -> _Complex:
        """Multiply by a twiddle factor, in the order of operations of `fourier.transform`."""
        builder = self._builder
        return _Complex(
            builder.fsub(
                builder.fmul(by.real, one.real), builder.fmul(by.imaginary, one.imaginary)
            ),
            builder.fadd(
                builder.fmul(by.real, one.imaginary), builder.fmul(by.imaginary, one.real)
            ),
        )

    def power(self, real: Any, imaginary: Any) -> Any:
        """Compute the square of half of a complex number's magnitude."""
        builder = self._builder
        half = ir.Constant(_VECTOR, [0.5] * LANES)
        real, imaginary = builder.fmul(half, real), builder.fmul(half, imaginary)
        return builder.fadd(builder.fmul(real, real), builder.fmul(imaginary, imaginary))


_INDEX = ir.IntType(32)


def _two_stages_of(
    typing_context: Any,
    real: Any,
    imaginary: Any,
    row: Any,
    size: Any,
    cosine: Any,
    sine: Any,
    cosine_even: Any,
    sine_even: Any,
    cosine_odd: Any,
    sine_odd: Any,
) -> Any:
    """Take four rows, `size` apart from `row` on, through the stages of `size` and ``2 * size``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = _Rows(context, builder, signature.args[:2], arguments[:2])
        row, size = arguments[2:4]
        turns = [rows.spread(number) for number in arguments[4:]]
        first, even, odd = (_Complex(*turns[i : i + 2]) for i in (0, 2, 4))
        places = [row]
        for _ in range(3):
            places.append(builder.add(places[-1], size))
        in_0, in_1, in_2, in_3 = (rows.read(place) for place in places)
        turned = rows.turn(in_1, first)
        a, b = rows.add(in_0, turned), rows.subtract(in_0, turned)
        turned = rows.turn(in_3, first)
        c, d = rows.add(in_2, turned), rows.subtract(in_2, turned)
        c, d = rows.turn(c, even), rows.turn(d, odd)
        results = (rows.add(a, c), rows.add(b, d), rows.subtract(a, c), rows.subtract(b, d))
        for place, result in zip(places, results, strict=True):
            rows.write(0, place, result.real)
            rows.write(1, place, result.imaginary)
        return context.get_dummy_value()

    return types.void(_ROWS, _ROWS, int64, int64, *[float32] * 6), generate


def _last_powers_of(
    typing_context: Any,
    real: Any,
    imaginary: Any,
    power: Any,
    low: Any,
    size: Any,
    cosine: Any,
    sine: Any,
    cosine_mirrored: Any,
    sine_mirrored: Any,
    turn_cosine: Any,
    turn_sine: Any,
) -> Any:
    """Fill in the powers of the bins `low`, 1 to ``size - 1``, and ``2 * size - low``.

    What these two need of the last stage, of `size`, is computed here.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = _Rows(context, builder, signature.args[:3], arguments[:3])
        low, size = arguments[3:5]
        turns = [rows.spread(number) for number in arguments[5:]]
        first, mirrored, parting = (_Complex(*turns[i : i + 2]) for i in (0, 2, 4))
        mirror = builder.sub(size, low)
        high = builder.add(size, mirror)
        at_low = rows.add(rows.read(low), rows.turn(rows.read(builder.add(low, size)), first))
        at_high = rows.subtract(rows.read(mirror), rows.turn(rows.read(high), mirrored))
        even = _Complex(
            builder.fadd(at_low.real, at_high.real),
            builder.fsub(at_low.imaginary, at_high.imaginary),
        )
        odd = _Complex(
            builder.fadd(at_low.imaginary, at_high.imaginary),
            builder.fsub(at_high.real, at_low.real),
        )
        turned = rows.turn(odd, parting)
        here, there = rows.add(even, turned), rows.subtract(even, turned)
        rows.write(2, low, rows.power(here.real, here.imaginary))
        rows.write(2, high, rows.power(there.real, there.imaginary))
        return context.get_dummy_value()

    return types.void(_ROWS, _ROWS, _ROWS, int64, int64, *[float32] * 6), generate


# An intrinsic is called with one argument fewer than it is written with: hence the bare type.
_two_stages: Any = intrinsic(_two_stages_of)
_last_powers: Any = intrinsic(_last_powers_of)


@kernel(void(_ROWS, _ROWS, SAMPLES_IN, SAMPLES_IN, int64, int64, int64))
def _take_two_stages(
    real: np.ndarray,
    imaginary: np.ndarray,
    cosines: np.ndarray,
    sines: np.ndarray,
    size: int,
    first: int,
    last: int,
) -> None:
    """Take rows `first` to `last` (exclusive) through the stages of `size` and ``2 * size``."""
    for step in range(size):
        for row in range(first + step, last, 4 * size):
            _two_stages(
                real,
                imaginary,
                row,
                size,
                cosines[size + step],
                sines[size + step],
                cosines[2 * size + step],
                sines[2 * size + step],
                cosines[3 * size + step],
                sines[3 * size + step],
            )


@kernel(void(_ROWS, _ROWS, int64, _ROWS, SAMPLES_IN, SAMPLES_IN, SAMPLES_IN, SAMPLES_IN))
def power_of_lanes(
    real: np.ndarray,
    imaginary: np.ndarray,
    bins: int,
    power: np.ndarray,
    cosines: np.ndarray,
    sines: np.ndarray,
    turn_cosines: np.ndarray,
    turn_sines: np.ndarray,
) -> None:
    """Compute the powers of the first `bins` bins of `LANES` signals of ``N`` real numbers.

    Bit-identical to the squares of what `fourier.transform_real` gives. All arrays are float32 and
    ``(N / 2 + 1, LANES)``, with `N` 4 times a power of 4.

    Args:
        real: the even samples of each signal: sample ``2 n`` in row ``order[n]``, where the caller
            wrote it, so that ordering takes no pass of its own; overwritten.
        imaginary: likewise, the odd samples.
        bins: how many are needed, 1 to ``N / 2 + 1``; what else is in `power` has no meaning.
        power: the result.
        cosines: of `fourier.real_fourier_tables`, as the rest.
        sines: likewise.
        turn_cosines: likewise.
        turn_sines: likewise.
    """
    half = real.shape[0] - 1
    if imaginary.shape != real.shape or power.shape != real.shape or real.shape[1] != LANES:
        raise ValueError("power_of_lanes: arrays are (N / 2 + 1, LANES)")
    if cosines.shape[0] != half or 2 * (turn_cosines.shape[0] - 1) != half:
        raise ValueError("power_of_lanes: signals and tables differ in length")
    block = min(_BLOCK_ROWS, half // 2)
    size = 1
    for first in range(0, half, block):
        size = 1
        while 4 * size <= block:
            _take_two_stages(real, imaginary, cosines, sines, size, first, first + block)
            size *= 4
    while 2 * size < half:
        _take_two_stages(real, imaginary, cosines, sines, size, 0, half)
        size *= 4
    if 2 * size != half:
        raise ValueError("power_of_lanes: N is 4 times a power of 4")
    for lane in range(LANES):
        first_real, first_imaginary = real[0, lane], imaginary[0, lane]
        middle_real = first_real - real[size, lane]
        middle_imaginary = first_imaginary - imaginary[size, lane]
        first_real += real[size, lane]
        first_imaginary += imaginary[size, lane]
        power[0, lane] = (first_real + first_imaginary) * (first_real + first_imaginary)
        power[half, lane] = (first_real - first_imaginary) * (first_real - first_imaginary)
        power[size, lane] = middle_real * middle_real + middle_imaginary * middle_imaginary
    for low in range(1, min(bins, size)):
        mirror = size - low
        _last_powers(
            real,
            imaginary,
            power,
            low,
            size,
            cosines[size + low],
            sines[size + low],
            cosines[size + mirror],
            sines[size + mirror],
            turn_cosines[low],
            turn_sines[low],
        )

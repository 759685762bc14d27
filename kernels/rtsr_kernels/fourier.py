"""Radix-2 Fourier transforms for compiled code; numba offers none inside a kernel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, types, void

from .compiled import MATRIX, VECTOR, VECTOR_IN, kernel

INDICES_IN = types.Array(int64, 1, "C", readonly=True)


class FourierTables(NamedTuple):
    """Tables of one length of transform: twiddle factors, stage after stage, and bit reversal."""

    cosines: np.ndarray
    sines: np.ndarray
    order: np.ndarray


def fourier_tables(length: int) -> FourierTables:
    """Return the tables for a transform of ``length`` points, a power of two."""
    if length < 2 or length & (length - 1):
        raise ValueError(f"a radix-2 transform has a power of two points, not {length}")
    angles = np.zeros(length)
    half = 1
    while half < length:
        # One stage's rotations lie in a row, so that its inner loop runs over neighbours.
        angles[half : 2 * half] = np.pi * np.arange(half) / half
        half *= 2
    order = np.zeros(length, np.int64)
    half = 1
    while half < length:
        order[half : 2 * half] = order[:half] + length // (2 * half)
        half *= 2
    return FourierTables(np.cos(angles), -np.sin(angles), order)


@kernel(void(VECTOR, VECTOR, VECTOR_IN, VECTOR_IN, INDICES_IN))
def transform(
    real: np.ndarray,
    imaginary: np.ndarray,
    cosines: np.ndarray,
    sines: np.ndarray,
    order: np.ndarray,
) -> None:
    """Compute the forward transform ``sum x[n] exp(-2 pi i k n / N)`` in place.

    The inverse, without its factor ``1 / N``, is the same with ``real`` and ``imaginary`` swapped
    (Duhamel, Piron, Etcheto, "On computing the inverse DFT", 1988).
    """
    length = real.shape[0]
    if imaginary.shape[0] != length or order.shape[0] != length or cosines.shape[0] != length:
        raise ValueError("transform: numbers and tables differ in length")
    for here in range(length):
        there = order[here]
        if here < there:
            real[here], real[there] = real[there], real[here]
            imaginary[here], imaginary[there] = imaginary[there], imaginary[here]
    half = 1
    while half < length:
        for start in range(0, length, 2 * half):
            for step in range(half):
                upper, lower = start + step, start + step + half
                cosine, sine = cosines[half + step], sines[half + step]
                turned = cosine * real[lower] - sine * imaginary[lower]
                turned_imaginary = cosine * imaginary[lower] + sine * real[lower]
                real[lower] = real[upper] - turned
                imaginary[lower] = imaginary[upper] - turned_imaginary
                real[upper] += turned
                imaginary[upper] += turned_imaginary
        half *= 2


class RealFourierTables(NamedTuple):
    """Tables of a real transform: those of a complex one of half the length, and twiddles."""

    cosines: np.ndarray
    sines: np.ndarray
    order: np.ndarray
    turn_cosines: np.ndarray
    turn_sines: np.ndarray


def real_fourier_tables(length: int) -> RealFourierTables:
    """Return the tables for a transform of ``length`` real numbers, a power of two from 4 up."""
    if length < 4 or length & (length - 1):
        raise ValueError(
            f"a radix-2 transform of real numbers has a power of two points from 4 up, not {length}"
        )
    angles = 2.0 * np.pi * np.arange(length // 4 + 1) / length
    return RealFourierTables(*fourier_tables(length // 2), np.cos(angles), -np.sin(angles))


@kernel(void(VECTOR_IN, VECTOR, VECTOR, VECTOR_IN, VECTOR_IN, INDICES_IN, VECTOR_IN, VECTOR_IN))
def transform_real(
    samples: np.ndarray,
    real: np.ndarray,
    imaginary: np.ndarray,
    cosines: np.ndarray,
    sines: np.ndarray,
    order: np.ndarray,
    turn_cosines: np.ndarray,
    turn_sines: np.ndarray,
) -> None:
    """Transform ``N`` real numbers: bins 0 to ``N / 2`` into ``real`` and ``imaginary``.

    Even and odd samples go through one complex transform of ``N / 2`` points and are parted by
    their symmetry (Press et al., "Numerical Recipes", section 12.3).
    """
    half = samples.shape[0] // 2
    if real.shape[0] != half + 1 or imaginary.shape[0] != half + 1:
        raise ValueError("transform_real: N samples have N / 2 + 1 bins")
    if 2 * (turn_cosines.shape[0] - 1) != half or turn_sines.shape[0] != turn_cosines.shape[0]:
        raise ValueError("transform_real: samples and tables differ in length")
    for here in range(half):
        real[here] = samples[2 * here]
        imaginary[here] = samples[2 * here + 1]
    transform(real[:half], imaginary[:half], cosines, sines, order)
    first, first_odd = real[0], imaginary[0]
    real[0], imaginary[0] = first + first_odd, 0.0
    real[half], imaginary[half] = first - first_odd, 0.0
    for low in range(1, half // 2 + 1):
        high = half - low
        even, even_imaginary = real[low] + real[high], imaginary[low] - imaginary[high]
        odd, odd_imaginary = imaginary[low] + imaginary[high], real[high] - real[low]
        cosine, sine = turn_cosines[low], turn_sines[low]
        turned = cosine * odd - sine * odd_imaginary
        turned_imaginary = cosine * odd_imaginary + sine * odd
        real[low] = 0.5 * (even + turned)
        imaginary[low] = 0.5 * (even_imaginary + turned_imaginary)
        real[high] = 0.5 * (even - turned)
        imaginary[high] = 0.5 * (turned_imaginary - even_imaginary)


#: Signals that `transform_real_lanes` takes side by side.
LANES = 32


@kernel(void(MATRIX, MATRIX, VECTOR_IN, VECTOR_IN, int64))
def _two_stages(
    real: np.ndarray, imaginary: np.ndarray, cosines: np.ndarray, sines: np.ndarray, size: int
) -> None:
    """Take the stages of `size` and ``2 * size`` in one pass: passing memory costs most."""
    for step in range(size):
        cosine, sine = cosines[size + step], sines[size + step]
        cosine_even, sine_even = cosines[2 * size + step], sines[2 * size + step]
        cosine_odd, sine_odd = cosines[3 * size + step], sines[3 * size + step]
        for start in range(step, real.shape[0] - 1, 4 * size):
            real_0, imaginary_0 = real[start], imaginary[start]
            real_1, imaginary_1 = real[start + size], imaginary[start + size]
            real_2, imaginary_2 = real[start + 2 * size], imaginary[start + 2 * size]
            real_3, imaginary_3 = real[start + 3 * size], imaginary[start + 3 * size]
            for lane in range(LANES):
                turned = cosine * real_1[lane] - sine * imaginary_1[lane]
                turned_imaginary = cosine * imaginary_1[lane] + sine * real_1[lane]
                a, a_imaginary = real_0[lane] + turned, imaginary_0[lane] + turned_imaginary
                b, b_imaginary = real_0[lane] - turned, imaginary_0[lane] - turned_imaginary
                turned = cosine * real_3[lane] - sine * imaginary_3[lane]
                turned_imaginary = cosine * imaginary_3[lane] + sine * real_3[lane]
                c, c_imaginary = real_2[lane] + turned, imaginary_2[lane] + turned_imaginary
                d, d_imaginary = real_2[lane] - turned, imaginary_2[lane] - turned_imaginary
                turned = cosine_even * c - sine_even * c_imaginary
                turned_imaginary = cosine_even * c_imaginary + sine_even * c
                real_0[lane], imaginary_0[lane] = a + turned, a_imaginary + turned_imaginary
                real_2[lane], imaginary_2[lane] = a - turned, a_imaginary - turned_imaginary
                turned = cosine_odd * d - sine_odd * d_imaginary
                turned_imaginary = cosine_odd * d_imaginary + sine_odd * d
                real_1[lane], imaginary_1[lane] = b + turned, b_imaginary + turned_imaginary
                real_3[lane], imaginary_3[lane] = b - turned, b_imaginary - turned_imaginary


@kernel(void(MATRIX, MATRIX, VECTOR_IN, VECTOR_IN, int64))
def _one_stage(
    real: np.ndarray, imaginary: np.ndarray, cosines: np.ndarray, sines: np.ndarray, size: int
) -> None:
    for step in range(size):
        cosine, sine = cosines[size + step], sines[size + step]
        for upper in range(step, real.shape[0] - 1, 2 * size):
            lower = upper + size
            for lane in range(LANES):
                turned = cosine * real[lower, lane] - sine * imaginary[lower, lane]
                turned_imaginary = cosine * imaginary[lower, lane] + sine * real[lower, lane]
                real[lower, lane] = real[upper, lane] - turned
                imaginary[lower, lane] = imaginary[upper, lane] - turned_imaginary
                real[upper, lane] += turned
                imaginary[upper, lane] += turned_imaginary


@kernel(void(MATRIX, MATRIX, VECTOR_IN, VECTOR_IN, VECTOR_IN, VECTOR_IN))
def transform_real_lanes(
    real: np.ndarray,
    imaginary: np.ndarray,
    cosines: np.ndarray,
    sines: np.ndarray,
    turn_cosines: np.ndarray,
    turn_sines: np.ndarray,
) -> None:
    """Transform `LANES` unrelated signals side by side, bit-identical to :func:`transform_real`.

    `real` and `imaginary` are ``(N / 2 + 1, LANES)``, and hold the even and the odd samples of each
    signal: sample ``2 n`` in row ``order[n]`` of `real`, the next one in that of `imaginary`; there
    the caller wrote them, so that ordering takes no pass of its own. Every butterfly fills vector
    registers, also those of the first stages.
    """
    half = real.shape[0] - 1
    size = 1
    while 2 * size < half:
        _two_stages(real, imaginary, cosines, sines, size)
        size *= 4
    if size < half:
        _one_stage(real, imaginary, cosines, sines, size)
    for lane in range(LANES):
        first, first_odd = real[0, lane], imaginary[0, lane]
        real[0, lane], imaginary[0, lane] = first + first_odd, 0.0
        real[half, lane], imaginary[half, lane] = first - first_odd, 0.0
    for low in range(1, half // 2 + 1):
        high = half - low
        cosine, sine = turn_cosines[low], turn_sines[low]
        for lane in range(LANES):
            even = real[low, lane] + real[high, lane]
            even_imaginary = imaginary[low, lane] - imaginary[high, lane]
            odd = imaginary[low, lane] + imaginary[high, lane]
            odd_imaginary = real[high, lane] - real[low, lane]
            turned = cosine * odd - sine * odd_imaginary
            turned_imaginary = cosine * odd_imaginary + sine * odd
            real[low, lane] = 0.5 * (even + turned)
            imaginary[low, lane] = 0.5 * (even_imaginary + turned_imaginary)
            real[high, lane] = 0.5 * (even - turned)
            imaginary[high, lane] = 0.5 * (turned_imaginary - even_imaginary)

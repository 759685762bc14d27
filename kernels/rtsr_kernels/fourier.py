"""Radix-2 Fourier transforms for compiled code; numba offers none inside a kernel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import float32, void
from numpy.typing import DTypeLike

from .compiled import INDICES_IN, SAMPLES, SAMPLES_IN, VECTOR, VECTOR_IN, kernel


class FourierTables(NamedTuple):
    """Tables of one length of transform: twiddle factors, stage after stage, and bit reversal."""

    cosines: np.ndarray
    sines: np.ndarray
    order: np.ndarray


def fourier_tables(length: int, dtype: DTypeLike = np.float64) -> FourierTables:
    """Return the tables for a transform of ``length`` points, a power of two, in float32 or 64."""
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
    return FourierTables(np.cos(angles).astype(dtype), -np.sin(angles).astype(dtype), order)


@kernel(
    [
        void(numbers, numbers, table, table, INDICES_IN)
        for numbers, table in ((VECTOR, VECTOR_IN), (SAMPLES, SAMPLES_IN))
    ]
)
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


_HALF = np.float32(0.5)


class RealFourierTables(NamedTuple):
    """Tables of a real transform: those of a complex one of half the length, and twiddles."""

    cosines: np.ndarray
    sines: np.ndarray
    order: np.ndarray
    turn_cosines: np.ndarray
    turn_sines: np.ndarray


def real_fourier_tables(length: int) -> RealFourierTables:
    """Return the float32 tables for ``length`` real numbers, a power of two from 4 up."""
    if length < 4 or length & (length - 1):
        raise ValueError(
            f"a radix-2 transform of real numbers has a power of two points from 4 up, not {length}"
        )
    angles = 2.0 * np.pi * np.arange(length // 4 + 1) / length
    return RealFourierTables(
        *fourier_tables(length // 2, np.float32),
        np.cos(angles).astype(np.float32),
        -np.sin(angles).astype(np.float32),
    )


@kernel(
    void(
        SAMPLES_IN,
        SAMPLES,
        SAMPLES,
        SAMPLES_IN,
        SAMPLES_IN,
        INDICES_IN,
        SAMPLES_IN,
        SAMPLES_IN,
    )
)
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
    """Transform ``N`` real numbers: bins 0 to ``N / 2`` into ``real`` and ``imaginary``, float32.

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
    real[0], imaginary[0] = first + first_odd, float32(0.0)
    real[half], imaginary[half] = first - first_odd, float32(0.0)
    for low in range(1, half // 2 + 1):
        high = half - low
        even, even_imaginary = real[low] + real[high], imaginary[low] - imaginary[high]
        odd, odd_imaginary = imaginary[low] + imaginary[high], real[high] - real[low]
        cosine, sine = turn_cosines[low], turn_sines[low]
        turned = cosine * odd - sine * odd_imaginary
        turned_imaginary = cosine * odd_imaginary + sine * odd
        real[low] = _HALF * (even + turned)
        imaginary[low] = _HALF * (even_imaginary + turned_imaginary)
        real[high] = _HALF * (even - turned)
        imaginary[high] = _HALF * (turned_imaginary - even_imaginary)

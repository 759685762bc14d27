"""A radix-2 Fourier transform for compiled code, in place; numba offers none inside a kernel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, types, void

from .compiled import VECTOR, VECTOR_IN, kernel

INDICES_IN = types.Array(int64, 1, "C", readonly=True)


class FourierTables(NamedTuple):
    """What a transform of one length needs: rotations, stage after stage, and the bit reversal."""

    cosines: np.ndarray
    sines: np.ndarray
    order: np.ndarray


def fourier_tables(length: int) -> FourierTables:
    """Tables for a transform of ``length`` points, a power of two."""
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
    """Forward transform ``sum x[n] exp(-2 pi i k n / N)`` of complex numbers, in place.

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

"""Gaussian noise as a pure function of its address: no state, so no block partition can change it.

Philox-4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
turns a key and a counter into four random words, Box-Muller turns these into four normal values.
The key is the seed; the counter is (group of four values, stream, frame index).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, float64, int64, njit, types, uint32, uint64, void
from numba.extending import intrinsic

from .compiled import LINE, SAMPLES, kernel

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint32(0x9E3779B9)
_WEYL_1 = np.uint32(0xBB67AE85)
_ROUNDS = 10
_WORD_BITS = np.uint64(32)
_WORD_MASK = np.uint64(0xFFFFFFFF)
_WORD_TO_UNIT = 2.0**-32
_LOG_2 = math.log(2.0)
_STRIDED_2D = types.Array(float32, 2, "A")


@njit(inline="always")
def philox_4x32(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Ten rounds of Philox: counter words `c0..c3`, key words `k0, k1`, all uint32 -> four uint32.

    For use in compiled code only.
    """
    for _ in range(_ROUNDS):
        product_0 = _MULTIPLIER_0 * uint64(c0)
        product_1 = _MULTIPLIER_1 * uint64(c2)
        c0, c1, c2, c3 = (
            uint32(uint32(product_1 >> _WORD_BITS) ^ c1 ^ k0),
            uint32(product_1 & _WORD_MASK),
            uint32(uint32(product_0 >> _WORD_BITS) ^ c3 ^ k1),
            uint32(product_0 & _WORD_MASK),
        )
        k0 = uint32(k0 + _WEYL_0)
        k1 = uint32(k1 + _WEYL_1)
    return c0, c1, c2, c3


def _to_bits(typing_context: Any, value: Any) -> Any:
    """Reinterpret the 64 bits of a float64 as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


def _to_number(typing_context: Any, value: Any) -> Any:
    """Reinterpret 64 bits as a float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


_bits: Any = intrinsic(_to_bits)
_from_bits: Any = intrinsic(_to_number)


@njit(inline="always", error_model="numpy")
def _log_unit(word):  # type: ignore[no-untyped-def]
    """``log((word + 1/2) / 2**32)`` within 1e-15, without a branch or a call.

    A mathematical library's functions keep a loop from using vector registers. With the mantissa
    in [sqrt(1/2), sqrt(2)) it is `2 artanh((m - 1) / (m + 1))`, of which ten terms are enough, and
    exponents count from the word's largest, so that nothing cancels near a logarithm of 0.
    """
    bits = _bits(float64(word) + 0.5)
    exponent = (bits >> 52) - (1023 + 32)
    mantissa = _from_bits((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    large = mantissa > math.sqrt(2.0)
    mantissa = 0.5 * mantissa if large else mantissa
    exponent = exponent + 1 if large else exponent
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    series = 1.0 / 21.0
    series = series * z + 1.0 / 19.0
    series = series * z + 1.0 / 17.0
    series = series * z + 1.0 / 15.0
    series = series * z + 1.0 / 13.0
    series = series * z + 1.0 / 11.0
    series = series * z + 1.0 / 9.0
    series = series * z + 1.0 / 7.0
    series = series * z + 1.0 / 5.0
    series = series * z + 1.0 / 3.0
    return float64(exponent) * _LOG_2 + 2.0 * s * (1.0 + z * series)


@njit(inline="always", error_model="numpy")
def _turn(word):  # type: ignore[no-untyped-def]
    """Cosine and sine of `2 pi (word + 1/2) / 2**32` within 1e-15, without a branch or a call.

    Whole quarter turns are read from the word's bits; the rest is at most an eighth of a turn
    and has short Taylor series.
    """
    whole = int64(word)
    quarter = (whole + (1 << 29)) >> 30
    x = (float64(whole - (quarter << 30)) + 0.5) * (2.0 * math.pi * _WORD_TO_UNIT)
    y = x * x
    sine = -1.0 / 1307674368000.0
    sine = sine * y + 1.0 / 6227020800.0
    sine = sine * y - 1.0 / 39916800.0
    sine = sine * y + 1.0 / 362880.0
    sine = sine * y - 1.0 / 5040.0
    sine = sine * y + 1.0 / 120.0
    sine = sine * y - 1.0 / 6.0
    sine = x + x * (y * sine)
    cosine = 1.0 / 20922789888000.0
    cosine = cosine * y - 1.0 / 87178291200.0
    cosine = cosine * y + 1.0 / 479001600.0
    cosine = cosine * y - 1.0 / 3628800.0
    cosine = cosine * y + 1.0 / 40320.0
    cosine = cosine * y - 1.0 / 720.0
    cosine = cosine * y + 1.0 / 24.0
    cosine = cosine * y - 0.5
    cosine = 1.0 + y * cosine
    swapped = (quarter & 1) != 0
    turned_cosine = sine if swapped else cosine
    turned_sine = cosine if swapped else sine
    turned_cosine = -turned_cosine if ((quarter + 1) & 2) != 0 else turned_cosine
    turned_sine = -turned_sine if (quarter & 2) != 0 else turned_sine
    return turned_cosine, turned_sine


@njit(inline="always", error_model="numpy")
def _normal_pair(word_radius, word_angle):  # type: ignore[no-untyped-def]
    # The half keeps the logarithm's argument away from zero; computed in float64 so that the
    # rounding of different ways to compute it is lost in the final float32.
    radius = math.sqrt(-2.0 * _log_unit(word_radius))
    cosine, sine = _turn(word_angle)
    return radius * cosine, radius * sine


@kernel(void(int64, int64, int64, SAMPLES), error_model="numpy")
def fill_noise_line(seed: int, frame_index: int, stream: int, out: np.ndarray) -> None:
    """Fill contiguous `out` `(noise channels,)` as :func:`fill_noise` does, but faster."""
    key = uint64(seed)
    k0 = uint32(key & _WORD_MASK)
    k1 = uint32(key >> _WORD_BITS)
    address = uint64(frame_index)
    c2 = uint32(address & _WORD_MASK)
    c3 = uint32(address >> _WORD_BITS)
    channels = out.shape[0]
    groups = channels // 4
    # First all random words, stored where their values will be: both loops then vectorise.
    words = out.view(np.uint32)
    for group in range(groups):
        w0, w1, w2, w3 = philox_4x32(uint32(group), uint32(stream), c2, c3, k0, k1)
        words[4 * group] = w0
        words[4 * group + 1] = w1
        words[4 * group + 2] = w2
        words[4 * group + 3] = w3
    for pair in range(2 * groups):
        first, second = _normal_pair(words[2 * pair], words[2 * pair + 1])
        out[2 * pair] = first
        out[2 * pair + 1] = second
    channel = 4 * groups
    if channel < channels:
        w0, w1, w2, w3 = philox_4x32(uint32(groups), uint32(stream), c2, c3, k0, k1)
        first, second = _normal_pair(w0, w1)
        third, _ = _normal_pair(w2, w3)
        out[channel] = first
        if channel + 1 < channels:
            out[channel + 1] = second
        if channel + 2 < channels:
            out[channel + 2] = third


@kernel(void(int64, int64, int64, _STRIDED_2D), error_model="numpy")
def fill_noise_frames(seed: int, first_frame: int, stream: int, out: np.ndarray) -> None:
    """Fill `out` `(noise channels, frames)` with standard normal float32 values.

    Column `i` is exactly what `fill_noise` gives for frame `first_frame + i`.
    """
    channels, frames = out.shape
    key = uint64(seed)
    k0 = uint32(key & _WORD_MASK)
    k1 = uint32(key >> _WORD_BITS)
    for frame in range(frames):
        address = uint64(first_frame + frame)
        c2 = uint32(address & _WORD_MASK)
        c3 = uint32(address >> _WORD_BITS)
        for group in range((channels + 3) // 4):
            w0, w1, w2, w3 = philox_4x32(uint32(group), uint32(stream), c2, c3, k0, k1)
            first, second = _normal_pair(w0, w1)
            third, fourth = _normal_pair(w2, w3)
            channel = 4 * group
            out[channel, frame] = first
            if channel + 1 < channels:
                out[channel + 1, frame] = second
            if channel + 2 < channels:
                out[channel + 2, frame] = third
            if channel + 3 < channels:
                out[channel + 3, frame] = fourth


@kernel(void(int64, int64, int64, LINE))
def fill_noise(seed: int, frame_index: int, stream: int, out: np.ndarray) -> None:
    """Fill `out` `(noise channels,)`, of any stride, with standard normal float32 values.

    `seed` and `frame_index` are any 64-bit integers; `stream` (32 bits) is the channel pair: two
    channels that share it get the same noise, so that a stereo image stays where it was.
    """
    fill_noise_frames(seed, frame_index, stream, np.expand_dims(out, 1))

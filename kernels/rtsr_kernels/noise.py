"""Gaussian noise as a pure function of its address: no state, so no block partition can change it.

Philox-4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
turns a key and a counter into four random words, Box-Muller turns these into four normal values.
The key is the seed; the counter is (group of four values, stream, frame index).
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, int64, njit, types, uint32, uint64, void

from .compiled import kernel

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint32(0x9E3779B9)
_WEYL_1 = np.uint32(0xBB67AE85)
_ROUNDS = 10
_WORD_BITS = np.uint64(32)
_WORD_MASK = np.uint64(0xFFFFFFFF)
_WORD_TO_UNIT = 2.0**-32


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


@njit(inline="always")
def _normal_pair(word_radius, word_angle):  # type: ignore[no-untyped-def]
    # The half keeps the logarithm's argument away from zero; computed in float64 so that the
    # rounding of different mathematical libraries is lost in the final float32.
    radius = math.sqrt(-2.0 * math.log((float(word_radius) + 0.5) * _WORD_TO_UNIT))
    angle = 2.0 * math.pi * (float(word_angle) + 0.5) * _WORD_TO_UNIT
    return radius * math.cos(angle), radius * math.sin(angle)


_STRIDED_1D = types.Array(float32, 1, "A")
_STRIDED_2D = types.Array(float32, 2, "A")


@kernel(void(int64, int64, int64, _STRIDED_2D))
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


@kernel(void(int64, int64, int64, _STRIDED_1D))
def fill_noise(seed: int, frame_index: int, stream: int, out: np.ndarray) -> None:
    """Fill `out` `(noise channels,)`, of any stride, with standard normal float32 values.

    `seed` and `frame_index` are any 64-bit integers; `stream` (32 bits) is the channel pair: two
    channels that share it get the same noise, so that a stereo image stays where it was.
    """
    fill_noise_frames(seed, frame_index, stream, np.expand_dims(out, 1))

"""Interleaved device samples to float32 frames and back, compiled.

Full scale is 1.0: an integer sample is its value over 2 ** (bits - 1), exactly. What goes out is
rounded to the nearest integer and held at full scale. There is no dither: sound that passes the
engine unchanged leaves it with the bits it came with.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float32, float64, int16, int64, uint8

from rtsr.live.shared.pointers import carray, frames_at, pointer_to
from rtsr_kernels.compiled import AUDIO, AUDIO_IN, kernel

FORMATS = {"float32": 0, "int24": 1, "int16": 2}
"""Names as sounddevice has them, and what the compiled code calls them."""
FLOAT32, INT24, INT16 = 0, 1, 2

# As the engine itself: beyond this a float is not sound, and it would ruin every filter's state.
_LARGEST = np.float32(1e10)


@kernel(int64(int64, int64, int64, int64, AUDIO))
def decode(address: int, sample_format: int, channels: int, start: int, out: np.ndarray) -> int:
    """Read frames `start, ...` of the interleaved device buffer at `address` into `out`.

    `out` is `(frames, channels of the engine)`; engine channels beyond the device's last one repeat
    that one. Returns how many samples were no usable numbers and became zero.
    """
    frames, wanted = out.shape
    repaired = 0
    if sample_format == FLOAT32:
        values = frames_at(address + 4 * start * channels, frames, channels)
        for frame in range(frames):
            for channel in range(wanted):
                value = values[frame, min(channel, channels - 1)]
                # Written so that NaN fails it.
                if not abs(value) <= _LARGEST:
                    value = float32(0.0)
                    repaired += 1
                out[frame, channel] = value
    elif sample_format == INT24:
        packed = carray(pointer_to(address + 3 * start * channels), (frames, channels, 3), uint8)
        for frame in range(frames):
            for channel in range(wanted):
                sample = packed[frame, min(channel, channels - 1)]
                word = int64(sample[0]) | int64(sample[1]) << 8 | int64(sample[2]) << 16
                out[frame, channel] = float32((word ^ 0x800000) - 0x800000) / float32(8388608.0)
    else:
        words = carray(pointer_to(address + 2 * start * channels), (frames, channels), int16)
        for frame in range(frames):
            for channel in range(wanted):
                value = float32(words[frame, min(channel, channels - 1)])
                out[frame, channel] = value / float32(32768.0)
    return repaired


@kernel(float32(AUDIO_IN, int64, int64, int64))
def _sample(block: np.ndarray, frame: int, channel: int, available: int) -> Any:
    if available == 1:
        channel = 0
    elif channel >= available:
        return float32(0.0)
    value = block[frame, channel]
    # Written so that NaN fails it: a converter would make full scale of it.
    if not abs(value) <= _LARGEST:
        return float32(0.0)
    return value


@kernel(int64(float32, float64))
def _rounded(value: float, full_scale: float) -> Any:
    return int64(math.floor(value * full_scale + 0.5))


@kernel(int64(int64, int64, int64, int64, AUDIO_IN))
def encode(address: int, sample_format: int, channels: int, start: int, block: np.ndarray) -> int:
    """Write `block` `(frames, channels of the engine)` from frame `start` on to the device buffer.

    A mono engine plays on all channels of the device; otherwise device channels that the engine has
    not are silent, and engine channels that the device has not are left out. Returns how many
    samples were held at full scale (integer formats).
    """
    frames, available = block.shape
    clipped = 0
    if sample_format == FLOAT32:
        values = frames_at(address + 4 * start * channels, frames, channels)
        for frame in range(frames):
            for channel in range(channels):
                value = _sample(block, frame, channel, available)
                values[frame, channel] = value
    elif sample_format == INT24:
        packed = carray(pointer_to(address + 3 * start * channels), (frames, channels, 3), uint8)
        for frame in range(frames):
            for channel in range(channels):
                word = _rounded(_sample(block, frame, channel, available), 8388608.0)
                held = max(-8388608, min(word, 8388607))
                clipped += held != word
                packed[frame, channel, 0] = held & 255
                packed[frame, channel, 1] = held >> 8 & 255
                packed[frame, channel, 2] = held >> 16 & 255
    else:
        words = carray(pointer_to(address + 2 * start * channels), (frames, channels), int16)
        for frame in range(frames):
            for channel in range(channels):
                word = _rounded(_sample(block, frame, channel, available), 32768.0)
                held = max(-32768, min(word, 32767))
                clipped += held != word
                words[frame, channel] = held
    return clipped

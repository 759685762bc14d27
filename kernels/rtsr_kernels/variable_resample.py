"""Resampler whose ratio may change with every block, to follow another device's clock.

A windowed sinc (J. O. Smith, "Digital audio resampling"), tabulated at `PHASES` fractions of an
input frame and interpolated linearly between them. All state is the caller's, so that it can live
in memory that a device callback reaches through one pointer. The filter has linear phase: it delays
every frequency by half its taps, whatever the ratio.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numba import float32, float64, int64, types, void

from .compiled import AUDIO, AUDIO_IN, VECTOR, VECTOR_IN, kernel

# Linear interpolation between neighbouring phases errs by (w / PHASES)**2 / 8 for a sine of w
# radians per input frame: -98 dB at 20 kHz and 48 kHz, below the filter's own stop band.
PHASES = 256

# In frames of the narrower rate. The Kaiser window's transition is then (_STOP_DB - 7.95) /
# (2.285 * 2 pi * 40) = 0.143 of that rate wide, centred on its Nyquist frequency: at 48 kHz from
# 20.6 to 27.4 kHz, so that all that is audible comes through flat and its images do not.
_LENGTH = 40
_STOP_DB = 90.0

TABLE = types.Array(float32, 2, "C", readonly=True)


@functools.lru_cache(maxsize=32)
def design(input_rate: float, output_rate: float) -> np.ndarray:
    """Design a table for conversions near `output_rate / input_rate`, float32 `(PHASES + 1, taps)`.

    Row `p` serves outputs that lie `p / PHASES` of a frame behind an input frame; oldest input
    first. Every row sums to one. Read-only, C-contiguous; `taps` is a multiple of 8.

    Raises `ValueError` for rates that are not positive.
    """
    if not (input_rate > 0 and output_rate > 0):
        raise ValueError(f"sample rates must be positive, not {input_rate} and {output_rate} Hz")
    narrowing = min(1.0, output_rate / input_rate)
    length = _LENGTH / narrowing
    taps = -(-math.ceil(length) // 8) * 8
    beta = 0.1102 * (_STOP_DB - 8.7)
    fraction = np.arange(PHASES + 1)[:, np.newaxis] / PHASES
    # Time of each input frame from the output instant.
    time = np.arange(taps) + 1 - taps / 2 - fraction
    inside = np.maximum(0.0, 1.0 - (2.0 * time / length) ** 2)
    response = np.sinc(narrowing * time) * np.i0(beta * np.sqrt(inside))
    response[np.abs(time) > length / 2] = 0.0
    response /= response.sum(axis=1, keepdims=True)
    table = np.ascontiguousarray(response, dtype=np.float32)
    table.setflags(write=False)
    return table


def delay_frames(table: np.ndarray) -> float:
    """Return the delay in input frames: output `o` shows input time `position(o) - delay_frames`.

    `position(o)` is the sum of the ratios of all outputs before `o`, starting from the initial
    position; input frame `n` is the `n`-th frame ever consumed.
    """
    return table.shape[1] / 2


@kernel(int64(VECTOR_IN, float64, int64))
def frames_needed(position: np.ndarray, ratio: float, count: int) -> int:
    """Return the input frames that `resample_variable` needs for `count` outputs at this ratio.

    `ratio` counts input frames per output frame.
    """
    if count <= 0:
        return 0
    return max(0, math.floor(position[0] + (count - 1) * ratio) + 1)


@kernel(
    void(AUDIO, VECTOR, TABLE, float64, AUDIO_IN, AUDIO),
    # Vector registers for the sums over the taps.
    fastmath={"reassoc", "contract", "nsz"},
)
def resample_variable(
    history: np.ndarray,
    position: np.ndarray,
    table: np.ndarray,
    ratio: float,
    block: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill `out` `(count, channels)`, consuming all of `block` `(needed, channels)`.

    `needed` is what `frames_needed(position, ratio, count)` says. `history` `(taps, channels)`
    holds the newest frames consumed so far and is moved on; `position` `(1,)` float64 is where the
    next output lies, from the start of the next block. Zeros in both begin a stream.
    """
    taps = table.shape[1]
    phases = table.shape[0] - 1
    needed = block.shape[0]
    count, channels = out.shape
    start = position[0]
    for i in range(count):
        instant = start + i * ratio
        # Both limits hold anyway, save for a last bit of rounding or a block that is too short.
        newest = max(-1, min(math.floor(instant), needed - 1))
        phase = max(0.0, min(instant - newest, 1.0)) * phases
        row = min(int(phase), phases - 1)
        weight = float32(phase - row)
        before = table[row]
        after = table[row + 1]
        past = max(0, taps - 1 - newest)
        # Slices, as only indices that start from zero keep the loops free of a check per sample.
        old = history[taps - past :]
        new = block[newest + 1 - (taps - past) : newest + 1]
        before_new, after_new = before[past:], after[past:]
        for channel in range(channels):
            total = float32(0.0)
            for tap in range(past):
                tap_value = before[tap] + weight * (after[tap] - before[tap])
                total += tap_value * old[tap, channel]
            for tap in range(taps - past):
                tap_value = before_new[tap] + weight * (after_new[tap] - before_new[tap])
                total += tap_value * new[tap, channel]
            out[i, channel] = total
    position[0] = start + count * ratio - needed
    kept = max(0, taps - needed)
    for frame in range(kept):
        for channel in range(channels):
            history[frame, channel] = history[frame + needed, channel]
    for frame in range(kept, taps):
        for channel in range(channels):
            history[frame, channel] = block[needed - taps + frame, channel]

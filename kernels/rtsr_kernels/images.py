"""Recognise images: the mirrored low band that a simple resampler leaves above its Nyquist limit.

The decoder of Opus at 48 kHz, as every call in a browser has it, leaves them up to 1.2 times that
frequency, where they look like content of their own. They are not: in every frame they are the
mirrored band below times the same falling curve. In recordings that reach further the two bands
differ by 3 dB and more from frame to frame, in those that went through the resampler by 1 dB.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, types, void
from numpy.typing import NDArray

from .band_limit import COMMON_NYQUIST_HZ, HZ_PER_BIN
from .compiled import VECTOR, kernel

#: Images are searched above these, at distances of 5 to 16 % of them.
NYQUISTS_HZ = COMMON_NYQUIST_HZ[:4]
NEAREST, FURTHEST, BINS = 0.047, 0.164, 11
#: The highest band edge above images, as a share of the frequency that they are mirrored at.
FURTHEST_EDGE = 1.3
#: The largest deviation of the two bands' ratio for images, and their least fall over the distance.
STEADY_DB = 1.3
FALLS_DB = 9.0
HIGHEST_DB = -3.0
#: What the resampler in libopus leaves at the nearest, the middle and the furthest distance
#: (measured). A curve that fits this well needs no band edge above it: a clipping decoder hides it.
OPUS_DB = (-6.8, -12.4, -20.6)
FITS_DB = 2.0
FITS_STEADY_DB = 1.0
#: In recordings that went through this resampler a frame's power above the mirror is within
#: `HIT_DB` of the band below times that curve; a frame that is not cancels `MISS` frames that are.
HIT_DB = 2.0
MISS = 3
#: Hits that are enough, and the largest count.
ENOUGH_HITS = 30
MOST_HITS = 60
#: Active frames until the curve is known, until it has been compared often enough, and that count.
LEARN_FRAMES = 30
ENOUGH_FRAMES = 80
MEMORY_FRAMES = 200

_LEAST_POWER = 1e-11
_MIRRORS = np.round(np.array(NYQUISTS_HZ) / HZ_PER_BIN).astype(np.int64)
_OFFSETS = np.round(
    np.array(NYQUISTS_HZ)[:, None] / HZ_PER_BIN * np.linspace(NEAREST, FURTHEST, BINS)
).astype(np.int64)
_OPUS = 10.0 ** (np.interp(np.arange(BINS), (0, BINS // 2, BINS - 1), OPUS_DB) / 10.0)
_TABLE = types.Array(float64, 2, "C")

FRAMES, MEAN, VARIANCE, HITS = range(4)
"""Columns of the table `ratio`."""


@kernel(void(VECTOR, _TABLE, _TABLE, _TABLE))
def compare_bands(
    power: NDArray[np.float64],
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    ratio: NDArray[np.float64],
) -> None:
    """Update the averages of both bands and the deviation of their ratio with one frame.

    `power` ``(513,)`` is the power spectrum of an active frame. A row per mirror of `NYQUISTS_HZ`:
    `above` and `below` ``(mirrors, BINS)`` hold relative powers, ``ratio[mirror]`` the frames so
    far, mean and variance in dB, and how well the images of Opus fit the newest frames. All zero is
    the initial state.
    """
    for row in range(_MIRRORS.size):
        mirror = _MIRRORS[row]
        total_above, total_below = 0.0, 0.0
        for i in range(BINS):
            total_above += power[mirror + _OFFSETS[row, i]]
            total_below += power[mirror - _OFFSETS[row, i]]
        if total_below < _LEAST_POWER:
            continue
        expected = 0.0
        for i in range(BINS):
            expected += power[mirror - _OFFSETS[row, i]] * _OPUS[i]
        if expected > _LEAST_POWER:
            hit = abs(10.0 * np.log10((total_above + 1e-20) / expected)) < HIT_DB
            hits = ratio[row, HITS] + (1.0 if hit else -MISS)
            ratio[row, HITS] = min(max(hits, 0.0), MOST_HITS)
        if total_above < _LEAST_POWER:
            continue
        count = ratio[row, FRAMES] + 1.0
        ratio[row, FRAMES] = count
        share = 1.0 / min(count, MEMORY_FRAMES)
        expected = 0.0
        for i in range(BINS):
            # Relative powers, so that a few loud frames do not make the curve alone.
            up = power[mirror + _OFFSETS[row, i]] / total_below
            low = power[mirror - _OFFSETS[row, i]] / total_below
            above[row, i] += share * (up - above[row, i])
            below[row, i] += share * (low - below[row, i])
            if below[row, i] > 0.0:
                expected += low * above[row, i] / below[row, i]
        if count <= LEARN_FRAMES or expected <= 0.0:
            continue
        share = 1.0 / min(count - LEARN_FRAMES, MEMORY_FRAMES)
        step = 10.0 * np.log10(total_above / total_below / expected) - ratio[row, MEAN]
        ratio[row, MEAN] += share * step
        ratio[row, VARIANCE] = (1.0 - share) * (ratio[row, VARIANCE] + share * step * step)


@kernel(boolean(_TABLE, int64, float64))
def _is_steady(ratio: NDArray[np.float64], row: int, deviation_db: float) -> bool:
    return ratio[row, FRAMES] >= ENOUGH_FRAMES and ratio[row, VARIANCE] <= deviation_db**2


@kernel(float64(_TABLE, _TABLE, int64, int64))
def _curve_db(above: NDArray[np.float64], below: NDArray[np.float64], row: int, i: int) -> float:
    """Return the level in dB of the images at one distance relative to their source."""
    return 10.0 * np.log10((above[row, i] + 1e-12) / (below[row, i] + 1e-12))


@kernel(float64(_TABLE))
def mirror_of_opus(ratio: NDArray[np.float64]) -> float:
    """Return the Nyquist frequency in Hz at which the newest frames show Opus's images; 0 for none.

    This needs a third of a second where `mirrored_at` needs 0.8 s, and no band edge.
    """
    for row in range(_MIRRORS.size):
        if ratio[row, HITS] >= ENOUGH_HITS:
            return NYQUISTS_HZ[row]
    return 0.0


@kernel(float64(float64, _TABLE, _TABLE, _TABLE))
def mirrored_at(
    edge_hz: float,
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    ratio: NDArray[np.float64],
) -> float:
    """Return the Nyquist frequency in Hz whose images end at a band edge; 0 if that is content.

    `edge_hz` is where the spectrum seems to end, 24000 where it does not; the rest is what
    `compare_bands` fills.
    """
    nyquist = mirror_of_opus(ratio)
    if nyquist < edge_hz <= FURTHEST_EDGE * nyquist:
        return nyquist
    for row in range(_MIRRORS.size):
        nyquist = NYQUISTS_HZ[row]
        nearest = _curve_db(above, below, row, 0)
        middle = _curve_db(above, below, row, BINS // 2)
        furthest = _curve_db(above, below, row, BINS - 1)
        if edge_hz > FURTHEST_EDGE * nyquist:
            if (
                _is_steady(ratio, row, FITS_STEADY_DB)
                and abs(nearest - OPUS_DB[0]) < FITS_DB
                and abs(middle - OPUS_DB[1]) < FITS_DB
                and abs(furthest - OPUS_DB[2]) < FITS_DB
            ):
                return nyquist
        elif edge_hz > nyquist:
            steady = _is_steady(ratio, row, STEADY_DB)
            if steady and nearest < HIGHEST_DB and nearest - furthest > FALLS_DB:
                return nyquist
            return 0.0
    return 0.0

"""Find a band edge, the mark of a band limit, in a long-term spectrum.

At a band edge the level drops by more than 20 dB within 600 Hz and stays low up to 24 kHz. A voice
or an instrument rolls off more slowly; resamplers and lossy coders make band edges.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, types
from numpy.typing import NDArray

from .compiled import VECTOR, kernel
from .timing import SAMPLE_RATE

FULL_BAND_HZ = 24000.0
"""Returned where nothing is missing."""

FRAME = 1024
BINS = FRAME // 2 + 1
HZ_PER_BIN = SAMPLE_RATE / FRAME

#: The highest level that the noise of 16-bit samples reaches in one bin within several seconds, in
#: dB relative to a full-scale sine.
NOISE_FLOOR_DB = -104.0
LOWEST_EDGE_HZ = 2000.0
#: Lossy coders leave holes at the top of quiet passages; content above this is not missed by ear.
HIGHEST_EDGE_HZ = 17500.0
#: Where these holes begin, and where content may end and counts as full band.
TREBLE_HZ = 14000.0
FULL_FROM_HZ = 20000.0

EDGE_DB = 20.0
EDGE_BINS = 13  # 600 Hz
PLATEAU_BINS = 20
#: The same by the pace of a faster clock, whose bins are so many times as wide. The window alone
#: spreads an edge over 4 bins.
HIGH_RATE_EDGE_BINS = {2: 10, 4: 8}
HIGH_RATE_PLATEAU_BINS = {2: 15, 4: 10}
STEEP_DB = 3.0
#: A sharp edge loses the lower half of its height, which counts from the mean level between
#: `NEAR_FROM` and `NEAR_TO` of its frequency, within `SHARP_WIDTH` of it and `SHARP_BINS`. The
#: middle of a resampler's edge lies between `SHARP_FROM` and `SHARP_TO` of a Nyquist frequency.
SHARP_WIDTH = 0.04
SHARP_BINS = 2
NEAR_FROM, NEAR_TO = 0.86, 0.92
SHARP_FROM, SHARP_TO = 0.935, 1.01
#: An edge with something left above it must be higher, because formants and resonances also end
#: in drops of 20 to 30 dB, the more so the lower their frequency.
EMPTY_DB = NOISE_FLOOR_DB + 6.0
HIGH_EDGE_DB = 30.0
LOW_FREQUENCY_HZ = 3000.0
LOW_FREQUENCY_EDGE_DB = 40.0

#: Nyquist frequencies of the common sample rates of what is found in streams of 48 kHz.
COMMON_NYQUIST_HZ = (4000.0, 6000.0, 8000.0, 12000.0, 16000.0)
#: The same for streams of higher rates, in Hz of sound.
HIGH_RATE_NYQUIST_HZ = (8000.0, 11025.0, 12000.0, 16000.0, 22050.0, 24000.0, 44100.0, 48000.0)
#: Where a resampler starts to lose content, as a share of a Nyquist frequency.
SHOULDER = 0.965
#: A Nyquist frequency is taken for the limit if nothing lies above this multiple of it (the second
#: one where images are known to be), and at least `CONTENT_DB` just below it.
BEHIND_NYQUIST = 1.1
BEHIND_IMAGES = 1.25
CONTENT_DB = EMPTY_DB + 10.0
#: The cutoff that is returned for a resampler's limit, as a share of the Nyquist frequency.
NOMINAL = 0.975
#: Content of a common rate begins to end here, as a share of its Nyquist frequency: what reaches
#: this one's share of the next one in the table is that one's.
NEXT_BEGINS = 0.95


PACE, EDGE, PLATEAU, TREBLE, TREBLE_END, NYQUISTS = range(6)
"""Places in the vector of `clock_of`.

``PACE``: how many hops of the stream take as long as one at 48 kHz. ``EDGE``, ``PLATEAU``: over how
many bins a band edge falls, and how many below it are what it is compared with. ``TREBLE`` to
``TREBLE_END``: Hz of the clock between which lossy coders make holes that come and go, which also
end in band edges; what lies above no such coder keeps. ``NYQUISTS``: from here on the Nyquist
frequencies of common rates in Hz of the clock, ascending.
"""


def clock_of(rate: int) -> NDArray[np.float64]:
    """Return what a stream's rate means where its samples count as sound at 48 kHz, as a vector.

    There its frequencies are lower, its times longer and its edges narrower: over as many bins as
    at 48 kHz a voice at 192 kHz falls by itself. Up to 48 kHz there is one clock.
    """
    if rate <= SAMPLE_RATE:
        slow = (1, EDGE_BINS, PLATEAU_BINS, TREBLE_HZ, FULL_BAND_HZ, *COMMON_NYQUIST_HZ)
        return np.array(slow, np.float64)
    ratio = rate / SAMPLE_RATE
    pace = round(ratio)
    nyquists = [hz / ratio for hz in HIGH_RATE_NYQUIST_HZ]
    fast = (
        pace,
        HIGH_RATE_EDGE_BINS[pace],
        HIGH_RATE_PLATEAU_BINS[pace],
        TREBLE_HZ / ratio,
        FULL_FROM_HZ / ratio,
        *(hz for hz in nyquists if LOWEST_EDGE_HZ <= hz < HIGHEST_EDGE_HZ),
    )
    return np.array(fast, np.float64)


@kernel(int64(VECTOR, int64, float64))
def _last_above(levels: NDArray[np.float64], foot: int, least: float) -> int:
    """Return the highest bin up to `foot` whose level reaches `least`."""
    k = foot
    while k > 0 and levels[k] < least:
        k -= 1
    return k


@kernel(float64(VECTOR, int64, float64, VECTOR))
def _sharp_edge(
    levels: NDArray[np.float64], foot: int, rest: float, nyquist_hz: NDArray[np.float64]
) -> float:
    """Return where content ends, in Hz, if the last of the fall is steep; otherwise 0.

    The arguments are those of `_refine_edge`. A weak band falls towards its edge by as much as at
    it, so what the edge is compared with lies close to it.
    """
    first = int(NEAR_FROM * foot)
    last = max(int(NEAR_TO * foot), first + 1)
    near = 0.0
    for k in range(first, last):
        near += levels[k] / (last - first)
    half = _last_above(levels, foot, rest + 0.5 * (near - rest))
    if foot - half > SHARP_WIDTH * foot + SHARP_BINS:
        return 0.0
    half_hz = half * HZ_PER_BIN
    end = half_hz
    for nyquist in nyquist_hz:
        if SHARP_FROM * nyquist < half_hz < SHARP_TO * nyquist:
            end = NOMINAL * nyquist
    return end


@kernel(float64(VECTOR, int64, float64, VECTOR))
def _refine_edge(
    levels: NDArray[np.float64], foot: int, rest: float, clock: NDArray[np.float64]
) -> float:
    """Return where content ends, in Hz, given the first bin above an edge and the level left there.

    A good resampler has a transition band of 5 %, a simple one 20 %, filled with images. Most band
    limits are the Nyquist frequency of a common sample rate, so an edge close to one is put there.
    """
    nyquist_hz = clock[NYQUISTS:]
    if clock[PACE] > 1.0:
        sharp = _sharp_edge(levels, foot, rest, nyquist_hz)
        if sharp > 0.0:
            return sharp
    first = int(0.68 * foot)
    last = int(0.80 * foot)
    plateau = 0.0
    for k in range(first, last):
        plateau += levels[k] / (last - first)
    height = plateau - rest
    upper = _last_above(levels, foot, rest + 0.75 * height) * HZ_PER_BIN
    middle = _last_above(levels, foot, rest + 0.6 * height) * HZ_PER_BIN
    shoulder = _last_above(levels, foot, plateau - 12.0) * HZ_PER_BIN
    foot_hz = foot * HZ_PER_BIN
    if foot_hz - upper < 0.06 * foot_hz + 60.0:
        for nyquist in nyquist_hz:
            if 0.94 * nyquist < middle < 0.99 * nyquist:
                return NOMINAL * nyquist
        return _last_above(levels, foot, rest + 0.3 * height) * HZ_PER_BIN
    nearest = nyquist_hz[0]
    for nyquist in nyquist_hz:
        if abs(shoulder - SHOULDER * nyquist) < abs(shoulder - SHOULDER * nearest):
            nearest = nyquist
    # Images are lower than this from 1.1 of the frequency on; what reaches further is content.
    if 0.86 * nearest < shoulder < 1.135 * nearest:
        return NOMINAL * nearest
    return 0.5 * (shoulder + middle)


@kernel(types.UniTuple(float64, 3)(VECTOR, VECTOR, VECTOR))
def find_band_edge(
    levels: NDArray[np.float64], loudest_above: NDArray[np.float64], clock: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Find the lowest band edge in `levels` ``(bins,)`` dB.

    `loudest_above` ``(bins,)`` is scratch memory, `clock` is of `clock_of`.

    Returns:
        its frequency in Hz (`FULL_BAND_HZ` where there is none), the highest level above it in dB,
        and its height in dB.
    """
    bins = levels.size
    loudest_above[bins - 1] = levels[bins - 1]
    for k in range(bins - 2, -1, -1):
        loudest_above[k] = max(levels[k], loudest_above[k + 1])
    edge_bins, plateau_bins = int(clock[EDGE]), int(clock[PLATEAU])
    first = int(LOWEST_EDGE_HZ / HZ_PER_BIN)
    plateau = 0.0
    for k in range(first - plateau_bins, first):
        plateau += levels[k]
    for k in range(first, int(HIGHEST_EDGE_HZ / HZ_PER_BIN)):
        plateau += levels[k] - levels[k - plateau_bins]
        before = plateau / plateau_bins
        foot = k + edge_bins
        if before - loudest_above[foot] <= EDGE_DB:
            continue
        while foot + 2 < bins and loudest_above[foot] - loudest_above[foot + 2] > STEEP_DB:
            foot += 1
        rest = loudest_above[foot]
        height = before - rest
        low = k * HZ_PER_BIN < LOW_FREQUENCY_HZ
        if rest > EMPTY_DB and height < (LOW_FREQUENCY_EDGE_DB if low else HIGH_EDGE_DB):
            continue
        while foot > k and loudest_above[foot - 1] < rest + STEEP_DB:
            foot -= 1
        edge = _refine_edge(levels, foot, rest, clock)
        if edge > HIGHEST_EDGE_HZ:
            break
        return edge, rest, height
    return FULL_BAND_HZ, NOISE_FLOOR_DB, 0.0


@kernel(float64(VECTOR, float64, float64, VECTOR))
def find_empty_top(
    levels: NDArray[np.float64],
    least_hz: float,
    mirror_hz: float,
    clock: NDArray[np.float64],
) -> float:
    """Find the Nyquist frequency of a common rate above which `levels` ``(bins,)`` dB are empty.

    This finds limits without a band edge: little sound lies below them, or a slow filter made them.
    It may be wrong about quiet sound that ends there by itself. Where images are known to be,
    mirrored at `mirror_hz`, they may reach further than any slow filter's slope. `clock` is
    of `clock_of`.

    Returns the end of content in Hz, `FULL_BAND_HZ` if there is no such limit above `least_hz`.
    """
    top = levels.size - 1
    while top > 0 and levels[top] <= EMPTY_DB:
        top -= 1
    for index in range(NYQUISTS, clock.size):
        nyquist = clock[index]
        behind = (BEHIND_IMAGES if nyquist == mirror_hz else BEHIND_NYQUIST) * nyquist
        if index + 1 < clock.size:
            behind = min(behind, NEXT_BEGINS * clock[index + 1])
        if nyquist < least_hz or top * HZ_PER_BIN > behind:
            continue
        first, last = int(0.88 * nyquist / HZ_PER_BIN), int(0.95 * nyquist / HZ_PER_BIN)
        mean = 0.0
        for k in range(first, last):
            mean += levels[k] / (last - first)
        return NOMINAL * nyquist if mean > CONTENT_DB else FULL_BAND_HZ
    return FULL_BAND_HZ

"""Measure where the content of running streams ends: the work of one hop of one stream.

The states of any number of streams lie in arrays with a leading stream axis, so that a compiled
loop takes all streams of a batch without Python::

    for row in range(streams):
        cutoff_hz[row] = detect_bandwidth(state, row, hops[row], scratch)

A band limit shows as a band edge: the level drops by more than 20 dB within 600 Hz and stays low. A
voice between two sibilants may hold little above 6 kHz for a second, but it rolls off more slowly.
So band edges are not searched in one frame but in the maximum over several seconds of sound at each
frequency (the long memory); silence shows nothing and does not count as time.

Where a stream becomes narrower, the long memory would hide the new edge for as long. So the newest
fifth of a second (the short memory) is examined by itself too: an edge in it counts soon if the
content above it has just disappeared, and further than it did while the stream was wide.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float32, float64, from_dtype, int64, types, void
from numpy.typing import NDArray

from rtsr_kernels.timing import HOP, SAMPLE_RATE

from .band_limit import (
    BINS,
    EMPTY_DB,
    FRAME,
    FULL_BAND_HZ,
    FULL_FROM_HZ,
    HIGH_EDGE_DB,
    HZ_PER_BIN,
    NOISE_FLOOR_DB,
    NOMINAL,
    NYQUISTS,
    PACE,
    TREBLE,
    TREBLE_END,
    clock_of,
    find_band_edge,
    find_empty_top,
)
from .buffers import aligned_bytes
from .compiled import AUDIO, INDICES_IN, SAMPLES, VECTOR, kernel
from .decibels import to_decibels
from .fourier import real_fourier_tables, transform_real
from .fourier_lanes import LANES, power_of_lanes
from .images import BINS as IMAGE_BINS
from .images import FURTHEST, HITS, NYQUISTS_HZ, compare_bands, mirror_of_opus, mirrored_at

#: Above this multiple of its bound, half of the rate that it had, a stream holds nothing but what a
#: resampler leaves, and nothing is looked at.
BEHIND_BOUND = 1.3
#: Quieter hops (mean power of the channels, in dB relative to a full-scale sine) count as silence.
ACTIVE_DB = -62.0

#: The long memory: this many blocks of active frames, 0.5 s each.
BLOCKS = 12
BLOCK_FRAMES = 50
#: Active frames (10 ms each) that must agree before the estimate goes down.
DOWN_FRAMES = 50
#: The same for an edge that is not high, and beyond 48 kHz for one that a common rate has but that
#: may be a lossy coder's too.
LOW_EDGE_DOWN_FRAMES = 300
#: The same where lossy coders make holes that come and go, and where a limit is known already: it
#: holds until the memory has forgotten everything that it was measured on.
LONG_DOWN_FRAMES = BLOCKS * BLOCK_FRAMES + 50
#: Every time the estimate had to go up again the waiting time doubles, up to this factor.
LONGEST_PATIENCE = 16
#: Active frames with content above the estimate, among the newest `UP_MEMORY`, to go up. A
#: sibilant has at most 20, and two more for the length of a frame.
UP_FRAMES = 52
UP_MEMORY = 250
#: Content must exceed the level left above an edge by this much.
ABOVE_REST_DB = 10.0
#: Smaller relative changes are ignored; twice as much going down from a known limit.
HYSTERESIS = 0.05
#: Active frames from one look at each memory to the next, and where in them the long one's is: not
#: together with that at the short memory, so that no frame costs much more than the others.
EVALUATE_EVERY = 5
DOWN_EVERY, DOWN_AT = 10, 2

#: The short memory: this many blocks of `EVALUATE_EVERY` active frames.
RECENT_BLOCKS = 4
#: A new limit in it counts when what the evaluations add exceeds `ENOUGH_EVIDENCE`: each for
#: images, for an edge higher than any voice's (`SURE_EDGE_DB`), for one that few voices reach
#: (`CLEAR_EDGE_DB`), and for a lower one, or emptiness, where the strictest rule for "gone" holds.
#: Where what is gone may have gone because all became quieter, an edge counts less; and all but the
#: first two count half where the limit is not that of a common rate, as that of a voice may be
#: anywhere. A new limit must cut off a fifth of the band, as the steps between coders' bandwidths
#: do.
ENOUGH_EVIDENCE = 40
IMAGES_EVIDENCE, SURE_EVIDENCE, CLEAR_EVIDENCE, LOW_EVIDENCE, QUIETER_EVIDENCE = 15, 12, 8, 7, 4
DROP_SHARE = 0.8
CLEAR_EDGE_DB = 26.0
SURE_EDGE_DB = 35.0
LOWEST_EMPTY_HZ = 4000.0
#: The content above it must be gone: lower by `LOST_DB`, in the mean of `LOST_BINS` bins, than in
#: all but `LOST_EXCEPT` of the long memory's blocks, or in three quarters where they are few; at
#: least `LOST_BLOCKS`. By the strictest rule it must be lower than in every block.
LOST_DB = 10.0
LOST_EXCEPT = 2
LOST_BLOCKS = 4
LOST_BINS = 60
#: Shortly after a change fewer blocks are known; they do for an edge of this height with nothing
#: above it.
STEEPEST_EDGE_DB = 45.0
#: The limit of that factor for drops: a call that often changes its bandwidth is still followed.
LONGEST_DROP_PATIENCE = 2

#: Fewer streams are processed faster one by one.
FEWEST_LANES = 8
#: Rows that are turned between one stream's order and that of the lanes while they are in cache.
_TILE = 8

_ACTIVE_POWER = 0.5 * 10 ** (ACTIVE_DB / 10)
_LEAST_POWER = 10.0 ** (NOISE_FLOOR_DB / 10.0)
_HANN = np.hanning(FRAME + 1)[:FRAME]
_WINDOW = (_HANN * (2.0 / _HANN.sum())).astype(np.float32)
_QUARTER, _HALF = np.float32(0.25), np.float32(0.5)
_COSINES, _SINES, _ORDER, _TURN_COSINES, _TURN_SINES = real_fourier_tables(FRAME)

VALUES = np.dtype(
    [
        ("cutoff_hz", np.float64),
        ("start_hz", np.float64),
        ("bound_hz", np.float64),
        ("rest_db", np.float64),
        ("candidate_hz", np.float64),
        ("agreed", np.int64),
        ("patience", np.int64),
        ("frames", np.int64),
        ("active_hops", np.int64),
        ("oldest", np.int64),
        ("flag", np.int64),
        ("above_frames", np.int64),
        ("above_held", np.int64),
        ("drop_hz", np.float64),
        ("dropped", np.int64),
        ("since", np.int64),
        ("bins", np.int64),
    ],
    align=True,
)
"""Scalars of one stream; ``cutoff_hz`` is the current estimate.

``start_hz`` and ``bound_hz`` are the arguments of :func:`start_bandwidth`, ``rest_db`` is the level
left above the edge, ``candidate_hz`` and ``agreed`` are the limit that the long memory shows and
for how many frames, ``drop_hz`` and ``dropped`` that of the short memory and the evidence for it,
``patience`` the factor on the waiting times, ``frames`` the active frames so far, ``active_hops``
those in a row, ``oldest`` the place of the oldest sample in the history, ``flag`` the place in the
ring of flags, ``above_frames`` the flags that are set, ``above_held`` the frames held in
``content_above``, ``since`` the first block after the newest change, ``bins`` how many of the
spectrum are looked at.
"""


class BandwidthState(NamedTuple):
    """State of the detectors of many streams; one row per stream in each array."""

    values: NDArray[Any]
    """``(streams,)`` of `VALUES`."""
    history: NDArray[np.float32]
    """``(streams, channels, FRAME)``: the newest samples, a ring that begins at ``oldest``."""
    blocks: NDArray[np.float32]
    """``(streams, BLOCKS, BINS)``: the highest power of each bin, block by block."""
    recent: NDArray[np.float32]
    """``(streams, RECENT_BLOCKS, BINS)``: the same for the short memory."""
    content_above: NDArray[np.float32]
    """``(streams, 2, BINS)``: the same of the first and the second half of the frames that had
    content above the estimate."""
    flags: NDArray[np.bool_]
    """``(streams, UP_MEMORY * pace)``: which of the newest frames had content above the
    estimate."""
    images_above: NDArray[np.float64]
    """``(streams, mirrors, bins)``, as the next two: see `rtsr_kernels.images.compare_bands`."""
    images_below: NDArray[np.float64]
    images_ratio: NDArray[np.float64]
    clock: NDArray[np.float64]
    """Of all streams: see `rtsr_kernels.band_limit.clock_of`."""


class BandwidthScratch(NamedTuple):
    """Scratch memory of one thread; nothing in it is kept between calls."""

    windowed: NDArray[np.float32]
    real: NDArray[np.float32]
    imaginary: NDArray[np.float32]
    power: NDArray[np.float64]
    levels: NDArray[np.float64]
    loudest_above: NDArray[np.float64]


class BandwidthLanes(NamedTuple):
    """Scratch memory of one thread for the spectra of `LANES` streams side by side."""

    real: NDArray[np.float32]
    """``(BINS, LANES)``, as the next two."""
    imaginary: NDArray[np.float32]
    power: NDArray[np.float32]
    smooth: NDArray[np.float32]
    """``(LANES, BINS)``: a row per stream again."""


_ROWS = types.Array(float32, 2, "C")
STATE = types.NamedTuple(
    [
        types.Array(from_dtype(VALUES), 1, "C"),
        types.Array(float32, 3, "C"),
        types.Array(float32, 3, "C"),
        types.Array(float32, 3, "C"),
        types.Array(float32, 3, "C"),
        types.Array(boolean, 2, "C"),
        types.Array(float64, 3, "C"),
        types.Array(float64, 3, "C"),
        types.Array(float64, 3, "C"),
        VECTOR,
    ],
    BandwidthState,
)
"""numba's type of `BandwidthState`, for signatures of callers."""
SCRATCH = types.NamedTuple([SAMPLES, SAMPLES, SAMPLES, VECTOR, VECTOR, VECTOR], BandwidthScratch)
"""numba's type of `BandwidthScratch`, for signatures of callers."""
LANE_SCRATCH = types.NamedUniTuple(AUDIO, 4, BandwidthLanes)
"""numba's type of `BandwidthLanes`."""
HOP_IN = types.Array(float32, 2, "A", readonly=True)
"""A hop ``(480, channels)`` float32 in any layout: a slice or a transposed view will do."""


def bandwidth_state(streams: int, channels: int, rate: int = SAMPLE_RATE) -> BandwidthState:
    """Allocate the state of detectors for `streams` streams of up to `channels` channels each.

    Streams of a `rate` above 48000 Hz count as sound at 48 kHz on a faster clock, and so do their
    frequencies. Every row must be started with `start_bandwidth` before its first hop.
    """
    image_rows = (streams, len(NYQUISTS_HZ))
    clock = clock_of(rate)
    return BandwidthState(
        values=np.zeros(streams, VALUES),
        history=np.zeros((streams, channels, FRAME), np.float32),
        blocks=np.zeros((streams, BLOCKS, BINS), np.float32),
        recent=np.zeros((streams, RECENT_BLOCKS, BINS), np.float32),
        content_above=np.zeros((streams, 2, BINS), np.float32),
        flags=np.zeros((streams, UP_MEMORY * int(clock[PACE])), np.bool_),
        images_above=np.zeros((*image_rows, IMAGE_BINS)),
        images_below=np.zeros((*image_rows, IMAGE_BINS)),
        images_ratio=np.zeros((*image_rows, 4)),
        clock=clock,
    )


def bandwidth_scratch() -> BandwidthScratch:
    """Allocate the scratch memory of one thread."""
    return BandwidthScratch(
        windowed=np.zeros(FRAME, np.float32),
        real=np.zeros(BINS, np.float32),
        imaginary=np.zeros(BINS, np.float32),
        power=np.zeros(BINS),
        levels=np.zeros(BINS),
        loudest_above=np.zeros(BINS),
    )


def bandwidth_lanes() -> BandwidthLanes:
    """Allocate the scratch memory of one thread for many streams side by side."""
    # On cache lines, which whole vectors then do not straddle.
    real, imaginary, power = (
        aligned_bytes(4 * BINS * LANES).view(np.float32).reshape(BINS, LANES) for _ in range(3)
    )
    smooth = np.zeros((LANES, BINS), np.float32)
    return BandwidthLanes(real, imaginary, power, smooth)


@kernel(void(STATE, int64))
def _forget_content_above(state: BandwidthState, row: int) -> None:
    state.flags[row, :] = False
    state.values[row].flag = 0
    state.values[row].above_frames = 0


@kernel(void(STATE, int64))
def _forget_images(state: BandwidthState, row: int) -> None:
    """Forget the averages over images; how well those of Opus fit restarts too."""
    state.images_above[row, :, :] = 0.0
    state.images_below[row, :, :] = 0.0
    state.images_ratio[row, :, :HITS] = 0.0


@kernel(void(STATE, int64, float64, float64))
def start_bandwidth(state: BandwidthState, row: int, start_hz: float, bound_hz: float) -> None:
    """Start a stream in one row of `state`; what was there is forgotten.

    Args:
        state: of `bandwidth_state`.
        row: of the stream.
        start_hz: where its content is expected to end, in Hz; `FULL_BAND_HZ` if nothing is known.
        bound_hz: the highest estimate, the Nyquist frequency of the stream's own rate in Hz.
    """
    values = state.values[row]
    values.bound_hz = FULL_BAND_HZ if bound_hz >= FULL_FROM_HZ else bound_hz
    start = min(start_hz, values.bound_hz)
    values.start_hz = FULL_BAND_HZ if start >= FULL_FROM_HZ else start
    values.cutoff_hz = values.start_hz
    values.rest_db = NOISE_FLOOR_DB
    values.candidate_hz = FULL_BAND_HZ
    values.agreed = 0
    values.patience = 1
    values.frames = 0
    values.active_hops = 0
    values.oldest = 0
    values.drop_hz = FULL_BAND_HZ
    values.dropped = 0
    values.since = 0
    values.bins = min(BINS, int(BEHIND_BOUND * values.bound_hz / HZ_PER_BIN))
    state.history[row, :, :] = 0.0
    state.images_ratio[row, :, :] = 0.0
    _forget_images(state, row)
    _forget_content_above(state, row)


@kernel(void(STATE, int64, int64, SCRATCH))
def _frame_power(state: BandwidthState, row: int, channels: int, scratch: BandwidthScratch) -> None:
    """Fill `scratch.power` from the history: the loudest channel, smoothed over three bins."""
    windowed, power = scratch.windowed, scratch.power
    bins = state.values[row].bins
    power[bins:] = 0.0
    real, imaginary = scratch.real, scratch.imaginary
    for channel in range(channels):
        history = state.history[row, channel]
        oldest = state.values[row].oldest
        for i in range(FRAME - oldest):
            windowed[i] = _WINDOW[i] * history[oldest + i]
        for i in range(oldest):
            windowed[FRAME - oldest + i] = _WINDOW[FRAME - oldest + i] * history[i]
        transform_real(
            windowed, real, imaginary, _COSINES, _SINES, _ORDER, _TURN_COSINES, _TURN_SINES
        )
        before = float32(0.0)
        here = real[0] * real[0]
        for k in range(bins):
            after = float32(0.0)
            if k + 1 < BINS:
                after = real[k + 1] * real[k + 1] + imaginary[k + 1] * imaginary[k + 1]
            smooth = _QUARTER * before + _HALF * here + _QUARTER * after
            if channel == 0 or smooth > power[k]:
                power[k] = smooth
            before = here
            here = after


@kernel(void(VECTOR, int64, types.Array(float32, 1, "C"), boolean))
def _hold_maximum(
    power: NDArray[np.float64], bins: int, held: NDArray[np.float32], start: bool
) -> None:
    """Keep the maximum of each of the first `bins`; with `start` the maximum begins anew."""
    if start:
        held[:bins] = 0.0
    for k in range(bins):
        value = np.float32(power[k])
        held[k] = value if value > held[k] else held[k]


@kernel(void(_ROWS, int64, int64, SCRATCH))
def _loudest_levels(
    blocks: NDArray[np.float32], count: int, bins: int, scratch: BandwidthScratch
) -> None:
    """Fill `scratch.levels` with the maximum of the first `count` blocks, in dB.

    Nothing is expected above the first `bins`.
    """
    levels = scratch.levels[:bins]
    levels[:] = _LEAST_POWER
    for i in range(count):
        block = blocks[i]
        for k in range(bins):
            value = float64(block[k])
            levels[k] = value if value > levels[k] else levels[k]
    to_decibels(levels, scratch.loudest_above)
    scratch.levels[bins:] = NOISE_FLOOR_DB


@kernel(boolean(VECTOR, int64, float64))
def _has_content(power: NDArray[np.float64], first: int, least: float) -> bool:
    """Whether any stretch of about 300 Hz from bin `first` up exceeds `least` throughout."""
    run = 0
    for k in range(first, BINS):
        run = run + 1 if power[k] > least else 0
        if run == 6:
            return True
    return False


@kernel(types.Tuple([float64, float64, float64, boolean])(STATE, int64, SCRATCH))
def _find_end(
    state: BandwidthState, row: int, scratch: BandwidthScratch
) -> tuple[float, float, float, bool]:
    """Find the end of content in `scratch.levels`, the level above it and the height of its edge.

    Images are no content: where there are some, content ends at their mirror frequency. The last
    value says whether there are.
    """
    found, rest, height = find_band_edge(scratch.levels, scratch.loudest_above, state.clock)
    mirror = mirrored_at(
        found, state.images_above[row], state.images_below[row], state.images_ratio[row]
    )
    if mirror > 0.0:
        return NOMINAL * mirror, rest, height, True
    return found, rest, height, False


@kernel(void(STATE, int64, float64, float64))
def _move(state: BandwidthState, row: int, hz: float, rest_db: float) -> None:
    values = state.values[row]
    values.cutoff_hz = min(FULL_BAND_HZ if hz >= FULL_FROM_HZ else hz, values.bound_hz)
    values.rest_db = rest_db
    values.agreed = 0
    values.dropped = 0
    values.since = values.frames // (BLOCK_FRAMES * int(state.clock[PACE])) + 1
    _forget_content_above(state, row)


@kernel(boolean(float64, VECTOR))
def _is_common(hz: float, clock: NDArray[np.float64]) -> bool:
    """Whether a limit in Hz is that of one of the common rates."""
    nearest = FULL_BAND_HZ
    for nyquist in clock[NYQUISTS:]:
        nearest = min(nearest, abs(hz - NOMINAL * nyquist))
    return nearest < 1.0


@kernel(boolean(float64, VECTOR))
def _is_treble(hz: float, clock: NDArray[np.float64]) -> bool:
    """Whether what ends there may be a lossy coder's hole."""
    return clock[TREBLE] <= hz < clock[TREBLE_END]


@kernel(void(STATE, int64, SCRATCH))
def _update_down(state: BandwidthState, row: int, scratch: BandwidthScratch) -> None:
    """Lower the estimate where the long memory has shown a lower limit for long enough."""
    values = state.values[row]
    frames = BLOCK_FRAMES * int(state.clock[PACE])
    count = min(BLOCKS, (values.frames + frames - 1) // frames)
    _loudest_levels(state.blocks[row], count, values.bins, scratch)
    found, rest, height, has_images = _find_end(state, row, scratch)
    known = values.cutoff_hz < FULL_BAND_HZ
    hysteresis = 2 * HYSTERESIS if known else HYSTERESIS
    if found >= values.cutoff_hz * (1.0 - hysteresis):
        values.agreed = 0
        return
    if abs(found - values.candidate_hz) > HYSTERESIS * found:
        values.agreed = 0
    values.candidate_hz = found
    values.agreed += DOWN_EVERY
    is_treble = _is_treble(found, state.clock)
    may_be_rate = state.clock[PACE] > 1.0 and _is_common(found, state.clock)
    if has_images:
        enough = DOWN_FRAMES
    elif known or (is_treble and not may_be_rate):
        enough = LONG_DOWN_FRAMES
    elif is_treble or height < HIGH_EDGE_DB:
        enough = LOW_EDGE_DOWN_FRAMES
    else:
        enough = DOWN_FRAMES
    if values.agreed > enough * values.patience:
        _move(state, row, found, rest)


@kernel(float64(types.Array(float32, 1, "C"), int64, int64))
def _mean_level(power: NDArray[np.float32], first: int, last: int) -> float:
    """Return the mean level of bins `first` to `last` (exclusive), in dB."""
    total = 0.0
    for k in range(first, last):
        total += max(NOISE_FLOOR_DB, 10.0 * np.log10(power[k] + 1e-20))
    return total / (last - first)


@kernel(types.UniTuple(int64, 3)(STATE, int64, float64, SCRATCH))
def _count_fallen(
    state: BandwidthState, row: int, hz: float, scratch: BandwidthScratch
) -> tuple[int, int, int]:
    """Count blocks of the long memory that had more between `hz` and the estimate.

    `scratch.levels` is compared with blocks that are older than the short memory: a voice without a
    sibilant for a while is as low there as it has been before.

    Returns:
        the blocks since the newest change, those that were louder by `LOST_DB`, and those that were
        so relative to the band below `hz`: a sound that became quieter as a whole does not count.
    """
    values = state.values[row]
    first = int(hz / HZ_PER_BIN) + 3
    last = min(first + LOST_BINS, max(int(values.cutoff_hz / HZ_PER_BIN), first + 6), values.bins)
    first_below, last_below = int(0.55 * hz / HZ_PER_BIN), int(0.77 * hz / HZ_PER_BIN)
    above, below = 0.0, 0.0
    for k in range(first, last):
        above += scratch.levels[k] / (last - first)
    for k in range(first_below, last_below):
        below += scratch.levels[k] / (last_below - first_below)
    # The short memory may reach back into the last block but one.
    newest = (values.frames - 1) // (BLOCK_FRAMES * int(state.clock[PACE])) - 2
    oldest = max(values.since, newest + 3 - BLOCKS)
    fallen, relative = 0, 0
    for block in range(oldest, newest + 1):
        before = state.blocks[row, block % BLOCKS]
        lost = _mean_level(before, first, last) - above
        if lost > LOST_DB:
            fallen += 1
            louder_below = _mean_level(before, first_below, last_below) - below
            relative += int(lost - max(0.0, louder_below) > LOST_DB)
    return max(0, newest + 1 - oldest), fallen, relative


@kernel(int64(int64, int64, int64, float64, float64, boolean, boolean))
def weigh_limit(
    blocks: int,
    fallen: int,
    relative: int,
    height: float,
    rest: float,
    has_images: bool,
    is_common: bool,
) -> int:
    """Return the evidence for a limit, 0 for none.

    The first three are what `_count_fallen` tells; `height` and `rest` are its edge's;
    `is_common` says whether it is that of a common rate.
    """
    enough = max(LOST_BLOCKS, blocks - min(LOST_EXCEPT, blocks // 4))
    is_gone = fallen >= enough
    if blocks < LOST_BLOCKS:
        is_gone = fallen == blocks and height >= STEEPEST_EDGE_DB and rest <= EMPTY_DB
        return SURE_EVIDENCE if is_gone else 0
    if has_images:
        return IMAGES_EVIDENCE if is_gone else 0
    if is_gone and height >= SURE_EDGE_DB and relative >= enough:
        return SURE_EVIDENCE
    evidence = 0
    if height < CLEAR_EDGE_DB:
        evidence = LOW_EVIDENCE if relative == blocks else 0
    elif is_gone:
        evidence = CLEAR_EVIDENCE if relative >= enough else QUIETER_EVIDENCE
    return evidence if is_common else evidence // 2


@kernel(void(STATE, int64, SCRATCH))
def _update_drop(state: BandwidthState, row: int, scratch: BandwidthScratch) -> None:
    """Lower the estimate at once where the content above a limit has just disappeared."""
    values = state.values[row]
    if values.frames < (LOST_BLOCKS + 1) * BLOCK_FRAMES * int(state.clock[PACE]):
        return
    _loudest_levels(state.recent[row], RECENT_BLOCKS, values.bins, scratch)
    found, rest, height = find_band_edge(scratch.levels, scratch.loudest_above, state.clock)
    mirror = NOMINAL * mirror_of_opus(state.images_ratio[row])
    has_images = 0.0 < mirror < found
    if found == FULL_BAND_HZ:
        least_hz = LOWEST_EMPTY_HZ / state.clock[PACE]
        found = find_empty_top(scratch.levels, least_hz, 0.0, state.clock)
        # So high, weak content often is where little is left of it, at any rate of the stream.
        if found >= state.clock[TREBLE]:
            found = FULL_BAND_HZ
    end = found * (1.0 + 2 * HYSTERESIS)
    if has_images:
        found = mirror
        end = mirror * (1.0 + FURTHEST)
    evidence = 0
    if found <= DROP_SHARE * values.cutoff_hz and not _is_treble(found, state.clock):
        blocks, fallen, relative = _count_fallen(state, row, end, scratch)
        evidence = weigh_limit(
            blocks,
            fallen,
            relative,
            height,
            rest,
            has_images,
            _is_common(found, state.clock),
        )
    if evidence == 0 or abs(found - values.drop_hz) > HYSTERESIS * found:
        values.dropped = 0
    if evidence == 0:
        return
    values.drop_hz = found
    values.dropped += evidence
    if values.dropped > ENOUGH_EVIDENCE * min(values.patience, LONGEST_DROP_PATIENCE):
        _move(state, row, found, rest)
        _forget_images(state, row)


@kernel(void(STATE, int64, SCRATCH))
def _update_up(state: BandwidthState, row: int, scratch: BandwidthScratch) -> None:
    """Raise the estimate where enough of the newest frames had content above it."""
    values = state.values[row]
    least_hz = values.cutoff_hz * (1.0 + 2 * HYSTERESIS)
    mirror = mirror_of_opus(state.images_ratio[row])
    if abs(NOMINAL * mirror - values.cutoff_hz) < HYSTERESIS * values.cutoff_hz:
        least_hz = max(least_hz, mirror * (1.0 + FURTHEST))
    first = int(least_hz / HZ_PER_BIN) + 3
    least = 10 ** ((values.rest_db + ABOVE_REST_DB) / 10)
    is_above = _has_content(scratch.power, first, least)
    enough = UP_FRAMES * int(state.clock[PACE])
    if is_above:
        if values.above_frames == 0:
            values.above_held = 0
        # A single click, as where two sounds were cut together, is in one of the two halves only.
        half = min(2 * values.above_held // enough, 1)
        is_first = 2 * values.above_held == half * enough
        _hold_maximum(scratch.power, values.bins, state.content_above[row, half], is_first)
        values.above_held += 1
    values.above_frames += int(is_above) - int(state.flags[row, values.flag])
    state.flags[row, values.flag] = is_above
    values.flag = (values.flag + 1) % (UP_MEMORY * int(state.clock[PACE]))
    if values.above_frames < enough:
        return
    for k in range(values.bins):
        state.content_above[row, 0, k] = min(
            state.content_above[row, 0, k], state.content_above[row, 1, k]
        )
    _loudest_levels(state.content_above[row], 1, values.bins, scratch)
    found, rest, _, _ = _find_end(state, row, scratch)
    if found == FULL_BAND_HZ:
        found = find_empty_top(
            scratch.levels, values.cutoff_hz * (1.0 + HYSTERESIS), mirror, state.clock
        )
    if found > values.cutoff_hz * (1.0 + HYSTERESIS):
        _move(state, row, found, rest)
        values.patience = min(2 * values.patience, LONGEST_PATIENCE)
    else:
        values.rest_db = max(values.rest_db, rest)
        _forget_content_above(state, row)


@kernel(void(STATE, int64, SCRATCH))
def _update(state: BandwidthState, row: int, scratch: BandwidthScratch) -> None:
    """Update the state with the spectrum in `scratch.power`, one more active frame."""
    values = state.values[row]
    pace = int(state.clock[PACE])
    block, frame = divmod(values.frames, BLOCK_FRAMES * pace)
    _hold_maximum(scratch.power, values.bins, state.blocks[row, block % BLOCKS], frame == 0)
    compare_bands(
        scratch.power, state.images_above[row], state.images_below[row], state.images_ratio[row]
    )
    block, frame = divmod(values.frames, EVALUATE_EVERY * pace)
    _hold_maximum(scratch.power, values.bins, state.recent[row, block % RECENT_BLOCKS], frame == 0)
    values.frames += 1
    if values.frames % (EVALUATE_EVERY * pace) == 0:
        _update_drop(state, row, scratch)
    if values.frames % (DOWN_EVERY * pace) == DOWN_AT:
        _update_down(state, row, scratch)
    if values.cutoff_hz < values.bound_hz:
        _update_up(state, row, scratch)


@kernel(boolean(HOP_IN))
def is_sound(hop: NDArray[np.float32]) -> bool:
    """Say whether a hop ``(480, channels)`` is loud enough to be measured.

    A hop that holds NaN counts as silence.
    """
    # Four sums side by side: one would wait for each addition before the next.
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for channel in range(hop.shape[1]):
        for frame in range(0, HOP, 4):
            a += float(hop[frame, channel]) ** 2
            b += float(hop[frame + 1, channel]) ** 2
            c += float(hop[frame + 2, channel]) ** 2
            d += float(hop[frame + 3, channel]) ** 2
    return _ACTIVE_POWER * hop.size < (a + b) + (c + d) < np.inf


@kernel(boolean(STATE, int64, boolean))
def has_spectrum(state: BandwidthState, row: int, active: bool) -> bool:
    """Say whether a stream's history is to be measured, given whether its next hop is active.

    A stream that is muted or that begins in the middle of a sound clicks, and a click is full band:
    a spectrum counts only if all hops in it and the one after it are active.
    """
    return active and state.values[row].active_hops * HOP >= FRAME


@kernel(void(STATE, int64, HOP_IN, boolean))
def end_hop(state: BandwidthState, row: int, hop: NDArray[np.float32], active: bool) -> None:
    """Append a hop to the history of one stream."""
    values = state.values[row]
    oldest = values.oldest
    first = min(HOP, FRAME - oldest)
    for channel in range(hop.shape[1]):
        history = state.history[row, channel]
        for i in range(first):
            history[oldest + i] = hop[i, channel]
        for i in range(HOP - first):
            history[i] = hop[first + i, channel]
    values.oldest = (oldest + HOP) % FRAME
    values.active_hops = values.active_hops + 1 if active else 0


@kernel(void(AUDIO, int64, AUDIO))
def _smooth_lanes(power: NDArray[np.float32], bins: int, smooth: NDArray[np.float32]) -> None:
    """Smooth the first `bins` of ``(BINS, LANES)`` over three, into ``(LANES, BINS)``."""
    for lane in range(LANES):
        smooth[lane, 0] = _HALF * power[0, lane] + _QUARTER * power[1, lane]
        smooth[lane, BINS - 1] = _QUARTER * power[BINS - 2, lane] + _HALF * power[BINS - 1, lane]
    last = min(bins, BINS - 1)
    for first in range(1, last, _TILE):
        for lane in range(LANES):
            for k in range(first, min(first + _TILE, last)):
                smooth[lane, k] = (
                    _QUARTER * power[k - 1, lane]
                    + _HALF * power[k, lane]
                    + _QUARTER * power[k + 1, lane]
                )


@kernel(void(STATE, INDICES_IN, SCRATCH, LANE_SCRATCH))
def update_rows(
    state: BandwidthState, rows: np.ndarray, scratch: BandwidthScratch, lanes: BandwidthLanes
) -> None:
    """Update up to `LANES` mono streams from their histories, side by side.

    `has_spectrum` must be true of each. The result is bit-identical to :func:`detect_bandwidth`.
    """
    count = rows.shape[0]
    if count < FEWEST_LANES:
        for index in range(count):
            _frame_power(state, rows[index], 1, scratch)
            _update(state, rows[index], scratch)
        return
    real, imaginary, power = lanes.real, lanes.imaginary, lanes.power
    for first in range(0, FRAME // 2, _TILE):
        for lane in range(LANES):
            # An empty lane costs as much as a full one.
            row = rows[min(lane, count - 1)]
            # A ring's ends lie between tiles.
            start = (state.values[row].oldest + 2 * first) % FRAME
            history = state.history[row, 0, start : start + 2 * _TILE]
            for i in range(_TILE):
                at = _ORDER[first + i]
                real[at, lane] = _WINDOW[2 * (first + i)] * history[2 * i]
                imaginary[at, lane] = _WINDOW[2 * (first + i) + 1] * history[2 * i + 1]
    most = 0
    for lane in range(count):
        most = max(most, state.values[rows[lane]].bins)
    power_of_lanes(
        real,
        imaginary,
        min(most + 1, BINS),
        power,
        _COSINES,
        _SINES,
        _TURN_COSINES,
        _TURN_SINES,
    )
    _smooth_lanes(power, most, lanes.smooth)
    for lane in range(count):
        bins = state.values[rows[lane]].bins
        scratch.power[:bins] = lanes.smooth[lane, :bins]
        scratch.power[bins:] = 0.0
        _update(state, rows[lane], scratch)


@kernel(float64(STATE, int64, HOP_IN, SCRATCH))
def detect_bandwidth(
    state: BandwidthState, row: int, hop: NDArray[np.float32], scratch: BandwidthScratch
) -> float:
    """Process one hop of the stream in one row and return where its content ends, in Hz.

    Args:
        state: of `bandwidth_state`, the row started by `start_bandwidth`.
        row: of the stream.
        hop: ``(480, channels)`` float32 at 48 kHz, with no more channels than `state` was allocated
            for, and the same number for the whole stream.
        scratch: of `bandwidth_scratch`, used by this thread alone.

    Raises:
        ValueError: a hop of another shape.
    """
    frames, channels = hop.shape
    if frames != HOP or not 0 < channels <= state.history.shape[1]:
        raise ValueError("detect_bandwidth: a hop must be (480, channels)")
    active = is_sound(hop)
    if has_spectrum(state, row, active):
        _frame_power(state, row, channels, scratch)
        _update(state, row, scratch)
    end_hop(state, row, hop, active)
    return state.values[row].cutoff_hz

"""Crossover: add the generated high band to the dry signal without clicks.

The states of any number of streams lie in arrays with a leading axis; a *slot* is one channel of
one stream. A new cutoff is faded in over one hop (10 ms), so is a new wet gain. Silence closes a
gate for its channel within one hop. Where no band is missing nothing is added, and the dry signal
passes bit for bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float32, float64, from_dtype, int64, types, void
from numpy.typing import NDArray

from .compiled import (
    AUDIO,
    AUDIO_IN,
    INDICES_IN,
    LINE,
    LINE_IN,
    MATRIX,
    SAMPLES,
    SAMPLES_IN,
    STATE,
    kernel,
)
from .crossfade import crossfade_linear
from .highpass import LANES, SECTIONS, filter_lanes, filter_line
from .timing import HOP

MAX_CHANNELS = 8

#: Half of one 16-bit step. A stretch that a 16-bit file can only store as zeros is silence, to
#: which no high band is added.
SILENCE_PEAK = np.float32(0.5 / 32768.0)
# The gate opens at once, since an attack must keep its high band, but not as a step.
_OPENING_SAMPLES = 64

_CLOSING_RAMP = np.linspace(1.0, 0.0, HOP + 1, dtype=np.float32)[1:].copy()
_OPENING_RAMP = np.minimum(
    np.arange(1, HOP + 1, dtype=np.float32) / np.float32(_OPENING_SAMPLES), np.float32(1.0)
)
_RISING = np.arange(1, HOP + 1, dtype=np.float32) / np.float32(HOP)

VALUES = np.dtype(
    [
        ("channels", np.int64),
        ("wet", np.float64),
        ("next_wet", np.float64),
        ("mixed_wet", np.float64),
        ("mixed_hz", np.float64),
        ("fresh", np.bool_),
        ("adds", np.bool_),
    ],
    align=True,
)
"""Scalars of one stream.

``wet`` is the wanted gain, which another thread may set at any time, ``next_wet`` what it was when
the present step was planned, ``mixed_wet`` and ``mixed_hz`` are gain and crossover frequency of the
last hop, ``fresh`` says that no hop has been processed yet, ``adds`` that the last step added
something to the dry signal.
"""


class CrossoverState(NamedTuple):
    """State of the crossovers of many streams; see `crossover_state`."""

    values: NDArray[Any]
    """``(streams,)`` of `VALUES`."""
    slots: NDArray[np.int64]
    """``(streams, 8)``: the slot of each channel."""
    hz: NDArray[np.float64]
    """``(streams, hops)``: crossover frequencies of the step's hops; NaN adds no high band."""
    sos: NDArray[np.float64]
    """``(streams, hops + 1, 4, 6)``: the high-pass in use, then those of the step's hops."""
    filters: NDArray[np.float64]
    """``(slots, 4, 2)``: memory of the high-pass."""
    is_open: NDArray[np.bool_]
    """``(slots,)``: whether the gate for silence is open."""
    delayed: NDArray[np.float32]
    """``(slots, overlap)``: the newest input, which is output with the next step."""


class CrossoverScratch(NamedTuple):
    """Scratch memory of one thread; nothing in it is kept between calls."""

    filtered: NDArray[np.float32]
    incoming: NDArray[np.float32]
    fading: NDArray[np.float64]
    lanes: NDArray[np.float64]
    lane_sos: NDArray[np.float64]
    lane_states: NDArray[np.float64]
    lane_slots: NDArray[np.int64]
    lane_rows: NDArray[np.int64]


CROSSOVER = types.NamedTuple(
    [
        types.Array(from_dtype(VALUES), 1, "C"),
        types.Array(int64, 2, "C"),
        MATRIX,
        types.Array(float64, 4, "C"),
        STATE,
        types.Array(boolean, 1, "C"),
        AUDIO,
    ],
    CrossoverState,
)
"""numba's type of `CrossoverState`."""
SCRATCH = types.NamedTuple(
    [
        SAMPLES,
        SAMPLES,
        MATRIX,
        MATRIX,
        STATE,
        STATE,
        types.Array(int64, 1, "C"),
        types.Array(int64, 1, "C"),
    ],
    CrossoverScratch,
)
"""numba's type of `CrossoverScratch`."""


def crossover_state(streams: int, slots: int, hops: int, overlap: int) -> CrossoverState:
    """Allocate the state of `streams` streams of `slots` channels in total, `hops` hops a step.

    `overlap` is the delay in samples of the high band behind the input. A row is started with
    `start_crossover`.
    """
    return CrossoverState(
        values=np.zeros(streams, VALUES),
        slots=np.zeros((streams, MAX_CHANNELS), np.int64),
        hz=np.full((streams, hops), np.nan),
        sos=np.zeros((streams, hops + 1, SECTIONS, 6)),
        filters=np.zeros((slots, SECTIONS, 2)),
        is_open=np.zeros(slots, np.bool_),
        delayed=np.zeros((slots, overlap), np.float32),
    )


def crossover_scratch(hops: int) -> CrossoverScratch:
    """Allocate the scratch memory of one thread."""
    return CrossoverScratch(
        filtered=np.zeros(HOP * hops, np.float32),
        incoming=np.zeros(HOP, np.float32),
        fading=np.zeros((SECTIONS, 2)),
        lanes=np.zeros((HOP * hops, LANES)),
        lane_sos=np.zeros((SECTIONS, 6, LANES)),
        lane_states=np.zeros((SECTIONS, 2, LANES)),
        lane_slots=np.zeros(LANES, np.int64),
        lane_rows=np.zeros(LANES, np.int64),
    )


@kernel(void(CROSSOVER, int64))
def clear_filters(state: CrossoverState, row: int) -> None:
    """Clear the high-pass memory of one stream, so that nothing rings on."""
    for channel in range(state.values[row].channels):
        state.filters[state.slots[row, channel], :, :] = 0.0


@kernel(void(CROSSOVER, int64))
def start_crossover(state: CrossoverState, row: int) -> None:
    """Forget the past of one stream: its next hop is the first, its cutoff applies at once."""
    values = state.values[row]
    values.fresh = True
    values.mixed_wet = 0.0
    values.mixed_hz = np.nan
    clear_filters(state, row)
    for channel in range(values.channels):
        slot = state.slots[row, channel]
        state.is_open[slot] = False
        state.delayed[slot, :] = 0.0


@kernel(int64(CROSSOVER, INDICES_IN, types.Array(boolean, 1, "C")))
def find_new_cutoffs(state: CrossoverState, rows: np.ndarray, is_new: np.ndarray) -> int:
    """Compare `hz` with the filters in use; return how many of `rows` need another high-pass.

    ``is_new[i]`` says whether ``rows[i]`` does. For these the caller designs the filters into
    ``sos[row, 1 + hop]``; for the others the filter in use is copied there.
    """
    hops = state.hz.shape[1]
    count = 0
    for index in range(rows.shape[0]):
        row = rows[index]
        values = state.values[row]
        # Read once: all channels and hops of a step have the same gain.
        wet = values.wet
        values.next_wet = wet
        fresh = values.fresh
        if fresh:
            values.fresh = False
            # NaN differs from every frequency, so that the filter is designed; it is not faded in.
            values.mixed_hz = np.nan
            values.mixed_wet = wet
        before = values.mixed_hz
        new = False
        values.adds = False
        for hop in range(hops):
            hz = state.hz[row, hop]
            new = new or not (hz == before or np.isnan(hz))
            passes = not (np.isnan(hz) and np.isnan(before))
            if passes and (wet != 0.0 or values.mixed_wet != 0.0):
                values.adds = True
            before = hz
        if fresh:
            values.mixed_hz = state.hz[row, 0]
        is_new[index] = new
        if new:
            count += 1
        else:
            for hop in range(hops):
                state.sos[row, 1 + hop] = state.sos[row, 0]
    return count


@kernel([void(SAMPLES, line, boolean, boolean, float64, float64) for line in (SAMPLES, LINE)])
def _add(
    filtered: np.ndarray, out: np.ndarray, was_open: bool, is_open: bool, before: float, wet: float
) -> None:
    """Add one hop of the high band to `out`, scaled by gate and gain, both of which may change."""
    rise = float32(wet - before)
    start, gain = float32(before), float32(wet)
    for i in range(HOP):
        value = filtered[i]
        if was_open and not is_open:
            value *= _CLOSING_RAMP[i]
        elif is_open and not was_open:
            value *= _OPENING_RAMP[i]
        if before != wet:
            value *= start + rise * _RISING[i]
        else:
            value *= gain
        out[i] += value


@kernel([boolean(line) for line in (SAMPLES_IN, LINE_IN)])
def _has_sound(line: np.ndarray) -> bool:
    found = False
    for i in range(line.shape[0]):
        found |= abs(line[i]) >= SILENCE_PEAK
    return found


@kernel(void(CROSSOVER, int64, int64, LINE_IN, int64, float64, SCRATCH))
def _filter_hop(
    state: CrossoverState,
    row: int,
    slot: int,
    high_band: np.ndarray,
    hop: int,
    before: float,
    scratch: CrossoverScratch,
) -> None:
    """Filter one hop into ``scratch.filtered``; a new cutoff is faded in from the old one."""
    filtered = scratch.filtered[:HOP]
    hz = state.hz[row, hop]
    if np.isnan(before):
        filtered[:] = float32(0.0)
    else:
        filter_line(state.sos[row, hop], state.filters[slot], high_band, filtered)
    if hz == before:
        return
    incoming = scratch.incoming
    # The new filter starts empty; it is faded in while it settles.
    scratch.fading[:, :] = 0.0
    if np.isnan(hz):
        incoming[:] = float32(0.0)
    else:
        filter_line(state.sos[row, hop + 1], scratch.fading, high_band, incoming)
    one_channel = filtered.reshape((HOP, 1))
    crossfade_linear(one_channel, incoming.reshape((HOP, 1)), one_channel)
    state.filters[slot, :, :] = scratch.fading


# Lines without gaps, as a batch has them, fill vector registers.
@kernel(
    [
        void(CROSSOVER, int64, int64, line_in, line_in, line, boolean, SCRATCH)
        for line_in, line in ((SAMPLES_IN, SAMPLES), (LINE_IN, LINE))
    ]
)
def _finish_line(
    state: CrossoverState,
    row: int,
    slot: int,
    audio: np.ndarray,
    high_band: np.ndarray,
    out: np.ndarray,
    is_filtered: bool,
    scratch: CrossoverScratch,
) -> None:
    """Finish one channel of one step: the delayed input, plus the high band where it is missing."""
    delayed = state.delayed[slot]
    overlap, samples = delayed.shape[0], audio.shape[0]
    for i in range(overlap):
        out[i] = delayed[i]
    for i in range(samples - overlap):
        out[overlap + i] = audio[i]
    for i in range(overlap):
        delayed[i] = audio[samples - overlap + i]
    values = state.values[row]
    before, wet_before, wet = values.mixed_hz, values.mixed_wet, values.next_wet
    for hop in range(state.hz.shape[1]):
        part = out[hop * HOP : (hop + 1) * HOP]
        hz = state.hz[row, hop]
        was_open = state.is_open[slot]
        is_open = _has_sound(part)
        state.is_open[slot] = is_open
        nothing = np.isnan(hz) and np.isnan(before)
        if not nothing:
            high = high_band[hop * HOP : (hop + 1) * HOP]
            filtered = scratch.filtered[:HOP]
            if is_filtered:
                for i in range(HOP):
                    filtered[i] = high[i]
            else:
                _filter_hop(state, row, slot, high, hop, before, scratch)
            silent = not (was_open or is_open) or (wet == 0.0 and wet_before == 0.0)
            if not silent:
                _add(filtered, part, was_open, is_open, wet_before, wet)
        before, wet_before = hz, wet


@kernel(void(CROSSOVER, int64))
def _end_step(state: CrossoverState, row: int) -> None:
    values = state.values[row]
    last = state.hz.shape[1] - 1
    values.mixed_wet = values.next_wet
    values.mixed_hz = state.hz[row, last]
    state.sos[row, 0] = state.sos[row, last + 1]


@kernel(void(CROSSOVER, int64, AUDIO_IN, AUDIO_IN, AUDIO, SCRATCH))
def finish_block(
    state: CrossoverState,
    row: int,
    audio: np.ndarray,
    high_band: np.ndarray,
    out: np.ndarray,
    scratch: CrossoverScratch,
) -> None:
    """Finish one step of one stream, whose filters have been designed.

    Args:
        state: of `crossover_state`, after `find_new_cutoffs` for this row.
        row: of the stream.
        audio: ``(480 * hops, channels)``, the input.
        high_band: of the same shape, the generated signal, before the high-pass.
        out: of the same shape, the result.
        scratch: of `crossover_scratch`, used by this thread alone.
    """
    for channel in range(audio.shape[1]):
        slot = state.slots[row, channel]
        _finish_line(
            state,
            row,
            slot,
            audio[:, channel],
            high_band[:, channel],
            out[:, channel],
            False,
            scratch,
        )
    _end_step(state, row)


@kernel(boolean(CROSSOVER, int64))
def _is_steady(state: CrossoverState, row: int) -> bool:
    """Say whether one high-pass serves the whole step."""
    hz = state.values[row].mixed_hz
    same = True
    for hop in range(state.hz.shape[1]):
        # False for NaN, which is not equal to itself.
        same = same and state.hz[row, hop] == hz
    return same


@kernel(void(CROSSOVER, AUDIO, int64, SCRATCH))
def _filter_gathered(
    state: CrossoverState, high_band: np.ndarray, count: int, scratch: CrossoverScratch
) -> None:
    """Filter the `count` slots that are listed in the scratch, in place and side by side."""
    lanes, sos, states = scratch.lanes, scratch.lane_sos, scratch.lane_states
    samples = high_band.shape[1]
    for lane in range(LANES):
        # An empty lane costs as much as a full one; it must only not hold NaN.
        at = min(lane, count - 1)
        row, slot = scratch.lane_rows[at], scratch.lane_slots[at]
        for section in range(SECTIONS):
            for i in range(6):
                sos[section, i, lane] = state.sos[row, 0, section, i]
            for i in range(2):
                states[section, i, lane] = state.filters[slot, section, i]
    for first in range(0, samples, 16):
        for lane in range(LANES):
            slot = scratch.lane_slots[min(lane, count - 1)]
            for i in range(first, first + 16):
                lanes[i, lane] = high_band[slot, i]
    filter_lanes(sos, states, lanes)
    for first in range(0, samples, 16):
        for lane in range(count):
            slot = scratch.lane_slots[lane]
            for i in range(first, first + 16):
                high_band[slot, i] = float32(lanes[i, lane])
    for lane in range(count):
        slot = scratch.lane_slots[lane]
        for section in range(SECTIONS):
            for i in range(2):
                state.filters[slot, section, i] = states[section, i, lane]


@kernel(void(CROSSOVER, INDICES_IN, AUDIO_IN, AUDIO, AUDIO, SCRATCH))
def finish_rows(
    state: CrossoverState,
    rows: np.ndarray,
    audio: np.ndarray,
    high_band: np.ndarray,
    out: np.ndarray,
    scratch: CrossoverScratch,
) -> None:
    """Finish one step of many streams; bit-identical to `finish_block`.

    Args:
        state: as for `finish_block`.
        rows: of the streams.
        audio: ``(slots, 480 * hops)``, the input.
        high_band: of the same shape; filtered in place.
        out: of the same shape, the result.
        scratch: as for `finish_block`.
    """
    count = 0
    for index in range(rows.shape[0]):
        row = rows[index]
        if not _is_steady(state, row):
            continue
        for channel in range(state.values[row].channels):
            scratch.lane_rows[count] = row
            scratch.lane_slots[count] = state.slots[row, channel]
            count += 1
            if count == LANES:
                _filter_gathered(state, high_band, count, scratch)
                count = 0
    if count:
        _filter_gathered(state, high_band, count, scratch)
    for index in range(rows.shape[0]):
        row = rows[index]
        is_filtered = _is_steady(state, row)
        for channel in range(state.values[row].channels):
            slot = state.slots[row, channel]
            _finish_line(
                state, row, slot, audio[slot], high_band[slot], out[slot], is_filtered, scratch
            )
        _end_step(state, row)

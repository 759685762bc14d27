"""Equaliser of the generated band: one short filter per stream, faded over a hop where it changes.

The states of any number of streams lie in arrays with a leading axis, and slots are those of the
crossover. A stream without a filter costs a comparison, and its samples are not touched.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import boolean, float32, int64, types, void
from numpy.typing import NDArray

from .compiled import AUDIO, INDICES_IN, LINE, SAMPLES, kernel
from .crossover import CROSSOVER, CrossoverState
from .equaliser_design import TAPS
from .timing import HOP

IN_USE, WANTED = 0, 1

_RISING = np.arange(1, HOP + 1, dtype=np.float32) / np.float32(HOP)


class EqualiserState(NamedTuple):
    """What the equalisers of many streams remember; see `equaliser_state`."""

    taps: NDArray[np.float32]
    """``(streams, 2, TAPS)``: of the filter in use and of the one that is wanted."""
    is_flat: NDArray[np.bool_]
    """``(streams, 2)``: whether the filter in use, and the one that is wanted, does nothing."""
    history: NDArray[np.float32]
    """``(slots, TAPS - 1)``: the newest samples that went in."""


class EqualiserScratch(NamedTuple):
    """Scratch memory of one thread: nothing in it outlasts a call."""

    line: NDArray[np.float32]
    """``(TAPS - 1 + 480 * hops,)``"""
    before: NDArray[np.float32]
    """``(480,)``"""
    out: NDArray[np.float32]
    """``(480 * hops,)``"""


EQUALISER = types.NamedTuple(
    [types.Array(float32, 3, "C"), types.Array(boolean, 2, "C"), AUDIO], EqualiserState
)
"""numba's type of `EqualiserState`."""
SCRATCH = types.NamedUniTuple(SAMPLES, 3, EqualiserScratch)
"""numba's type of `EqualiserScratch`."""
_FLAGS_IN = types.Array(boolean, 1, "A")
_BAND = types.Array(float32, 2, "A")


def equaliser_state(streams: int, slots: int) -> EqualiserState:
    """Make room for `streams` streams of `slots` channels in total; all of them are flat."""
    taps = np.zeros((streams, 2, TAPS), np.float32)
    taps[:, :, 0] = 1.0
    return EqualiserState(
        taps=taps,
        is_flat=np.ones((streams, 2), np.bool_),
        history=np.zeros((slots, TAPS - 1), np.float32),
    )


def equaliser_scratch(hops: int) -> EqualiserScratch:
    """Make the scratch memory of one thread."""
    return EqualiserScratch(
        line=np.zeros(TAPS - 1 + HOP * hops, np.float32),
        before=np.zeros(HOP, np.float32),
        out=np.zeros(HOP * hops, np.float32),
    )


def set_filter(state: EqualiserState, row: int, taps: NDArray[np.float32] | None) -> None:
    """Say which filter a stream should have; its next hop with a generated band fades to it.

    Args:
        state: of `equaliser_state`.
        row: of the stream.
        taps: ``(TAPS,)`` of `minimum_phase_taps`; nothing is done where it is ``None``.
    """
    state.is_flat[row, WANTED] = taps is None
    state.taps[row, WANTED] = 0.0
    state.taps[row, WANTED, 0] = 1.0
    if taps is not None:
        state.taps[row, WANTED] = taps


@kernel(boolean(EQUALISER, int64))
def is_changing(state: EqualiserState, row: int) -> bool:
    """Whether the wanted filter differs from the one in use."""
    changing = False
    for tap in range(TAPS):
        changing = changing or state.taps[row, IN_USE, tap] != state.taps[row, WANTED, tap]
    return changing


@kernel(void(SAMPLES, SAMPLES, SAMPLES))
def _filter(line: np.ndarray, taps: np.ndarray, out: np.ndarray) -> None:
    """Fill `out`; `line` begins `TAPS - 1` samples earlier.

    Neighbouring outputs use vector registers, the taps go in eights; no sum is reordered.
    """
    count = out.shape[0]
    for i in range(count):
        out[i] = float32(0.0)
    for tap in range(0, TAPS, 8):
        past = line[TAPS - 8 - tap :]
        c0, c1, c2, c3 = taps[tap], taps[tap + 1], taps[tap + 2], taps[tap + 3]
        c4, c5, c6, c7 = taps[tap + 4], taps[tap + 5], taps[tap + 6], taps[tap + 7]
        for i in range(count):
            out[i] += (
                (c0 * past[i + 7] + c1 * past[i + 6]) + (c2 * past[i + 5] + c3 * past[i + 4])
            ) + ((c4 * past[i + 3] + c5 * past[i + 2]) + (c6 * past[i + 1] + c7 * past[i]))


@kernel(void(EQUALISER, int64, int64, LINE, boolean, SCRATCH))
def _equalise_line(
    state: EqualiserState,
    row: int,
    slot: int,
    samples: np.ndarray,
    fades: bool,
    scratch: EqualiserScratch,
) -> None:
    """Filter one channel of one step, in place."""
    count = samples.shape[0]
    line, out = scratch.line[: TAPS - 1 + count], scratch.out[:count]
    history = state.history[slot]
    for i in range(TAPS - 1):
        line[i] = history[i]
    for i in range(count):
        line[TAPS - 1 + i] = samples[i]
    _filter(line, state.taps[row, WANTED], out)
    if fades:
        before = scratch.before
        _filter(line[: TAPS - 1 + HOP], state.taps[row, IN_USE], before)
        for i in range(HOP):
            out[i] = before[i] + _RISING[i] * (out[i] - before[i])
    for i in range(count):
        samples[i] = out[i]
    for i in range(TAPS - 1):
        history[i] = line[count + i]


@kernel(void(EQUALISER, int64))
def _take_wanted(state: EqualiserState, row: int) -> None:
    """Let the filter in use be the one that is wanted."""
    for tap in range(TAPS):
        state.taps[row, IN_USE, tap] = state.taps[row, WANTED, tap]
    state.is_flat[row, IN_USE] = state.is_flat[row, WANTED]


@kernel(void(EQUALISER, CROSSOVER, int64))
def _clear_history(state: EqualiserState, crossover: CrossoverState, row: int) -> None:
    for channel in range(crossover.values[row].channels):
        state.history[crossover.slots[row, channel], :] = float32(0.0)


@kernel(boolean(EQUALISER, CROSSOVER, int64, boolean))
def _begin_step(
    state: EqualiserState, crossover: CrossoverState, row: int, is_silent: bool
) -> bool:
    """Whether a stream's step has to be filtered; where nothing is audible nothing is faded."""
    if state.is_flat[row, IN_USE] and state.is_flat[row, WANTED]:
        return False
    is_audible = crossover.values[row].adds and not is_silent
    if not is_audible:
        _take_wanted(state, row)
    # What a flat stream has been given before is not known.
    if state.is_flat[row, IN_USE] or not is_audible:
        _clear_history(state, crossover, row)
    return bool(is_audible)


@kernel(void(EQUALISER, CROSSOVER, int64))
def start_equaliser(state: EqualiserState, crossover: CrossoverState, row: int) -> None:
    """Forget the past of one stream: its next hop is the first, its filter applies at once."""
    _take_wanted(state, row)
    _clear_history(state, crossover, row)


@kernel(void(EQUALISER, CROSSOVER, INDICES_IN, _FLAGS_IN, _BAND, SCRATCH))
def equalise_rows(
    state: EqualiserState,
    crossover: CrossoverState,
    rows: np.ndarray,
    is_silent: np.ndarray,
    high_band: np.ndarray,
    scratch: EqualiserScratch,
) -> None:
    """Equalise one step of one stream or of many, in place, ahead of their crossovers.

    Args:
        state: of `equaliser_state`.
        crossover: of `crossover_state`; `find_new_cutoffs` must have seen the rows.
        rows: of the streams.
        is_silent: ``(streams,)``: whose part of `high_band` holds nothing, and belongs to somebody
            else.
        high_band: ``(slots, 480 * hops)`` in any layout, what was generated. A stream alone, whose
            channels are the slots, gives its block ``(480 * hops, channels)`` transposed.
        scratch: of `equaliser_scratch`, of this thread alone.
    """
    for index in range(rows.shape[0]):
        row = rows[index]
        if not _begin_step(state, crossover, row, is_silent[row]):
            continue
        fades = is_changing(state, row)
        for channel in range(crossover.values[row].channels):
            slot = crossover.slots[row, channel]
            _equalise_line(state, row, slot, high_band[slot], fades, scratch)
        _take_wanted(state, row)

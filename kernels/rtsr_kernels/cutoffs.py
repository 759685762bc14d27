"""Find where the content of every hop of a step ends, as given or as measured, for many streams."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float64, from_dtype, int64, types, void
from numpy.typing import NDArray

from .band_limit import FULL_BAND_HZ
from .bandwidth import (
    LANE_SCRATCH,
    BandwidthLanes,
    BandwidthScratch,
    BandwidthState,
    bandwidth_lanes,
    bandwidth_scratch,
    bandwidth_state,
    detect_bandwidth,
    end_hop,
    has_spectrum,
    is_sound,
    update_rows,
)
from .bandwidth import SCRATCH as DETECTOR_SCRATCH
from .bandwidth import STATE as DETECTORS
from .compiled import AUDIO, AUDIO_IN, INDICES_IN, MATRIX, kernel
from .crossover import HOP, MAX_CHANNELS
from .fourier_lanes import LANES
from .timing import SAMPLE_RATE

VALUES = np.dtype(
    [
        ("channels", np.int64),
        ("given_hz", np.float64),
        ("native_hz", np.float64),
        ("f_target", np.float64),
        ("cutoff_hz", np.float64),
        ("is_silent", np.bool_),
    ],
    align=True,
)
"""Scalars of one stream.

``given_hz`` is NaN where the cutoff is measured, ``native_hz`` bounds it, ``f_target`` is where the
output should end, ``cutoff_hz`` the answer for the newest hop; ``is_silent`` streams get no high
band at all.
"""


class CutoffState(NamedTuple):
    """State of the cutoffs of many streams; see `cutoff_state`."""

    values: NDArray[Any]
    """``(streams,)`` of `VALUES`."""
    f_prior: NDArray[np.float32]
    """``(streams, hops)``: Hz where the content of each hop of the step ends."""
    detectors: BandwidthState


CUTOFFS = types.NamedTuple([types.Array(from_dtype(VALUES), 1, "C"), AUDIO, DETECTORS], CutoffState)
"""numba's type of `CutoffState`."""


def cutoff_state(
    streams: int, hops: int, channels: int = MAX_CHANNELS, rate: int = SAMPLE_RATE
) -> CutoffState:
    """Allocate the state of `streams` streams of up to `channels` channels, `hops` hops a step.

    `rate` is as of `bandwidth_state`.
    """
    return CutoffState(
        values=np.zeros(streams, VALUES),
        f_prior=np.zeros((streams, hops), np.float32),
        detectors=bandwidth_state(streams, channels, rate),
    )


@kernel(void(CUTOFFS, int64, int64))
def _note_cutoff(state: CutoffState, row: int, hop: int) -> None:
    """Store the cutoff of a hop, as given or as the detector has just found it."""
    values = state.values[row]
    found = values.given_hz
    if np.isnan(found):
        found = state.detectors.values[row].cutoff_hz
    values.cutoff_hz = min(found, values.native_hz)
    state.f_prior[row, hop] = values.cutoff_hz


@kernel(void(CUTOFFS, int64, AUDIO_IN, DETECTOR_SCRATCH))
def measure_block(
    state: CutoffState, row: int, audio: np.ndarray, scratch: BandwidthScratch
) -> None:
    """Find the cutoffs of a step ``(480 * hops, channels)`` of one stream, into ``f_prior``."""
    for hop in range(state.f_prior.shape[1]):
        if np.isnan(state.values[row].given_hz):
            part = audio[hop * HOP : (hop + 1) * HOP]
            detect_bandwidth(state.detectors, row, part, scratch)
        _note_cutoff(state, row, hop)


class CutoffScratch(NamedTuple):
    """Scratch memory of one thread for a step of many streams."""

    detector: BandwidthScratch
    lanes: BandwidthLanes
    rows: NDArray[np.int64]
    """``(LANES,)``: streams whose spectra are taken side by side."""
    gathered: NDArray[np.float32]
    """``(8, 480)``: one hop of one stream."""


ROWS_SCRATCH = types.NamedTuple(
    [DETECTOR_SCRATCH, LANE_SCRATCH, types.Array(int64, 1, "C"), AUDIO], CutoffScratch
)
"""numba's type of `CutoffScratch`."""
_SLOTS = types.Array(int64, 2, "C")


def cutoff_scratch() -> CutoffScratch:
    """Allocate the scratch memory of one thread."""
    return CutoffScratch(
        detector=bandwidth_scratch(),
        lanes=bandwidth_lanes(),
        rows=np.zeros(LANES, np.int64),
        gathered=np.zeros((MAX_CHANNELS, HOP), np.float32),
    )


@kernel(void(CUTOFFS, int64, _SLOTS, AUDIO_IN, int64, ROWS_SCRATCH))
def _take_listed(
    state: CutoffState,
    count: int,
    slots: np.ndarray,
    audio: np.ndarray,
    start: int,
    scratch: CutoffScratch,
) -> None:
    """Update the detectors of the first `count` listed streams and append their next hop."""
    rows = scratch.rows[:count]
    update_rows(state.detectors, rows, scratch.detector, scratch.lanes)
    for index in range(count):
        hop = audio[slots[rows[index], 0], start : start + HOP].reshape((HOP, 1))
        end_hop(state.detectors, rows[index], hop, True)


@kernel(void(CUTOFFS, INDICES_IN, _SLOTS, AUDIO_IN, ROWS_SCRATCH))
def measure_rows(
    state: CutoffState,
    rows: np.ndarray,
    slots: np.ndarray,
    audio: np.ndarray,
    scratch: CutoffScratch,
) -> None:
    """Find the cutoffs of a step of many streams; bit-identical to `measure_block`.

    Args:
        state: of `cutoff_state`.
        rows: of the streams.
        slots: ``(streams, 8)``, the row of `audio` that each channel has.
        audio: ``(slots, 480 * hops)``.
        scratch: of this thread alone.
    """
    detectors = state.detectors
    for hop in range(state.f_prior.shape[1]):
        start = hop * HOP
        listed = 0
        for index in range(rows.shape[0]):
            row = rows[index]
            values = state.values[row]
            if not np.isnan(values.given_hz):
                continue
            if values.channels > 1:
                for channel in range(values.channels):
                    scratch.gathered[channel] = audio[slots[row, channel], start : start + HOP]
                several = scratch.gathered[: values.channels].T
                detect_bandwidth(detectors, row, several, scratch.detector)
                continue
            one = audio[slots[row, 0], start : start + HOP].reshape((HOP, 1))
            active = is_sound(one)
            if not has_spectrum(detectors, row, active):
                end_hop(detectors, row, one, active)
                continue
            scratch.rows[listed] = row
            listed += 1
            if listed == LANES:
                _take_listed(state, listed, slots, audio, start, scratch)
                listed = 0
        if listed:
            _take_listed(state, listed, slots, audio, start, scratch)
        for index in range(rows.shape[0]):
            _note_cutoff(state, rows[index], hop)


@kernel(boolean(float64, float64))
def is_band_missing(cutoff_hz: float, f_target: float) -> bool:
    """Say whether a band is missing between where content ends and where it should end."""
    return cutoff_hz < min(FULL_BAND_HZ, f_target)


@kernel(void(CUTOFFS, INDICES_IN, MATRIX))
def crossover_hz(state: CutoffState, rows: np.ndarray, hz: np.ndarray) -> None:
    """Fill `hz` ``(streams, hops)``: the crossover of each hop, NaN where nothing is missing."""
    for index in range(rows.shape[0]):
        row = rows[index]
        values = state.values[row]
        for hop in range(hz.shape[1]):
            cutoff = float(state.f_prior[row, hop])
            adds = is_band_missing(cutoff, values.f_target) and not values.is_silent
            hz[row, hop] = cutoff if adds else np.nan

"""Cutoffs of many streams: given, measured, bounded, and what is missing above them."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.bandwidth.detector import BandwidthDetector
from rtsr_kernels.bandwidth import bandwidth_scratch, start_bandwidth
from rtsr_kernels.cutoffs import (
    crossover_hz,
    cutoff_scratch,
    cutoff_state,
    measure_block,
    measure_rows,
)

HOP = 480
NAN = float("nan")


def noise(hops: int, cutoff: float, seed: int) -> np.ndarray:
    samples = hops * HOP
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    spectrum[np.fft.rfftfreq(samples, 1 / 48000) > cutoff] = 0.0
    return (0.2 * np.fft.irfft(spectrum, samples)).astype(np.float32)


@pytest.mark.parametrize("hops", [1, 2])
def test_streams_are_measured_as_if_alone(hops: int) -> None:
    """Rows, blocks and the detector by itself agree, whatever stands beside."""
    bounds, starts, given = [24000.0, 8000.0, 24000.0], [24000.0, 8000.0, 16000.0], [NAN, NAN, 5000]
    channels, slots = [1, 2, 1], np.zeros((3, 8), np.int64)
    slots[0, :1], slots[1, :2], slots[2, :1] = [3], [0, 2], [1]
    sounds = [noise(300, 3500, 0), noise(300, 5000, 1), noise(300, 3500, 2), noise(300, 6000, 3)]
    together, alone = cutoff_state(3, hops), [cutoff_state(1, hops) for _ in range(3)]
    detectors = [BandwidthDetector(48000, starts[row], bounds[row]) for row in range(3)]
    scratch, many = bandwidth_scratch(), cutoff_scratch()
    for state, row, place in [(together, row, row) for row in range(3)] + [
        (alone[row], row, 0) for row in range(3)
    ]:
        values = state.values[place]
        values["channels"], values["given_hz"] = channels[row], given[row]
        values["native_hz"], values["f_target"] = bounds[row], 20000.0
        start_bandwidth(state.detectors, place, starts[row], bounds[row])
    for step in range(300 // hops):
        part = slice(step * HOP * hops, (step + 1) * HOP * hops)
        audio = np.stack([sound[part] for sound in sounds])
        measure_rows(together, np.arange(3), slots, audio, many)
        for row in range(3):
            block = np.ascontiguousarray(audio[slots[row, : channels[row]]].T)
            measure_block(alone[row], 0, block, scratch)
            expected = [
                given[row]
                if given[row] == given[row]
                else detectors[row].update(block[hop * HOP : (hop + 1) * HOP])
                for hop in range(hops)
            ]
            assert np.array_equal(together.f_prior[row], np.float32(expected))
            assert np.array_equal(alone[row].f_prior[0], np.float32(expected))
            assert together.values["cutoff_hz"][row] == expected[-1]
    assert together.f_prior[0, 0] == pytest.approx(6000, rel=0.08)
    assert together.f_prior[2, 0] == 5000.0


def test_a_given_cutoff_is_bounded_by_the_own_rate() -> None:
    state = cutoff_state(1, 1)
    values = state.values[0]
    values["channels"], values["given_hz"], values["native_hz"] = 1, 5000.0, 4000.0
    measure_block(state, 0, np.zeros((HOP, 1), np.float32), bandwidth_scratch())
    assert state.f_prior[0, 0] == 4000.0


@pytest.mark.parametrize(
    ("cutoff", "target", "is_silent", "expected"),
    [
        (4000.0, 20000.0, False, 4000.0),
        (4000.0, 20000.0, True, NAN),
        (4000.0, 4000.0, False, NAN),
        (4000.0, 4001.0, False, 4000.0),
        (24000.0, 30000.0, False, NAN),
        (23999.0, 30000.0, False, 23999.0),
    ],
)
def test_where_something_is_missing(
    cutoff: float, target: float, is_silent: bool, expected: float
) -> None:
    state = cutoff_state(3, 2)
    hz = np.full((3, 2), 7.0)
    state.f_prior[1] = [cutoff, 1000.0]
    state.values["f_target"][1], state.values["is_silent"][1] = target, is_silent
    crossover_hz(state, np.array([1]), hz)
    assert np.array_equal(hz[1], [expected, NAN if is_silent else 1000.0], equal_nan=True)
    assert np.all(hz[[0, 2]] == 7.0)

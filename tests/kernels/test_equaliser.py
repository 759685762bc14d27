"""The equaliser of the generated band: its filters, its fades, many streams like one to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels import equaliser
from rtsr_kernels.crossover import CrossoverState, crossover_state
from rtsr_kernels.equaliser import EqualiserScratch, EqualiserState
from rtsr_kernels.equaliser_design import TAPS, design_frequencies, minimum_phase_taps

HOP = 480


def _curve(seed: int) -> np.ndarray:
    """A curve in dB as smooth as a colour."""
    random = np.random.default_rng(seed)
    points = np.convolve(random.normal(0.0, 8.0, 28), np.ones(5) / 5, "valid").clip(-12, 12)
    octaves = np.log2(np.maximum(design_frequencies(), 1.0))
    return np.interp(octaves, np.log2(np.geomspace(4150, 23100, 24)), points)


def _states(streams: int, slots: int, hops: int) -> tuple[EqualiserState, CrossoverState]:
    crossover = crossover_state(streams, slots, hops, 120)
    crossover.values["adds"] = True
    return equaliser.equaliser_state(streams, slots), crossover


def _one(taps: np.ndarray | None, hops: int = 1) -> tuple[EqualiserState, CrossoverState]:
    state, crossover = _states(1, 1, hops)
    crossover.values["channels"] = 1
    equaliser.set_filter(state, 0, taps)
    return state, crossover


def _equalise(
    state: EqualiserState,
    crossover: CrossoverState,
    block: np.ndarray,
    scratch: EqualiserScratch,
    is_silent: bool = False,
) -> None:
    """Equalise a block ``(samples, channels)`` of the one stream."""
    equaliser.equalise_rows(
        state, crossover, np.zeros(1, np.int64), np.array([is_silent]), block.T, scratch
    )


def _run(
    state: EqualiserState, crossover: CrossoverState, sound: np.ndarray, hops: int = 1
) -> np.ndarray:
    scratch = equaliser.equaliser_scratch(hops)
    out = sound.astype(np.float32).reshape(-1, 1).copy()
    for start in range(0, len(out), HOP * hops):
        _equalise(state, crossover, out[start : start + HOP * hops], scratch)
    return out[:, 0]


@pytest.mark.parametrize("seed", range(5))
def test_taps_have_the_gains_that_were_asked_for(seed: int) -> None:
    wanted = _curve(seed)
    found = 20 * np.log10(np.abs(np.fft.rfft(minimum_phase_taps(wanted), 2048)))
    assert np.abs(found - wanted)[design_frequencies() > 3500].max() < 0.8


@pytest.mark.parametrize("seed", range(3))
def test_taps_delay_as_little_as_any_filter_of_their_gains(seed: int) -> None:
    taps = minimum_phase_taps(_curve(seed)).astype(np.float64)
    assert np.abs(np.roots(taps)).max() < 1.02
    assert np.sum(taps[:8] ** 2) > 0.8 * np.sum(taps**2)


def test_a_curve_of_nothing_is_no_filter() -> None:
    taps = minimum_phase_taps(np.zeros(1025))
    assert taps[0] == pytest.approx(1.0, abs=1e-6)
    assert np.abs(taps[1:]).max() < 1e-6


@pytest.mark.parametrize("hops", [1, 2, 4])
def test_a_steady_filter_is_a_convolution(hops: int) -> None:
    sound = np.random.default_rng(0).normal(0.0, 0.1, HOP * 8)
    taps = minimum_phase_taps(_curve(1))
    state, crossover = _one(taps, hops)
    equaliser.start_equaliser(state, crossover, 0)
    expected = np.convolve(sound, taps)[: len(sound)]
    np.testing.assert_allclose(_run(state, crossover, sound, hops), expected, atol=2e-6)


def test_without_a_filter_every_bit_stays() -> None:
    sound = np.random.default_rng(0).normal(0.0, 0.1, HOP * 4).astype(np.float32)
    np.testing.assert_array_equal(_run(*_one(None), sound), sound)


def test_a_new_filter_is_faded_in_over_a_hop() -> None:
    sound = np.full(HOP * 3, 0.5)
    state, crossover = _one(None)
    scratch = equaliser.equaliser_scratch(1)
    out = sound.astype(np.float32).reshape(-1, 1)
    _equalise(state, crossover, out[:HOP], scratch)
    equaliser.set_filter(state, 0, minimum_phase_taps(np.full(1025, 20 * np.log10(3.0))))
    for start in (HOP, 2 * HOP):
        _equalise(state, crossover, out[start : start + HOP], scratch)
    line = out[:, 0]
    np.testing.assert_allclose(line[HOP : 2 * HOP], 0.5 + np.arange(1, HOP + 1) / HOP, atol=1e-3)
    np.testing.assert_allclose(line[2 * HOP :], 1.5, atol=1e-4)
    assert np.abs(np.diff(line)).max() < 2.0 / HOP


def test_a_filter_that_is_taken_away_leaves_the_bits_alone_again() -> None:
    sound = np.random.default_rng(2).normal(0.0, 0.1, HOP * 6).astype(np.float32)
    state, crossover = _one(minimum_phase_taps(_curve(2)))
    _run(state, crossover, sound[: 2 * HOP])
    equaliser.set_filter(state, 0, None)
    faded = _run(state, crossover, sound[2 * HOP :])
    assert (faded[:HOP] != sound[2 * HOP : 3 * HOP]).any()
    np.testing.assert_array_equal(faded[HOP:], sound[3 * HOP :])


@pytest.mark.parametrize("hops", [1, 2, 4])
def test_streams_side_by_side_get_the_bits_of_each_alone(hops: int) -> None:
    random = np.random.default_rng(hops)
    channels = [1, 2, 1, 3]
    slots = [[4], [0, 6], [2], [1, 3, 5]]
    state, crossover = _states(4, 7, hops)
    crossover.values["channels"] = channels
    for row, row_slots in enumerate(slots):
        crossover.slots[row, : len(row_slots)] = row_slots
    alone = [_states(1, count, hops) for count in channels]
    for (_, other), count in zip(alone, channels, strict=True):
        other.values["channels"] = count
        other.slots[0, :count] = range(count)
    scratch = equaliser.equaliser_scratch(hops)
    silent = np.zeros(4, np.bool_)
    for step in range(12):
        for row in range(4):
            if random.random() < 0.3:
                taps = None if random.random() < 0.3 else minimum_phase_taps(_curve(step + row))
                equaliser.set_filter(state, row, taps)
                equaliser.set_filter(alone[row][0], 0, taps)
            heard = random.random() < 0.8
            crossover.values["adds"][row] = alone[row][1].values["adds"][0] = heard
            silent[row] = random.random() < 0.1
        due = np.flatnonzero(random.random(4) < 0.8)
        band = random.normal(0.0, 0.1, (7, HOP * hops)).astype(np.float32)
        before = band.copy()
        equaliser.equalise_rows(state, crossover, due, silent, band, scratch)
        for row in range(4):
            block = np.ascontiguousarray(before[slots[row]].T)
            if row in due:
                _equalise(*alone[row], block, scratch, bool(silent[row]))
            np.testing.assert_array_equal(band[slots[row]].T, block)


def test_what_is_silent_is_left_alone_and_belongs_to_nobody_afterwards() -> None:
    taps = minimum_phase_taps(_curve(3))
    state, crossover = _one(taps)
    scratch = equaliser.equaliser_scratch(1)
    _run(state, crossover, np.random.default_rng(0).normal(0.0, 0.1, 2 * HOP))
    silence = np.zeros((HOP, 1), np.float32)
    _equalise(state, crossover, silence, scratch, is_silent=True)
    assert not silence.any()
    assert not _run(state, crossover, np.zeros(HOP)).any()


def test_a_sample_that_is_no_number_is_gone_with_the_filter_length() -> None:
    sound = np.zeros(HOP * 2)
    sound[100] = np.nan
    state, crossover = _one(minimum_phase_taps(_curve(4)))
    equaliser.start_equaliser(state, crossover, 0)
    out = _run(state, crossover, sound)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(out)), np.arange(100, 100 + TAPS))

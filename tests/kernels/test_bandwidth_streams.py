"""Many streams side by side in one compiled loop: each answers as if it were alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numba import njit
from numba.core.runtime import _nrt_python, rtsys

from rtsr_kernels.bandwidth import (
    BandwidthScratch,
    BandwidthState,
    bandwidth_scratch,
    bandwidth_state,
    detect_bandwidth,
    start_bandwidth,
)
from rtsr_kernels.timing import HOP

FULL_BAND_HZ = 24000.0


@njit(nogil=True)
def detect_all(
    state: BandwidthState, hops: np.ndarray, cutoff_hz: np.ndarray, scratch: BandwidthScratch
) -> None:
    """As a batch does it: `hops` ``(streams, 480, channels)``."""
    for row in range(hops.shape[0]):
        cutoff_hz[row] = detect_bandwidth(state, row, hops[row], scratch)


def noise_up_to(cutoff: float, seconds: float, seed: int) -> np.ndarray:
    """Noise that ends in a band edge, ``(hops, 480)`` float32."""
    length = int(seconds * 100) * HOP
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
    spectrum[np.fft.rfftfreq(length, 1 / 48000) > cutoff] = 0.0
    sound = np.fft.irfft(spectrum, length)
    return (0.05 * sound / sound.std()).astype(np.float32).reshape(-1, HOP)


def alone(hops: np.ndarray, start_hz: float, bound_hz: float) -> list[float]:
    """The answers to ``(hops, 480, channels)`` of a state that has one row."""
    state, scratch = bandwidth_state(1, hops.shape[2]), bandwidth_scratch()
    start_bandwidth(state, 0, start_hz, bound_hz)
    return [detect_bandwidth(state, 0, hop, scratch) for hop in hops]


def test_streams_do_not_hear_each_other() -> None:
    ends = [(3000.0, 24000.0), (5000.0, 24000.0), (24000.0, 4000.0), (24000.0, 24000.0)]
    sounds = [
        np.concatenate([noise_up_to(first, 1.0, 2 * row), noise_up_to(second, 1.0, 2 * row + 1)])
        for row, (first, second) in enumerate(ends)
    ]
    starts = [(24000.0, 24000.0), (4900.0, 24000.0), (24000.0, 24000.0), (24000.0, 8000.0)]
    hops = np.stack(sounds, axis=1)[..., None]
    state, scratch = bandwidth_state(len(ends), 1), bandwidth_scratch()
    for row, (start_hz, bound_hz) in enumerate(starts):
        start_bandwidth(state, row, start_hz, bound_hz)
    answers = np.empty(hops.shape[:2])
    for hop in range(len(hops)):
        detect_all(state, hops[hop], answers[hop], scratch)
    for row, (start_hz, bound_hz) in enumerate(starts):
        assert answers[:, row].tolist() == alone(hops[:, row], start_hz, bound_hz)
    assert answers[-1, 0] == FULL_BAND_HZ != answers[90, 0]
    assert (answers[:, 3] == 8000.0).all()


def test_a_row_that_is_begun_again_has_forgotten_its_stream() -> None:
    before = noise_up_to(5000.0, 1.5, 0)[..., None]
    after = noise_up_to(3000.0, 1.5, 1)[..., None]
    state, scratch = bandwidth_state(2, 1), bandwidth_scratch()
    start_bandwidth(state, 1, FULL_BAND_HZ, FULL_BAND_HZ)
    for hop in before:
        detect_bandwidth(state, 1, hop, scratch)
    assert state.values["cutoff_hz"][1] < 5300.0
    start_bandwidth(state, 1, FULL_BAND_HZ, FULL_BAND_HZ)
    answers = [detect_bandwidth(state, 1, hop, scratch) for hop in after]
    assert answers == alone(after, FULL_BAND_HZ, FULL_BAND_HZ)


def test_a_narrow_stream_does_not_hear_the_wide_one_that_had_its_row() -> None:
    wide, narrow = noise_up_to(24000.0, 1.5, 0)[..., None], noise_up_to(3000.0, 1.5, 1)[..., None]
    state, scratch = bandwidth_state(1, 1), bandwidth_scratch()
    answers = []
    for hops, bound_hz in ((wide, FULL_BAND_HZ), (narrow, 4000.0), (wide, 4000.0)):
        start_bandwidth(state, 0, bound_hz, bound_hz)
        answers.append([detect_bandwidth(state, 0, hop, scratch) for hop in hops])
    assert answers[1] == alone(narrow, 4000.0, 4000.0)
    assert answers[2] == [4000.0] * len(wide)


def test_layout_of_a_hop_and_spare_channels_do_not_matter() -> None:
    mono = noise_up_to(4000.0, 1.5, 2)
    stereo = np.stack([mono, noise_up_to(6000.0, 1.5, 3)], axis=2)
    answers = alone(stereo, FULL_BAND_HZ, FULL_BAND_HZ)
    state, scratch = bandwidth_state(1, 4), bandwidth_scratch()
    start_bandwidth(state, 0, FULL_BAND_HZ, FULL_BAND_HZ)
    planar = np.ascontiguousarray(stereo.transpose(0, 2, 1))
    assert answers == [detect_bandwidth(state, 0, hop.T, scratch) for hop in planar]
    assert answers[-1] == pytest.approx(6000.0, rel=0.05)


@njit(nogil=True)
def detect_stream(
    state: BandwidthState, hops: np.ndarray, cutoff_hz: np.ndarray, scratch: BandwidthScratch
) -> None:
    for hop in range(hops.shape[0]):
        cutoff_hz[hop] = detect_bandwidth(state, 0, hops[hop], scratch)


def allocations(hops: np.ndarray) -> int:
    """Of compiled code, for a stream ``(hops, 480, 1)``; those for the call itself included."""
    state, scratch = bandwidth_state(1, 1), bandwidth_scratch()
    start_bandwidth(state, 0, FULL_BAND_HZ, FULL_BAND_HZ)
    cutoff_hz = np.empty(len(hops))
    before = rtsys.get_allocation_stats().alloc
    detect_stream(state, hops, cutoff_hz, scratch)
    assert cutoff_hz[-1] < 5300.0 or len(hops) == 1
    return rtsys.get_allocation_stats().alloc - before


def test_nothing_is_allocated_per_hop() -> None:
    hops = noise_up_to(5000.0, 2.0, 4)[..., None]
    enabled = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    try:
        allocations(hops[:1])
        assert allocations(hops) == allocations(hops[:1]) > 0
    finally:
        if not enabled:
            _nrt_python.memsys_disable_stats()


def test_nothing_is_kept_per_hop() -> None:
    hops = noise_up_to(5000.0, 2.0, 4)[..., None]
    state, scratch = bandwidth_state(1, 1), bandwidth_scratch()
    start_bandwidth(state, 0, FULL_BAND_HZ, FULL_BAND_HZ)
    tracemalloc.start()
    try:
        kept = []
        for _ in range(3):
            for hop in hops:
                detect_bandwidth(state, 0, hop, scratch)
            kept.append(tracemalloc.get_traced_memory()[0])
        assert abs(kept[2] - kept[1]) < len(hops)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(479, 1), (480, 0), (480, 3)])
def test_hop_of_another_shape_is_refused(shape: tuple[int, int]) -> None:
    state = bandwidth_state(1, 2)
    with pytest.raises(ValueError, match=r"\(480, channels\)"):
        detect_bandwidth(state, 0, np.zeros(shape, np.float32), bandwidth_scratch())

"""Marks of a band limit in a spectrum: band edges, and nothing above a common Nyquist frequency."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.band_limit import (
    BINS,
    COMMON_NYQUIST_HZ,
    FULL_BAND_HZ,
    HZ_PER_BIN,
    NOISE_FLOOR_DB,
    clock_of,
    find_band_edge,
    find_empty_top,
)

FREQUENCY = np.arange(BINS) * HZ_PER_BIN
SLOW = clock_of(48000)


def ending(hz: float, slope_hz: float, top_db: float = -50.0) -> np.ndarray:
    """Levels that fall from `top_db` to nothing between a frequency and so much above it."""
    return np.interp(FREQUENCY, [hz, hz + slope_hz], [top_db, NOISE_FLOOR_DB])


def band_edge(levels: np.ndarray, clock: np.ndarray = SLOW) -> tuple[float, float, float]:
    return find_band_edge(levels, np.empty(BINS), clock)


@pytest.mark.parametrize("hz", [2500.0, 5000.0, 9000.0, 14000.0])
def test_band_edge_is_found_at_its_frequency(hz: float) -> None:
    found, rest, height = band_edge(ending(hz, 200.0))
    assert found == pytest.approx(hz, abs=200.0)
    assert rest == pytest.approx(NOISE_FLOOR_DB, abs=3.0)
    assert height == pytest.approx(-50.0 - NOISE_FLOOR_DB, abs=4.0)


def test_edges_near_a_common_nyquist_frequency_are_reported_as_that() -> None:
    for nyquist in COMMON_NYQUIST_HZ:
        assert band_edge(ending(0.95 * nyquist, 0.05 * nyquist))[0] == 0.975 * nyquist


def test_a_slope_is_put_at_a_nyquist_frequency_only_as_far_above_it_as_images_reach() -> None:
    assert band_edge(ending(4200.0, 1000.0))[0] == 0.975 * 4000.0
    # A vowel that fades towards the end of 11.025 kHz: 12 dB lower at 1.14 times 4 kHz.
    assert band_edge(ending(4350.0, 1000.0))[0] > 4500.0


def test_slopes_and_dips_are_no_band_edges() -> None:
    assert band_edge(ending(3000.0, 12000.0))[0] == FULL_BAND_HZ
    dip = np.where(np.abs(FREQUENCY - 6000.0) < 500.0, NOISE_FLOOR_DB, -50.0)
    assert band_edge(dip)[0] == FULL_BAND_HZ
    # A fall that does not end in emptiness must be higher than formants' falls are.
    assert band_edge(np.maximum(ending(6000.0, 200.0), -75.0))[0] == FULL_BAND_HZ
    assert band_edge(np.maximum(ending(6000.0, 200.0), -83.0))[0] == pytest.approx(
        6000.0, abs=200.0
    )


@pytest.mark.parametrize("nyquist", COMMON_NYQUIST_HZ)
def test_emptiness_behind_a_slow_filter_is_found(nyquist: float) -> None:
    # 12 dB in 600 Hz is no band edge.
    slow = ending(0.93 * nyquist, 0.15 * nyquist, -84.0)
    assert find_empty_top(slow, 4000.0, 0.0, SLOW) == 0.975 * nyquist
    assert find_empty_top(slow, 1.05 * nyquist, 0.0, SLOW) == FULL_BAND_HZ


def test_nothing_below_is_no_limit() -> None:
    assert find_empty_top(np.full(BINS, NOISE_FLOOR_DB), 4000.0, 0.0, SLOW) == FULL_BAND_HZ
    assert find_empty_top(np.full(BINS, -80.0), 4000.0, 0.0, SLOW) == FULL_BAND_HZ
    # What ends between two of the rates ends by itself.
    assert find_empty_top(ending(6700.0, 200.0), 4000.0, 0.0, SLOW) == FULL_BAND_HZ


def test_known_images_may_reach_further() -> None:
    images = np.maximum(ending(7500.0, 400.0), np.where(FREQUENCY < 9500.0, -85.0, NOISE_FLOOR_DB))
    assert find_empty_top(images, 4000.0, 0.0, SLOW) == FULL_BAND_HZ
    assert find_empty_top(images, 4000.0, 8000.0, SLOW) == 0.975 * 8000.0

"""Images are told from content by what they share with the band below in every frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rtsr_kernels.band_limit import HZ_PER_BIN
from rtsr_kernels.images import (
    BINS,
    ENOUGH_FRAMES,
    FURTHEST,
    NEAREST,
    NYQUISTS_HZ,
    OPUS_DB,
    compare_sides,
    mirrored_at,
)

Frame = Callable[[np.ndarray], np.ndarray]
CONTENT = 0.0
FALLING = 10.0 ** (-np.linspace(6.0, 20.0, BINS) / 10.0)


def distances(nyquist: float) -> np.ndarray:
    """Bins from the mirror to where is looked."""
    return np.round(nyquist * np.linspace(NEAREST, FURTHEST, BINS) / HZ_PER_BIN).astype(int)


def judged(nyquist: float, upper_of: Frame, frames: int = 300, wall: float = 1.2) -> float:
    """What is said of a wall above a lower band that wanders, and an upper one made from it."""
    random = np.random.default_rng(0)
    mirrors = len(NYQUISTS_HZ)
    memory = np.zeros((mirrors, BINS)), np.zeros((mirrors, BINS)), np.zeros((mirrors, 3))
    mirror = round(nyquist / HZ_PER_BIN)
    near = distances(nyquist)
    for _ in range(frames):
        power = np.full(513, 1e-16)
        lower = 1e-4 * 10.0 ** random.normal(0.0, 0.6, BINS) * 10.0 ** random.normal(0.0, 0.5)
        power[mirror - near] = lower
        power[mirror + near] = upper_of(lower)
        compare_sides(power, *memory)
    return mirrored_at(wall * nyquist, *memory)


@pytest.mark.parametrize("nyquist", NYQUISTS_HZ)
def test_the_mirrored_band_below_is_known(nyquist: float) -> None:
    assert judged(nyquist, lambda lower: FALLING * lower) == nyquist


def test_those_of_opus_are_known_without_a_wall() -> None:
    opus = 10.0 ** (np.interp(np.arange(BINS), (0, BINS // 2, BINS - 1), OPUS_DB) / 10.0)
    assert judged(4000.0, lambda lower: opus * lower, wall=6.0) == 4000.0
    assert judged(8000.0, lambda lower: opus * lower, wall=3.0) == 8000.0
    other = opus * 10.0 ** (-np.linspace(0.0, 5.0, BINS) / 10.0)
    assert judged(4000.0, lambda lower: other * lower, wall=6.0) == CONTENT


def test_a_little_noise_does_not_hide_it() -> None:
    random = np.random.default_rng(1)
    noisy = judged(4000.0, lambda lower: FALLING * lower * 10 ** random.normal(0.0, 0.05, BINS))
    assert noisy == 4000.0


def test_content_of_its_own_is_content() -> None:
    random = np.random.default_rng(2)
    assert judged(4000.0, lambda lower: FALLING * random.permutation(lower)) == CONTENT
    assert judged(4000.0, lambda lower: FALLING * lower * 10 ** random.normal(0.0, 0.3)) == CONTENT


def test_a_steady_sound_on_both_sides_is_no_image() -> None:
    assert judged(4000.0, lambda lower: 0.2 * lower) == CONTENT
    assert judged(4000.0, lambda lower: FALLING[::-1] * lower) == CONTENT


def test_nothing_is_said_too_soon_or_far_from_the_mirror() -> None:
    assert judged(4000.0, lambda lower: FALLING * lower, frames=ENOUGH_FRAMES - 1) == CONTENT
    assert judged(4000.0, lambda lower: FALLING * lower, wall=0.97) == CONTENT
    unlike_opus = FALLING * 10.0 ** (-np.linspace(0.0, 6.0, BINS) / 10.0)
    assert judged(4000.0, lambda lower: unlike_opus * lower, wall=1.2) == 4000.0
    assert judged(4000.0, lambda lower: unlike_opus * lower, wall=1.4) == CONTENT

"""Images are distinguished from content by what they share with the band below in every frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rtsr_kernels.band_limit import HZ_PER_BIN
from rtsr_kernels.images import (
    BINS,
    ENOUGH_FRAMES,
    ENOUGH_HITS,
    FURTHEST,
    MOST_HITS,
    NEAREST,
    NYQUISTS_HZ,
    OPUS_DB,
    compare_bands,
    mirror_of_opus,
    mirrored_at,
)

Frame = Callable[[np.ndarray], np.ndarray]
CONTENT = 0.0
FALLING = 10.0 ** (-np.linspace(6.0, 20.0, BINS) / 10.0)


def distances(nyquist: float) -> np.ndarray:
    """Return the distances of the measured bins from the mirror."""
    return np.round(nyquist * np.linspace(NEAREST, FURTHEST, BINS) / HZ_PER_BIN).astype(int)


def mirror_found(nyquist: float, upper_of: Frame, frames: int = 300, edge: float = 1.2) -> float:
    """Return the mirror that is found for a random lower band and an upper one made of it."""
    random = np.random.default_rng(0)
    mirrors = len(NYQUISTS_HZ)
    memory = np.zeros((mirrors, BINS)), np.zeros((mirrors, BINS)), np.zeros((mirrors, 4))
    mirror = round(nyquist / HZ_PER_BIN)
    near = distances(nyquist)
    for _ in range(frames):
        power = np.full(513, 1e-16)
        lower = 1e-4 * 10.0 ** random.normal(0.0, 0.6, BINS) * 10.0 ** random.normal(0.0, 0.5)
        power[mirror - near] = lower
        power[mirror + near] = upper_of(lower)
        compare_bands(power, *memory)
    return mirrored_at(edge * nyquist, *memory)


@pytest.mark.parametrize("nyquist", NYQUISTS_HZ)
def test_the_mirrored_band_below_is_known(nyquist: float) -> None:
    assert mirror_found(nyquist, lambda lower: FALLING * lower) == nyquist


def test_those_of_opus_are_known_without_a_band_edge() -> None:
    opus = 10.0 ** (np.interp(np.arange(BINS), (0, BINS // 2, BINS - 1), OPUS_DB) / 10.0)
    assert mirror_found(4000.0, lambda lower: opus * lower, edge=6.0) == 4000.0
    assert mirror_found(8000.0, lambda lower: opus * lower, edge=3.0) == 8000.0
    other = opus * 10.0 ** (-np.linspace(0.0, 5.0, BINS) / 10.0)
    assert mirror_found(4000.0, lambda lower: other * lower, edge=6.0) == CONTENT


def test_a_little_noise_does_not_hide_it() -> None:
    random = np.random.default_rng(1)
    noisy = mirror_found(
        4000.0, lambda lower: FALLING * lower * 10 ** random.normal(0.0, 0.05, BINS)
    )
    assert noisy == 4000.0


def test_content_of_its_own_is_content() -> None:
    random = np.random.default_rng(2)
    assert mirror_found(4000.0, lambda lower: FALLING * random.permutation(lower)) == CONTENT
    assert (
        mirror_found(4000.0, lambda lower: FALLING * lower * 10 ** random.normal(0.0, 0.3))
        == CONTENT
    )


def test_a_steady_sound_on_both_sides_is_no_image() -> None:
    assert mirror_found(4000.0, lambda lower: 0.2 * lower) == CONTENT
    assert mirror_found(4000.0, lambda lower: FALLING[::-1] * lower) == CONTENT


def test_nothing_is_said_too_soon_or_far_from_the_mirror() -> None:
    unlike_opus = FALLING * 10.0 ** (-np.linspace(0.0, 6.0, BINS) / 10.0)
    too_few = ENOUGH_FRAMES - 1
    assert mirror_found(4000.0, lambda lower: 0.4 * unlike_opus * lower, frames=too_few) == CONTENT
    assert mirror_found(4000.0, lambda lower: 0.4 * unlike_opus * lower) == 4000.0
    assert mirror_found(4000.0, lambda lower: FALLING * lower, edge=0.97) == CONTENT
    assert mirror_found(4000.0, lambda lower: unlike_opus * lower, edge=1.2) == 4000.0
    assert mirror_found(4000.0, lambda lower: unlike_opus * lower, edge=1.4) == CONTENT


OPUS = 10.0 ** (np.interp(np.arange(BINS), (0, BINS // 2, BINS - 1), OPUS_DB) / 10.0)


class Frames:
    """Frames whose upper band is made from the lower one, and what is remembered of them."""

    def __init__(self, nyquist: float) -> None:
        mirrors = len(NYQUISTS_HZ)
        self.memory = np.zeros((mirrors, BINS)), np.zeros((mirrors, BINS)), np.zeros((mirrors, 4))
        self._random = np.random.default_rng(0)
        self._mirror, self._near = round(nyquist / HZ_PER_BIN), distances(nyquist)

    def feed(self, count: int, upper_of: Frame) -> float:
        """Take `count` more; returns whose images the newest are said to be."""
        for _ in range(count):
            power = np.full(513, 1e-16)
            lower = 1e-4 * 10.0 ** self._random.normal(0.0, 0.6, BINS)
            power[self._mirror - self._near] = lower
            power[self._mirror + self._near] = upper_of(lower)
            compare_bands(power, *self.memory)
        return mirror_of_opus(self.memory[2])


@pytest.mark.parametrize("nyquist", NYQUISTS_HZ)
def test_those_of_opus_are_known_within_a_third_of_a_second(nyquist: float) -> None:
    frames = Frames(nyquist)
    assert frames.feed(ENOUGH_HITS - 1, lambda lower: OPUS * lower) == CONTENT
    assert frames.feed(1, lambda lower: OPUS * lower) == nyquist
    # And whatever came before.
    frames = Frames(nyquist)
    frames.feed(300, lambda lower: lower[::-1])
    assert frames.feed(ENOUGH_HITS, lambda lower: OPUS * lower) == nyquist


def test_those_of_opus_are_forgotten_as_soon_as_they_are_gone() -> None:
    for after in (lambda lower: lower[::-1], lambda lower: np.full(BINS, 1e-16)):
        frames = Frames(8000.0)
        assert frames.feed(500, lambda lower: OPUS * lower) == 8000.0
        assert frames.feed((MOST_HITS - ENOUGH_HITS) // 3 + 1, after) == CONTENT


def test_content_that_is_as_loud_as_images_now_and_then_is_content() -> None:
    random = np.random.default_rng(3)
    frames = Frames(4000.0)
    for _ in range(300):
        gain = 10.0 ** random.normal(0.0, 0.3)
        assert frames.feed(1, lambda lower, gain=gain: gain * OPUS * lower) == CONTENT

"""A high band in proportion to the octave below it, from the first hop of a sound on."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.engine.proportion import MOST_RATIO, ProportionateSource
from rtsr.timing import HOP, OVERLAP


class NoiseSource:
    """White noise of one level, ``OVERLAP`` samples later than the input that it is for."""

    name, channels, hops, overlap, seed = "noise", 2, 1, OVERLAP, 0

    def __init__(self, level: float) -> None:
        self._level = level
        self._chance = np.random.default_rng(1)

    def reset(self) -> None:
        pass

    def resume(self, frame: int) -> None:
        pass

    def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
        made = self._chance.normal(0.0, self._level, audio.shape).astype(np.float32)
        return made if audio.any() else np.zeros_like(made)


def run(level: float, hops: int = 6, silent: int = 3) -> np.ndarray:
    """What is left in each hop of a high band above noise of 0.01 that begins after silence."""
    source = ProportionateSource(NoiseSource(level))
    chance = np.random.default_rng(0)
    out = []
    for hop in range(hops):
        audio = np.zeros((HOP, 2), np.float32)
        if hop >= silent:
            # The first channel has sound, the second none.
            audio[:, 0] = chance.normal(0.0, 0.01, HOP)
        out.append(source.generate(audio, np.full(1, 12000.0, np.float32), 24000.0).copy())
    return np.stack(out)


def test_too_much_is_turned_down_from_the_onset_on() -> None:
    left = run(0.1)
    assert not left[:3].any()
    # But for the time in which the gain falls.
    powers = np.mean(np.square(left[3:, 64:]), axis=1) / (MOST_RATIO * 0.01**2)
    assert np.all(powers[:, 0] < 1.6)
    assert powers[2:, 0] == pytest.approx(1.0, rel=0.5)
    # And above nothing there is nothing.
    assert np.all(powers[:, 1] < 1e-6)


def test_what_is_in_proportion_passes_as_it_is() -> None:
    source = NoiseSource(0.005)
    audio = np.ones((HOP, 2), np.float32)
    expected = np.stack([source.generate(audio, np.zeros(1), 0.0) for _ in range(6)])
    # After silence it is faded in over a hop.
    assert np.array_equal(run(0.005)[4:, :, 0], expected[4:, :, 0])

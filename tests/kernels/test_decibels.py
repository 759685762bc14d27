"""Levels in dB against numpy's, over all that a power may be."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.decibels import to_decibels


def test_levels_are_those_of_the_logarithm() -> None:
    random = np.random.default_rng(0)
    powers = np.concatenate([10.0 ** random.uniform(-30, 10, 2000), 2.0 ** np.arange(-99.0, 30.0)])
    # Next to the places where the series changes its octave.
    powers = np.concatenate([powers, np.sqrt(0.5) * (1.0 + np.array([-1e-15, 0.0, 1e-15]))])
    levels = powers.copy()
    to_decibels(levels, np.empty_like(levels))
    np.testing.assert_allclose(levels, 10.0 * np.log10(powers), rtol=0.0, atol=1e-11)


def test_scratch_memory_must_be_long_enough() -> None:
    with pytest.raises(ValueError, match="too short"):
        to_decibels(np.ones(4), np.ones(3))

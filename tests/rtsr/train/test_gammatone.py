"""ViSQOL's filters, from bands of the model: centres, bandwidths and what counts."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rtsr.model.bands import band_centres  # noqa: E402
from rtsr.train.gammatone import (  # noqa: E402
    EAR_QUALITY,
    FILTERS,
    LEAST_BANDWIDTH_HZ,
    LOWEST_HZ,
    gammatone_centres,
    gammatone_powers,
    gammatone_weights,
)

BANDS = 64


def test_centres_are_those_of_the_metric():
    gammatone = pytest.importorskip("visqol.gammatone")
    theirs = gammatone.calc_center_freqs(LOWEST_HZ, 24_000.0, FILTERS)
    assert gammatone_centres().tolist() == pytest.approx(sorted(float(hz) for hz in theirs))


def test_white_noise_has_the_power_of_each_filters_bandwidth():
    """A gammatone filter of fourth order is as wide as one equivalent rectangular bandwidth."""
    power = torch.ones(BANDS) @ gammatone_powers(BANDS)
    bandwidth = gammatone_centres() / EAR_QUALITY + LEAST_BANDWIDTH_HZ
    # The lowest filter reaches below 0 Hz, the highest beyond 24 kHz.
    inner = slice(3, FILTERS - 2)
    expected = bandwidth / 24_000.0
    assert (power[inner] / expected[inner] - 1.0).abs().max() < 0.02


def test_a_band_is_heard_by_the_filters_around_it():
    powers = gammatone_powers(BANDS)
    centres, bands = gammatone_centres(), band_centres(BANDS)
    for band in (20, 40, 60):
        loudest = centres[int(powers[band].argmax())]
        assert 0.8 < float(loudest / bands[band]) < 1.25


def test_weights_lie_on_what_speech_lacks():
    weights, centres = gammatone_weights(), gammatone_centres()
    assert float(weights.sum()) == pytest.approx(1.0)
    assert float(weights[centres > 7000.0].sum()) > 0.9
    assert float(weights.min()) > 0.0

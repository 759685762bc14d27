"""Noise in pauses: as loud and as coloured as was described, or as what was heard before."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from rtsr.call.comfort_noise import ComfortNoise


def dbfs(sound):
    return 10 * np.log10(np.mean(np.square(sound, dtype=np.float64)) + 1e-30)


def noise_at(level_db, samples=160, seed=0):
    chance = np.random.default_rng(seed)
    return (10 ** (level_db / 20) * chance.standard_normal((samples, 1))).astype(np.float32)


def test_without_anything_heard_there_is_silence():
    assert not ComfortNoise().make(160).any()


def test_the_quietest_of_what_was_heard_goes_on():
    noise = ComfortNoise(channels=2)
    for seed, level_db in enumerate([-20.0, -62.0, -30.0]):
        noise.observe(noise_at(level_db, 1600, seed))
    made = noise.make(8000)
    assert made.shape == (8000, 2)
    assert dbfs(made) == pytest.approx(-62.0, abs=1.0)
    assert (made[:, 0] == made[:, 1]).all()
    assert not noise.is_described


def test_an_empty_packet_says_nothing():
    noise = ComfortNoise()
    noise.describe(bytes([50]))
    noise.observe(np.zeros((0, 1), np.float32))
    assert noise.is_described
    assert dbfs(noise.make(8000)) == pytest.approx(-50.0, abs=1.0)


@pytest.mark.parametrize(("level_db", "expected"), [(-46.0, True), (-44.0, False)])
def test_what_may_be_a_voice_does_not_go_on(level_db, expected):
    noise = ComfortNoise()
    noise.observe(np.full((160, 1), 10 ** (level_db / 20), np.float32))
    assert noise.make(160).any() == expected


@pytest.mark.parametrize(("packets", "level_db"), [(74, -70.0), (75, -50.0)])
def test_what_was_quiet_one_and_a_half_seconds_ago_is_forgotten(packets, level_db):
    noise = ComfortNoise()
    noise.observe(noise_at(-70.0, 1600))
    for seed in range(packets):
        noise.observe(noise_at(-50.0, 1600, seed))
    assert dbfs(noise.make(8000)) == pytest.approx(level_db, abs=1.0)


@pytest.mark.parametrize(("byte", "level_db"), [(50, -50.0), (178, -50.0), (127, -127.0)])
def test_a_described_level_is_kept_until_there_is_sound_again(byte, level_db):
    noise = ComfortNoise()
    noise.observe(noise_at(-60.0, 1600))
    noise.describe(bytes([byte]))
    assert noise.is_described
    assert dbfs(noise.make(8000)) == pytest.approx(level_db, abs=1.0)
    noise.observe(noise_at(-60.0, 1600))
    assert not noise.is_described
    assert dbfs(noise.make(8000)) == pytest.approx(-60.0, abs=1.0)


def test_no_peer_makes_it_louder_than_a_room():
    noise = ComfortNoise()
    noise.describe(bytes([0, 254, 254, 254, 254]))
    assert dbfs(noise.make(80000)) < -25.0
    noise.describe(b"")
    assert noise.is_described


@pytest.mark.parametrize("codes", [[200], [60], [200, 90, 150]])
def test_a_described_colour_is_that_of_its_reflection_coefficients(codes):
    """The noise, filtered by the inverse of the predictor, is white again and has its variance."""
    noise = ComfortNoise()
    noise.describe(bytes([40, *codes]))
    reflection = 258 * (np.array(codes) - 127) / 32768
    made = np.concatenate([noise.make(160) for _ in range(500)])[:, 0].astype(np.float64)
    assert dbfs(made) == pytest.approx(-40.0, abs=0.5)
    # RFC 3389, 3.2: the first coefficient is that of lag 1, minus its correlation.
    lag1 = np.mean(made[1:] * made[:-1]) / np.mean(made**2)
    assert lag1 == pytest.approx(-reflection[0], abs=0.03)
    predictor = np.ones(1)
    for k in reflection:
        longer = np.append(predictor, 0.0)
        predictor = longer + k * longer[::-1]
    white = lfilter(predictor, [1.0], made)[10:]
    assert np.mean(white**2) / np.mean(made**2) == pytest.approx(
        np.prod(1 - reflection**2), rel=0.05
    )
    for lag in (1, 2, 3):
        assert abs(np.mean(white[lag:] * white[:-lag])) < 0.03 * np.mean(white**2)

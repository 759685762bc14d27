"""The losses on tonality and on loudness."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from rtsr.train.losses import LossWeights, SpectralLoss  # noqa: E402
from rtsr.train.loudness import EXPONENT, loudness_error  # noqa: E402
from rtsr.train.tonality import BAND_BINS, tonality  # noqa: E402

SAMPLES = 48_000
EULER = 0.5772


def noise(seed, clips=2):
    return 0.05 * torch.randn(clips, SAMPLES, generator=torch.Generator().manual_seed(seed))


def lines(spacing=600.0, offset=0.0):
    time = torch.arange(SAMPLES) / 48_000
    partials = torch.arange(4500.0 + offset, 20_000.0, spacing)
    return 0.01 * torch.sin(2 * math.pi * partials[:, None] * time).sum(0).expand(2, -1)


def tonal_loss(estimate, reference, f_prior=4000.0, f_target=22_000.0):
    loss = SpectralLoss(LossWeights())
    limits = torch.full((len(reference),), f_prior), torch.full((len(reference),), f_target)
    floor = torch.zeros(len(reference))
    return float(loss(loss.powers(estimate, reference), *limits, floor)["tonality"])


def test_noise_lies_eulers_constant_above_a_flat_spectrum():
    """The logarithm of an exponentially distributed power has the mean -0.577."""
    spectra = -torch.log(torch.rand(4, 400, 1025, generator=torch.Generator().manual_seed(0)))
    # The mean of a few bins varies, and its logarithm lies 1 / (2 n) below that of the mean.
    expected = EULER - 0.5 / BAND_BINS
    assert float(tonality(spectra).mean()) == pytest.approx(expected, abs=0.01)
    assert float(tonality(torch.full((1, 9, 1025), 0.3)).abs().max()) < 1e-5


def test_one_strong_bin_is_a_line():
    power = torch.ones(1, 8, 1025)
    power[..., ::BAND_BINS] = 1e6
    expected = math.log((BAND_BINS - 1 + 1e6) / BAND_BINS) - math.log(1e6) / BAND_BINS
    bands = tonality(power)[0, 0]
    assert bands.tolist() == pytest.approx([expected] * len(bands), rel=1e-3)


def test_a_gain_or_another_noise_costs_little_and_noise_for_lines_much():
    floor = 1e-4 * noise(5)
    same = tonal_loss(noise(1), noise(2))
    assert same < 0.2
    assert tonal_loss(noise(1) * 4.0, noise(2)) == pytest.approx(same, rel=0.05)
    assert tonal_loss(noise(1), lines() + floor) > 1.0
    assert tonal_loss(lines() + floor, noise(1)) > 1.0


def test_where_the_lines_lie_is_not_asked():
    moved = tonal_loss(lines(offset=150.0) + 1e-4 * noise(5), lines() + 1e-4 * noise(6))
    assert moved < 0.5 * tonal_loss(noise(1), lines() + 1e-4 * noise(6))


def test_bands_far_below_the_loudest_and_outside_do_not_count():
    reference = lines() + noise(3) * 1e-4
    spectrum = torch.fft.rfft(reference)
    frequency = torch.fft.rfftfreq(SAMPLES, 1 / 48_000)
    spectrum[:, frequency > 12_000.0] *= 1e-4
    reference = torch.fft.irfft(spectrum, SAMPLES)
    hiss = torch.fft.rfft(noise(4) * 1e-3)
    hiss[:, frequency < 13_000.0] = 0.0
    assert tonal_loss(reference + torch.fft.irfft(hiss, SAMPLES), reference) < 0.02
    low = torch.fft.rfft(noise(4))
    low[:, frequency > 3800.0] = 0.0
    assert tonal_loss(lines() + torch.fft.irfft(low, SAMPLES), lines()) < 0.02


def test_loudness_of_a_gain_is_its_power():
    log = torch.randn(2, 50, 24)
    mask = torch.ones(2, 1, 24)
    assert float(loudness_error((log, log), mask)) == pytest.approx(0.0, abs=1e-6)
    louder = log + 2.0 * math.log(2.0)
    expected = 4.0**EXPONENT - 1.0
    assert float(loudness_error((louder, log), mask)) == pytest.approx(expected, rel=0.02)
    mask[:, :, 12:] = 0.0
    louder[:, :, :12] = log[:, :, :12]
    assert float(loudness_error((louder, log), mask)) == pytest.approx(0.0, abs=1e-6)


def test_what_is_sometimes_loud_is_guessed_louder_than_by_its_mean_logarithm():
    """One band, silent in half of the frames: what constant level is the best guess?"""
    reference = torch.zeros(1, 100, 1)
    reference[:, ::2] = -12.0
    guess = torch.tensor(-6.0, requires_grad=True)
    optimizer = torch.optim.Adam([guess], lr=0.1)
    for _ in range(200):
        error = loudness_error((guess.expand(1, 100, 1), reference), torch.ones(1, 1, 1))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    mean_loudness = (1.0 + math.exp(-12.0 * EXPONENT)) / 2.0
    assert float(guess.detach()) == pytest.approx(math.log(mean_loudness) / EXPONENT, abs=0.05)
    assert float(guess.detach()) > -3.0

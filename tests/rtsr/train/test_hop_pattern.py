"""The loss on what a generator does alike in every hop."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rtsr.train.losses import LossWeights, SpectralLoss  # noqa: E402

SAMPLES = 61_440
CLIPS = 12
#: what is left of two noises after an average over the 128 hops of a clip
CHANCE = pytest.approx(0.152, abs=0.01)


def hop_loss(estimate, reference, f_prior=4000.0):
    loss = SpectralLoss(LossWeights())
    cutoff, end = torch.full((CLIPS,), f_prior), torch.full((CLIPS,), 20_000.0)
    floor = torch.zeros(CLIPS)
    return float(loss(loss.powers(estimate, reference), cutoff, end, floor)["hop"])


def noise(seed):
    return 0.05 * torch.randn(CLIPS, SAMPLES, generator=torch.Generator().manual_seed(seed))


def modulated(audio, rate_hz, depth=0.3):
    time = torch.arange(audio.shape[1]) / 48_000
    return audio * (1.0 + depth * torch.cos(2.0 * torch.pi * rate_hz * time))


def test_other_noise_has_no_pattern():
    assert hop_loss(noise(1), noise(2)) == CHANCE
    assert hop_loss(noise(1) * 2.0, noise(2)) == CHANCE


@pytest.mark.parametrize("rate_hz", [100.0, 200.0, 300.0])
def test_a_buzz_at_the_hop_rate_is_found_at_its_size(rate_hz):
    # ln (1 + d cos)^2 has an effective value of about sqrt(2) d; short windows smooth the fast ones
    assert 0.3 < hop_loss(modulated(noise(1), rate_hz), noise(2)) < 0.48


def test_a_buzz_that_the_truth_has_too_costs_nothing():
    assert hop_loss(modulated(noise(1), 100.0), modulated(noise(2), 100.0)) == CHANCE


def test_what_is_not_locked_to_the_hop_costs_nothing():
    assert hop_loss(modulated(noise(1), 130.0), noise(2)) == CHANCE


def test_the_low_band_does_not_count():
    quiet = 1e-3 * noise(3)
    spectrum = torch.fft.rfft(modulated(noise(1), 100.0))
    spectrum[:, torch.fft.rfftfreq(SAMPLES, 1 / 48_000) > 3500.0] = 0.0
    low = torch.fft.irfft(spectrum, SAMPLES)
    assert hop_loss(low + quiet + noise(4) * 0.3, noise(2), f_prior=4000.0) == CHANCE


@pytest.mark.slow
def test_it_falls_when_it_is_followed():
    reference, contour = noise(2), torch.zeros(10, requires_grad=True)
    off = dict.fromkeys(("bins", "mel", "loudness", "smooth", "level", "shape", "tonality"), 0.0)
    loss = SpectralLoss(LossWeights(**off, hop=1.0))
    limits = torch.full((CLIPS,), 4000.0), torch.full((CLIPS,), 20_000.0)
    buzzing = modulated(noise(1), 100.0)
    optimizer = torch.optim.Adam([contour], lr=0.05)
    losses = []
    for _ in range(15):
        gains = contour.exp().repeat_interleave(48).repeat(SAMPLES // 480)
        powers = loss.powers(buzzing * gains, reference)
        total = loss(powers, *limits, torch.zeros(CLIPS))["total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.4 * losses[0]

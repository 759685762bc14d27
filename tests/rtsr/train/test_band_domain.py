"""Degradation in the band domain: what it says of a clip is what the model would measure."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rtsr.model.config import configuration  # noqa: E402
from rtsr.model.generator import seeded  # noqa: E402
from rtsr.train.band_domain import BandDomain  # noqa: E402
from rtsr.train.corpus import Crops  # noqa: E402
from rtsr.train.degrade import DegradeConfig  # noqa: E402
from rtsr.train.levels import LevelLoss  # noqa: E402

SAMPLES = 480 * 60
PLAIN = DegradeConfig(
    narrow_share=1.0,
    companding_share=0.0,
    floor_share=0.0,
    equalizer_share=0.0,
    mix_share=0.0,
    cutoff_jitter=0.0,
)


class Chance:
    """A generator of numbers that draws the same from every range: a share of it."""

    def __init__(self, share: float) -> None:
        self.share = share

    def uniform(self, low, high, count=None):
        value = low + self.share * (high - low)
        return value if count is None else np.full(count, value)

    def random(self, count=None):
        return self.share if count is None else np.full(count, self.share)

    def choice(self, values, count=None, p=None):
        value = values[1] if len(values) > 1 else values[0]
        return value if count is None else np.full(count, value)

    def normal(self, mean, spread, count):
        return np.full(count, mean)


def domain(**changes):
    config = DegradeConfig(**{**vars(PLAIN), **changes})
    return BandDomain(LevelLoss(64), 64, config, torch.device("cpu"))


def clips(count=2, seed=0):
    return 0.1 * torch.randn(count, SAMPLES, generator=torch.Generator().manual_seed(seed))


def degraded(chance=0.999, sounds=None, lossy=False, **changes):
    sounds = clips() if sounds is None else sounds
    count, samples = sounds.shape
    crops = Crops(
        pieces=list(32768.0 * sounds),
        speeds=[1.0] * count,
        samples=samples,
        cutoffs_hz=np.full(count, 24_000.0),
        codec_rows=None,
        lossy=np.full(count, lossy),
        is_speech=np.ones(count, bool),
    )
    return domain(**changes).degrade(crops, Chance(chance))


def test_the_powers_are_those_that_the_model_measures():
    """From the same sound, limited as the band domain limits it, the network gets the same."""
    sounds = clips()
    bands = degraded(sounds=sounds)
    tiny = seeded(configuration("small", predictor_width=8, predictor_blocks=1), 1).eval()
    frames = SAMPLES // 480
    f_prior = bands.f_prior[:, None, None].expand(2, frames, 1)
    # `Chance` draws a gain of 10 dB, and a low-pass that begins at the cutoff.
    spectrum = torch.fft.rfft(10**0.5 * sounds)
    below = torch.fft.rfftfreq(SAMPLES, 1 / 48_000) < bands.f_prior[0]
    narrow = torch.fft.irfft(spectrum * below, SAMPLES)[:, None]
    state = tiny.initial_state(2)
    with torch.no_grad():
        expected = tiny.analyse(narrow, f_prior, state)[0].predicted.level
        said = tiny.predict_from_bands(bands.power, f_prior)
        _, running = tiny.predict_levels(narrow, f_prior, state)
    speech = tiny.config.predictor_trust * said.logit.sigmoid().square()
    other = tiny.config.predictor_other_trust * (-said.logit).sigmoid().square()
    levels = (speech * said.speech + other * said.other) / (speech + other)
    error = (levels - running.log() - expected)[:, 5:].abs()
    assert error.max() < 0.05


def test_white_noise_of_unit_variance_has_powers_of_one():
    noise = torch.randn(1, 480 * 400)
    bands = degraded(sounds=10.0**-0.5 * noise)
    reference = bands.reference[0, 5:-5].mean(0)
    np.testing.assert_allclose(reference.numpy(), 1.0, atol=0.2)
    np.testing.assert_allclose(bands.power[0, 5:, 2:30].mean(0).numpy(), 1.0, atol=0.2)
    assert float(bands.power[0, :, 40:].max()) == 0.0


def test_an_equaliser_moves_both_sides_alike(monkeypatch):
    knots = np.array([0.0, -5.0, 5.0, 0.0, 8.0, -8.0, 6.0, -6.0])
    monkeypatch.setattr("rtsr.train.band_domain.draw_knots", lambda rng: knots)
    flat, coloured = degraded(), degraded(equalizer_share=1.0)
    made = domain()
    gains = (10.0 ** (torch.from_numpy(knots).float() @ made.hats / 10.0)) @ made.means
    assert float(gains.max() / gains.min()) > 10.0
    reference = (coloured.reference / flat.reference)[:, 5:].mean((0, 1))
    np.testing.assert_allclose(reference, gains, rtol=1e-3)
    # A band's power is a weighted mean, so that a slope within it counts as the sound is.
    power = (coloured.power / flat.power.clamp(min=1e-30))[:, 5:, 2:33].mean((0, 1))
    np.testing.assert_allclose(power, gains[2:33], rtol=0.1)


def test_a_noise_floor_stands_in_input_and_reference():
    silence = torch.zeros(1, SAMPLES)
    bands = degraded(0.0, sounds=silence, floor_share=1.0)
    # -95 dBFS at 1 kHz and -4 dB per octave above; rounding comes on top of the input.
    tilted = 10.0 * bands.reference[0].mean(0).log10()
    assert float(tilted[15]) == pytest.approx(-95.0, abs=3.0)
    assert float(tilted[60] - tilted[15]) == pytest.approx(-4.0 * np.log2(20.5), abs=3.0)
    assert float(bands.power[0, :, 10].mean()) > float(bands.reference[0, :, 10].mean())


def test_a_telephone_lacks_low_frequencies_in_the_input_alone():
    plain, call = degraded(0.5), degraded(0.1)
    assert float((call.power[:, 5:, 1] / call.power[:, 5:, 20]).mean()) < 0.1 * float(
        (plain.power[:, 5:, 1] / plain.power[:, 5:, 20]).mean()
    )
    ratio = call.reference[:, 5:, 1] / call.reference[:, 5:, 20]
    assert float(ratio.mean()) > 0.3


def test_what_a_coder_left_out_is_unreliable():
    lossless, lossy = degraded(), degraded(lossy=True)
    assert float(lossy.noise_floor.mean() / lossless.noise_floor.mean()) == pytest.approx(100.0)


def test_a_companded_call_is_noisy_in_proportion_to_its_level():
    quiet = degraded(0.05, companding_share=0.0)
    noisy = degraded(0.05, companding_share=1.0)
    added = (noisy.power - quiet.power)[:, 5:, 10].mean()
    # Flat from the telephone's high-pass up: every band below the cutoff has the signal's power.
    assert 10 * float((added / noisy.power[:, 5:, 20:30].mean()).log10()) == pytest.approx(
        -30.6, abs=1.0
    )

"""The band regression: averages of the past, one map per number of bands, and its share."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from rtsr.model import CONFIGURATIONS, single_frame  # noqa: E402
from rtsr.model.analysis import below  # noqa: E402
from rtsr.model.band_predictor import BandPredictor  # noqa: E402
from rtsr.model.band_regression import AVERAGES, USUAL_LOUDNESS, BandRegression  # noqa: E402
from rtsr.model.bands import band_centres  # noqa: E402
from rtsr.model.streaming import branch  # noqa: E402

CONFIG = replace(CONFIGURATIONS["small"], predictor_width=8, predictor_memory=4, predictor_rank=3)
BANDS = CONFIG.gain_bands
FRAMES = 30


@pytest.fixture
def regression():
    module = BandRegression(CONFIG).eval()
    with torch.no_grad():
        module.maps.normal_()
        module.basis.normal_()
    return module


def observed(frames=FRAMES, cutoff_hz=6000.0):
    """Return energies, loudness and which bands the input has, of two clips."""
    is_input = below(torch.full((2, frames, 1), cutoff_hz), band_centres(BANDS))
    return torch.randn(2, frames, BANDS) - 12.0, torch.randn(2, frames, 1) - 10.0, is_input


def test_blocks_give_what_single_frames_give(regression):
    inputs = observed()
    whole, last = regression.step(*inputs, regression.initial_state(2))
    state, parts = regression.initial_state(2), []
    for cut in (slice(0, 1), slice(1, 8), slice(8, FRAMES)):
        part, state = regression.step(*(one[:, cut] for one in inputs), state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state["sums"], last["sums"])


@pytest.mark.parametrize("frames", [1, 5])
def test_a_trace_takes_the_same_averages(frames):
    x, past, decays = torch.randn(2, frames, 3), torch.randn(2, 1, 3), torch.tensor([0.2, 0.7, 0.9])
    expected, before = [], past[:, 0]
    for frame in range(frames):
        before = decays * before + x[:, frame]
        expected.append(before)
    found = single_frame.decaying_sum(x, past, decays)
    torch.testing.assert_close(found, torch.stack(expected, dim=1))


def test_averages_are_of_the_present_and_the_past_alone(regression):
    energy, loudness, is_input = observed()
    inputs, _ = regression.observe(energy, loudness, is_input, regression.initial_state(2))
    for number, frames in enumerate(AVERAGES):
        weights = (1.0 - 1.0 / frames) ** torch.arange(FRAMES - 1, -1, -1.0)
        mean = (energy * weights[:, None]).sum(dim=1) / weights.sum()
        first = 2 + len(AVERAGES) + BANDS * (1 + number)
        found = inputs[:, -1, first : first + BANDS]
        expected = (mean - loudness[:, -1]) * is_input[:, -1]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
        mean_loudness = (loudness * weights[:, None]).sum(dim=1) / weights.sum()
        difference = (mean_loudness - loudness[:, -1])[:, 0]
        torch.testing.assert_close(inputs[:, -1, 2 + number], difference, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(inputs[:, :, 1:2], loudness - USUAL_LOUDNESS)
    assert (inputs[:, :, 0] == 1.0).all()


def test_every_number_of_bands_has_its_map(regression):
    cutoffs = torch.linspace(100.0, 24_000.0, 1000)[None, :, None]
    numbers = regression.map_of(below(cutoffs, band_centres(BANDS)))[0].tolist()
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(regression.maps.shape[0] - 1))
    wide = below(torch.full((1, 1, 1), 10_000.0), band_centres(BANDS))
    assert regression.map_of(wide).item() == int(wide.sum().round()) - regression.fewest


def test_levels_are_the_map_of_the_frame(regression):
    energy, loudness, is_input = observed()
    is_input[:, 20:] = below(torch.full((2, 10, 1), 12_000.0), band_centres(BANDS))
    state = regression.initial_state(2)
    inputs, _ = regression.observe(energy, loudness, is_input, state)
    levels, _ = regression.step(energy, loudness, is_input, state)
    for frame in (3, 25):
        number = regression.map_of(is_input)[0, frame]
        expected = inputs[0, frame] @ regression.maps[number] @ regression.basis
        torch.testing.assert_close(levels[0, frame], expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_its_share_of_the_levels_of_other_sound_is_the_configurations(share):
    config = replace(CONFIG, predictor_regression_share=share)
    predictor = BandPredictor(config).eval()
    with torch.no_grad():
        predictor.head.bias[-1] = -99.0  # surely no speech
        predictor.regression.maps.normal_(std=0.1)
        predictor.regression.basis.normal_()
        power = torch.rand(2, FRAMES, BANDS) * 1e-3
        f_prior, level = torch.full((2, FRAMES, 1), 6000.0), torch.full((2, FRAMES, 1), 0.5)
        path = torch.randn(2, FRAMES, config.level_width)
        state = predictor.initial_state(2)
        said, _ = predictor.predict(power, f_prior, path, state)
        (levels, _), _ = predictor.step(power, level, f_prior, path, state)
        is_input = below(f_prior, predictor.centres)
        loudness = ((power * is_input).mean(dim=2, keepdim=True) + 1e-10).log()
        energy = (power + 1e-10).log()
        relative, _ = predictor.regression.step(
            energy, loudness, is_input, branch(state, "regression")
        )
    torch.testing.assert_close(said.regression, 0.5 * (relative + loudness))
    mean = (1.0 - share) * said.other + share * said.regression
    expected = mean - level.log()
    torch.testing.assert_close(levels.level, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lacking", ["predictor_width", "predictor_other"])
def test_a_regression_stands_beside_a_part_for_other_sound(lacking):
    with pytest.raises(ValueError, match="predictor_rank needs"):
        replace(CONFIG, **{lacking: 0})


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match="predictor_regression_share is"):
        replace(CONFIG, predictor_regression_share=share)

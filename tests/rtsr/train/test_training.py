"""Training: simulation, losses, adversaries, stages, checkpoints, and a whole short run."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from small_run import TINY, TINY_CHANGES, corpus  # noqa: E402

from rtsr.cli import _stop  # noqa: E402
from rtsr.cli.app import app  # noqa: E402
from rtsr.cli.train import run_until_stopped  # noqa: E402
from rtsr.errors import ArgumentError, RtsrError  # noqa: E402
from rtsr.train import schedule, stages  # noqa: E402
from rtsr.train.checkpoint import load_checkpoint, load_generator, save_checkpoint  # noqa: E402
from rtsr.train.degrade import (  # noqa: E402
    LOSSLESS_NOISE_FLOOR,
    LOSSY_NOISE_FLOOR,
    DegradeConfig,
    degrade,
    draw_cutoffs,
    mix,
)
from rtsr.train.device import choose_device  # noqa: E402
from rtsr.train.discriminators import Discriminators  # noqa: E402
from rtsr.train.losses import TERMS, LossWeights, SpectralLoss, sliced_wasserstein  # noqa: E402
from rtsr.train.room import draw_rooms  # noqa: E402
from rtsr.train.settings import RANGES, TrainSettings, load_settings  # noqa: E402
from rtsr.train.similarity import dissimilarity  # noqa: E402
from rtsr.train.trainer import CHECKPOINT, LOG, Trainer, frozen  # noqa: E402

SAMPLES = 48_000
PLAIN = DegradeConfig(
    room_share=0.0,
    floor_share=0.0,
    equalizer_share=0.0,
    mix_share=0.0,
    analog_share=0.0,
    companding_share=0.0,
)
PREDICTOR_TERMS = {"predictor", "predictor_heard", "is_speech", "other_sound"}
LEVEL_TERMS = {"levels", "path", "levels_contours", "path_contours"}


def band_power(audio, low, high):
    power = torch.fft.rfft(audio[..., 4800:-4800] * torch.hann_window(audio.shape[-1] - 9600))
    frequency = torch.fft.rfftfreq(audio.shape[-1] - 9600, 1 / 48_000)
    return power.abs().square()[..., (frequency > low) & (frequency < high)].mean()


def degraded(seed: int = 0, config: DegradeConfig = PLAIN, batch: int = 8):
    torch.manual_seed(seed)
    clips = torch.randn(batch, SAMPLES) * 0.1
    return degrade(clips, np.full(batch, 22_000.0), config, np.random.default_rng(seed))


def test_nothing_is_left_above_the_cutoff():
    data = degraded()
    for narrow, f_prior in zip(data.narrow[:, 0], data.f_prior.tolist(), strict=True):
        cutoff = f_prior * 1.05
        below = band_power(narrow, 100.0, 0.7 * f_prior)
        assert band_power(narrow, cutoff, 24_000.0) < 1e-8 * below


def test_the_pass_band_is_the_truth_up_to_quantisation():
    data = degraded(config=replace(PLAIN, narrow_share=1.0, wide_share=0.0))
    for narrow, reference, f_prior in zip(
        data.narrow[:, 0], data.reference[:, 0], data.f_prior.tolist(), strict=True
    ):
        ratio = band_power(narrow, 100, 0.7 * f_prior) / band_power(reference, 100, 0.7 * f_prior)
        assert abs(10 * np.log10(float(ratio))) < 0.3


@pytest.mark.parametrize(
    ("share", "given"), [(1.0, {20_000.0}), (0.0, {24_000.0})], ids=["given", "withheld"]
)
def test_the_end_is_given_or_withheld_and_always_compared_up_to(share, given):
    config = replace(PLAIN, told_share=share)
    clips = torch.randn(8, SAMPLES) * 0.1
    data = degrade(clips, np.full(8, 20_000.0), config, np.random.default_rng(0))
    assert set(data.f_target.tolist()) == given
    assert set(data.f_end.tolist()) == {20_000.0}
    assert float(data.f_prior.max()) < 0.8 * 20_000.0 * 1.05


def test_the_noise_floor_follows_the_gain():
    clips = torch.full((4, SAMPLES), 0.1)
    lossy = np.array([False, True, False, True])
    data = degrade(clips, np.full(4, 20_000.0), PLAIN, np.random.default_rng(0), None, lossy)
    gain = data.reference[:, 0, SAMPLES // 2] / 0.1
    floors = torch.tensor([LOSSLESS_NOISE_FLOOR, LOSSY_NOISE_FLOOR] * 2).float() * gain.square()
    torch.testing.assert_close(data.noise_floor, floors, rtol=1e-3, atol=0.0)


def test_a_room_lets_a_click_decay_for_its_time():
    torch.manual_seed(0)
    rooms = draw_rooms(20, SAMPLES, np.random.default_rng(0), torch.device("cpu"))
    tails = torch.fft.irfft(rooms, SAMPLES)
    assert tails[:, 0].min() > 0.5
    energy = tails.square()
    energy[:, 0] = 0.0
    tail_db = 10 * energy.sum(1).log10()
    assert -19.0 < float(tail_db.min()) < float(tail_db.max()) < 4.0
    # After the longest reverberation all is over, and before the click comes hardly anything.
    assert (energy[:, round(0.81 * SAMPLES) :].sum(1) < 2e-3 * energy.sum(1)).all()
    early, late = (energy[:, part].sum() for part in (slice(0, 4800), slice(9600, 14400)))
    assert float(early) > 10.0 * float(late)


def test_a_room_is_on_both_sides_and_on_no_coded_clip():
    config = replace(PLAIN, room_share=1.0, narrow_share=1.0, wide_share=0.0)
    data = degraded(config=config)
    for narrow, reference, f_prior in zip(
        data.narrow[:, 0], data.reference[:, 0], data.f_prior.tolist(), strict=True
    ):
        ratio = band_power(narrow, 100, 0.7 * f_prior) / band_power(reference, 100, 0.7 * f_prior)
        assert abs(10 * np.log10(float(ratio))) < 0.3
    assert not torch.allclose(data.reference, degraded().reference)


def test_a_neighbour_that_is_lossy_makes_the_mixture_lossy():
    lossy = np.array([True] + [False] * 7)
    ends = np.linspace(16_000.0, 23_000.0, 8)
    config = replace(PLAIN, mix_share=1.0)
    mixed = mix(torch.ones(8, 4), ends, lossy, config, np.random.default_rng(0), np.arange(8) != 2)
    # A clip's neighbour is the one before it; the third may not have one.
    assert mixed[2].tolist() == [True, True] + [False] * 6
    expected = np.minimum(ends, np.roll(ends, 1))
    expected[2] = ends[2]
    np.testing.assert_array_equal(mixed[1], expected)
    assert ((mixed[0][:, 0] > 1.09).tolist()) == [True, True, False] + [True] * 5


def test_same_seed_gives_the_same_batch_and_another_seed_another():
    config = DegradeConfig()
    first, again, other = degraded(1, config), degraded(1, config), degraded(2, config)
    assert torch.equal(first.narrow, again.narrow)
    assert torch.equal(first.f_prior, again.f_prior)
    assert not torch.equal(first.f_prior, other.f_prior)


def test_cutoffs_stay_below_the_clips_own_end():
    ends = np.array([5000.0, 9000.0, 24_000.0] * 200)
    cutoffs = draw_cutoffs(ends, DegradeConfig(), np.random.default_rng(0))
    assert np.all(cutoffs <= 0.8 * ends)
    assert cutoffs.min() >= 1000.0
    assert 0.2 < np.mean(np.abs(cutoffs[2::3] - 3700) < 500) < 0.6


def spectral(estimate, reference, f_prior=4000.0, f_end=22_000.0, floor=0.0):
    loss = SpectralLoss(LossWeights())
    limits = torch.full((len(reference),), f_prior), torch.full((len(reference),), f_end)
    return loss(loss.powers(estimate, reference), *limits, torch.full((len(reference),), floor))


def test_losses_are_zero_for_equal_audio_and_blind_below_the_cutoff():
    reference = torch.randn(2, SAMPLES) * 0.1
    terms = spectral(reference.clone(), reference)
    assert all(abs(float(value)) < 1e-6 for value in terms.values())
    time = torch.arange(SAMPLES) / 48_000
    hum = 0.1 * torch.sin(2 * torch.pi * 400.0 * time)
    assert float(spectral(reference + hum, reference)["total"]) < 0.02


def test_a_gain_is_measured_as_its_logarithm():
    reference = torch.randn(2, SAMPLES) * 0.1
    terms = spectral(reference * 2.0, reference)
    for name in ("bins", "mel", "smooth", "level"):
        assert float(terms[name]) == pytest.approx(2 * np.log(2.0), abs=0.02)


def test_levels_below_the_noise_floor_are_not_compared():
    reference = torch.randn(2, SAMPLES) * 1e-5
    estimate = reference * 0.1
    compared = spectral(estimate, reference)
    kept_back = spectral(estimate, reference, floor=1e-7)
    for name in ("bins", "mel", "smooth", "level"):
        assert float(compared[name]) > 0.5
        assert float(kept_back[name]) < 0.01


def test_near_the_cutoff_an_error_counts_more_than_far_above_it():
    reference = torch.randn(2, SAMPLES) * 0.1
    spectrum = torch.fft.rfft(reference)
    frequency = torch.fft.rfftfreq(SAMPLES, 1 / 48_000)

    def louder(low):
        gain = 1.0 + ((frequency > low) & (frequency < low + 3000.0)).float()
        return torch.fft.irfft(spectrum * gain, SAMPLES)

    near, far = (float(spectral(louder(low), reference)["bins"]) for low in (4500.0, 15_000.0))
    assert near > 1.3 * far > 0.0


def test_similarity_prefers_the_true_contour_to_a_flat_one_of_equal_error():
    reference = torch.randn(2, 60, 24)
    flat = torch.zeros_like(reference)
    mask = torch.ones(2, 1, 24)
    contour = 2.0 * reference
    assert float((contour - reference).abs().mean()) == pytest.approx(
        float((flat - reference).abs().mean()), rel=1e-3
    )
    assert float(dissimilarity(reference, reference, mask).max()) == pytest.approx(0.0, abs=1e-4)
    of_contour, of_flat = (dissimilarity(each, reference, mask) for each in (contour, flat))
    assert bool((of_contour < 0.8 * of_flat).all())


def test_what_lies_far_below_the_loudest_band_is_not_compared():
    reference = torch.zeros(1, 40, 24)
    reference[:, :, 12:] = -30.0
    quiet_noise = reference.clone()
    quiet_noise[:, :, 12:] += torch.randn(1, 40, 12)
    assert float(dissimilarity(quiet_noise, reference, torch.ones(1, 1, 24))) < 1e-3


def test_wasserstein_sees_distributions_not_pairs():
    torch.manual_seed(0)
    a = torch.randn(4, 100, 8)
    assert float(sliced_wasserstein(a, a.flip(0).flip(1))) < 1e-6
    assert float(sliced_wasserstein(a, a + 1.0)) > 0.3


def test_discriminators_learn_to_tell_noise_from_tone():
    torch.manual_seed(0)
    discriminators = Discriminators()
    loss = SpectralLoss(LossWeights())
    optimizer = torch.optim.AdamW(discriminators.parameters(), 2e-3)
    limits = torch.full((2,), 4000.0), torch.full((2,), 22_000.0)
    time = torch.arange(SAMPLES // 2) / 48_000
    values = []
    for _ in range(20):
        reference = torch.randn(2, SAMPLES // 2) * 0.1
        estimate = 0.1 * torch.sin(2 * torch.pi * 9000 * time).expand(2, -1) + reference * 0.01
        value = discriminators.loss(discriminators.judge(loss.powers(estimate, reference), *limits))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


def test_four_stages_run_resume_and_export(tmp_path):
    train = corpus()
    trainer = Trainer(TINY, train, train, tmp_path, "cpu")
    before = {name: value.clone() for name, value in trainer.generator.state_dict().items()}
    trainer.take_step(0.9)
    trainer.next_stage()
    frozen = trainer.generator.encoder.enter.weight.clone()
    trainer.take_step(0.9)
    assert torch.equal(trainer.generator.encoder.enter.weight, frozen)
    trainer.next_stage()
    assert trainer.teacher is not None
    trainer.take_step(0.9)
    assert not torch.equal(trainer.generator.encoder.enter.weight, frozen)
    trainer.next_stage()
    for _ in range(2):
        trainer.take_step(0.5)
    assert trainer.steps == [1, 1, 1, 2]
    moved = trainer.generator.state_dict()
    assert sum(not torch.equal(moved[name], value) for name, value in before.items()) > 20
    trainer.save()

    again = Trainer(TINY, train, train, tmp_path, "cpu")
    assert again.resume()
    assert (again.stage, again.steps) == (3, [1, 1, 1, 2])
    for name, value in trainer.generator.state_dict().items():
        assert torch.equal(again.generator.state_dict()[name], value)
    generator, facts = load_generator(tmp_path / CHECKPOINT)
    assert facts["steps"] == {"autoencoder": 1, "flow": 1, "levels": 1, "refinement": 2}
    assert generator.config.latent == 8


@pytest.mark.slow
def test_run_is_bounded_by_minutes_and_logs(tmp_path):
    train = corpus()
    trainer = Trainer(TINY, train, train, tmp_path, "cpu")
    seen = []
    trainer.run(0.15, lambda trainer, terms: seen.append(trainer.stage))
    assert set(seen) == {0, 1, 2, 3}
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert lines[-1]["stage"] == "refinement"
    assert np.isfinite(lines[-1]["valid_total"])
    assert 0.15 <= trainer.elapsed < 0.5


def at_levels(tmp_path, **changes):
    """A run about to take its first step on levels."""
    train = corpus()
    trainer = Trainer(replace(TINY, **changes), train, train, tmp_path, "cpu")
    trainer.stage = schedule.LEVELS
    return trainer


def moved_parts(trainer, fraction):
    """Names of the generator's parts that one step changes, and its terms."""
    before = {name: value.clone() for name, value in trainer.generator.state_dict().items()}
    terms = trainer.take_step(fraction)
    after = trainer.generator.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    return {name.split(".")[0] for name in changed}, set(terms)


def test_levels_are_learnt_by_the_predictor_then_by_the_path_and_then_by_all_else(tmp_path):
    trainer = at_levels(tmp_path, predictor_alone=0.2, path_alone=0.5, weight_decay=0.0)
    trainer.train_corpus.domains = ["music"] * len(trainer.train_corpus.domains)
    assert moved_parts(trainer, 0.1) == ({"band_predictor"}, PREDICTOR_TERMS)
    # The predictor ends with the average of its weights.
    assert moved_parts(trainer, 0.4)[0] == {"level_path", "band_predictor"}
    speech = {
        name: value.clone() for name, value in trainer.generator.band_predictor.state_dict().items()
    }
    with_other = {"level_path", "band_predictor"}
    assert moved_parts(trainer, 0.5) == (with_other, {"path", "path_contours", "other_sound"})
    parts, terms = moved_parts(trainer, 0.7)
    assert parts == {"encoder", "velocity", "decoder"} | with_other
    assert terms == LEVEL_TERMS | {"other_sound"}
    # The part for other sound follows the level path, and nothing else of the predictor does.
    after = trainer.generator.band_predictor.state_dict()
    changed = {name for name, value in speech.items() if not torch.equal(value, after[name])}
    assert "other.enter.weight" in changed
    assert all(name.startswith("other.") for name in changed)


def test_other_sound_alone_changes_nothing_of_what_is_said_of_speech(tmp_path):
    only = {"shares": (0.0, 0.0, 1.0, 0.0), "predictor_alone": 0.1}
    trainer = at_levels(tmp_path, other_sound_alone=True, **only)
    before = {name: value.clone() for name, value in trainer.generator.state_dict().items()}
    for fraction in (0.0, 0.5, 0.99):
        assert set(trainer.take_step(fraction)) == {"other_sound"}
    after = trainer.generator.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    parts = ("enter.weight", "enter.bias", "leave.weight", "leave.bias", "straight.weight")
    assert {f"band_predictor.other.{part}" for part in parts} <= changed
    assert all(name.startswith("band_predictor.other.") for name in changed)


def test_other_sound_learns_from_what_is_no_speech(tmp_path):
    trainer = at_levels(tmp_path)
    bands = trainer.draw_bands()
    said = []
    for is_speech in (0.0, 1.0):
        bands.is_speech[:] = is_speech
        with torch.no_grad():
            terms = stages.predictor_levels(trainer.generator, bands, trainer.levels)
            of_other = stages.other_sound_levels(trainer.generator, bands, trainer.levels)
        assert terms["other_sound"] == of_other["other_sound"]
        said.append((float(terms["predictor"]), float(terms["other_sound"])))
    (of_speech, of_other), (speech, other) = said
    assert of_speech == other == 0.0
    assert speech > 1.0
    assert of_other > 1.0


@pytest.mark.parametrize(
    ("changes", "model_changes"),
    [
        ({"shares": (0.0, 0.0, 0.5, 0.5)}, {}),
        ({"steps": (1, 0, 1, 0)}, {}),
        ({"shares": (0.0, 0.0, 1.0, 0.0)}, {"predictor_other": 0}),
        ({"shares": (0.0, 0.0, 1.0, 0.0)}, {"predictor_width": 0}),
    ],
    ids=["refined too", "steps of another stage", "no part for it", "no predictor"],
)
def test_other_sound_alone_needs_its_part_and_its_stage(changes, model_changes):
    with pytest.raises(ArgumentError, match="With 'other_sound_alone' all of a run is the stage"):
        replace(
            TINY,
            other_sound_alone=True,
            model_changes={**TINY_CHANGES, **model_changes},
            **changes,
        )


def test_a_run_of_other_sound_alone_goes_on_as_one(tmp_path):
    train = corpus()
    alone = replace(TINY, other_sound_alone=True, shares=(0.0, 0.0, 1.0, 0.0))
    Trainer(TINY, train, train, tmp_path, "cpu").save()
    with pytest.raises(RtsrError, match="is a run with other_sound_alone = false; go on with that"):
        Trainer(alone, train, train, tmp_path, "cpu").resume()


def test_other_sound_alone_has_a_model_to_be_taught_beside(tmp_path):
    config = tmp_path / "alone.toml"
    config.write_text("other_sound_alone = true\nshares = [0, 0, 1, 0]\n")
    done = CliRunner().invoke(app, ["train", str(tmp_path), "--config", str(config)])
    assert done.exit_code == 2
    assert "name its checkpoint with --grow-from" in " ".join(done.output.split())


def test_without_a_predictor_the_path_learns_first(tmp_path):
    changes = {**TINY_CHANGES, "predictor_width": 0}
    trainer = at_levels(tmp_path, predictor_alone=0.9, path_alone=0.5, model_changes=changes)
    assert moved_parts(trainer, 0.4)[1] == {"path", "path_contours"}
    assert moved_parts(trainer, 0.6)[1] == LEVEL_TERMS


def test_refinement_leaves_the_predictor_alone(tmp_path):
    trainer = at_levels(tmp_path, weight_decay=0.0, levels_every=0)
    trainer.stage = schedule.REFINEMENT
    parts, _ = moved_parts(trainer, 0.5)
    assert parts == {"level_path", "encoder", "velocity", "decoder"}


def test_each_part_of_the_levels_ends_with_the_lowest_rate(tmp_path):
    trainer = at_levels(tmp_path, predictor_alone=0.5, final_learning_rate=0.1)
    trainer.steps[schedule.LEVELS] = 10
    rates = []
    for fraction in (0.0, 0.4999, 0.5, 1.0):
        trainer.take_step(fraction)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-4, 1e-3, 1e-4], rel=0.01)


def test_the_predictor_ends_with_the_average_of_its_weights(tmp_path):
    trainer = at_levels(tmp_path, predictor_alone=0.5, ema_decay=0.9)
    for _ in range(5):
        trainer.take_step(0.1)
    own = trainer.generator.band_predictor.state_dict()["head.weight"].clone()
    averaged = trainer.average.values["band_predictor.head.weight"].clone()
    assert not torch.equal(own, averaged)
    trainer.take_step(0.6)
    assert torch.equal(trainer.generator.band_predictor.state_dict()["head.weight"], averaged)


def test_what_validates_a_part_is_what_it_learns(tmp_path):
    trainer = at_levels(tmp_path, predictor_alone=0.5)
    trainer.take_step(0.1)
    assert set(trainer.validate()) == {f"valid_{name}" for name in PREDICTOR_TERMS}
    trainer.take_step(0.9)
    assert set(trainer.validate()) == {f"valid_{name}" for name in LEVEL_TERMS}


def test_gains_learn_their_levels_without_the_predictor(tmp_path):
    """Or they would learn to undo its errors: another one changes nothing for them."""
    trainer = at_levels(tmp_path)
    batch = trainer.draw_batch(is_of_levels=True)
    losses = []
    for bias in (0.0, 3.0):
        with torch.no_grad():
            trainer.generator.band_predictor.head.bias[:] = bias
        torch.manual_seed(0)
        losses.append(stages.all_levels(trainer.generator, batch, trainer.levels)["levels"])
    assert torch.equal(*losses)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["predictor_alone", "path_alone"])
def test_parts_of_a_stage_are_shares(name, value):
    with pytest.raises(ArgumentError, match=f"{name}.*it must be 0 to 1"):
        TrainSettings(**{name: value})


def test_a_band_regression_is_not_trained():
    with pytest.raises(ArgumentError, match="fit_band_regression` adds one to a trained model"):
        TrainSettings(model_changes={"predictor_rank": 12})


@pytest.mark.parametrize(
    "change",
    [
        {"predictor_width": -3},
        {"predictor_memory": 0},
        {"level_blocks": 0},
        {"predictor_other": -1},
        {"attention_heads": 0},
        {"encoder_width": -5},
        {"latent": 0},
        {"expansion": 0},
        {"level_window": 1},
        {"kernel": 1},
        {"attention_window": 1},
        {"prior_scale": -0.1},
        {"decoder_noise": math.nan},
    ],
)
def test_sizes_that_cannot_be_are_refused(change):
    with pytest.raises(ArgumentError, match=rf"{next(iter(change))}.* must be [0-2] or more"):
        TrainSettings(model_changes=change)


@pytest.mark.parametrize(
    ("heard", "term", "share"),
    [(0.0, "predictor", 0.5), (500.0, "predictor_heard", 0.8)],
    ids=["levels of bands", "what is heard"],
)
def test_the_predictor_learns(tmp_path, heard, term, share):
    rates = {"warm_up_steps": 1, "learning_rates": (1e-3, 1e-3, 1e-2, 1e-3)}
    trainer = at_levels(tmp_path, predictor_heard=heard, **rates)
    first = float(trainer.take_step(0.0)[term])
    for _ in range(60):
        last = float(trainer.take_step(0.0)[term])
    assert last < share * first


def test_what_is_heard_is_compared_in_full_precision(tmp_path):
    """Rounded to eight bits of mantissa, variances of decibels are noise."""
    said = []
    for precision in ("fp32", "bf16"):
        trainer = at_levels(tmp_path / precision, precision=precision)
        with torch.no_grad():
            losses = trainer.objective.predictor_losses(trainer.generator, trainer.draw_bands())
        said.append(float(losses.terms["predictor_heard"]))
    assert said[1] == pytest.approx(said[0], rel=0.05)


def test_a_model_without_a_level_path_learns_levels_with_its_gains(tmp_path):
    trainer = at_levels(
        tmp_path, model_changes={**TINY_CHANGES, "level_width": 0, "predictor_width": 0}
    )
    parts, terms = moved_parts(trainer, 0.0)
    assert parts >= {"encoder", "velocity", "decoder"}
    assert terms == {"levels", "levels_contours"}


def test_learning_levels_lowers_their_error(tmp_path):
    trainer = at_levels(
        tmp_path,
        warm_up_steps=1,
        learning_rates=(1e-3, 1e-3, 1e-2, 1e-3),
        predictor_alone=0.0,
    )
    first = float(trainer.take_step(0.0)["path"])
    for _ in range(60):
        last = float(trainer.take_step(0.0)["path"])
    assert last < 0.5 * first


@pytest.mark.parametrize(("every", "of_levels"), [(0, []), (1, [0, 1, 2, 3]), (2, [1, 3])])
def test_steps_on_levels_take_turns_with_whole_ones(tmp_path, every, of_levels):
    trainer = refining(tmp_path, levels_every=every)
    turns = []
    for step in range(4):
        trainer.steps[schedule.REFINEMENT] = step
        terms = set(trainer.take_step(0.0))
        turns += [step] if terms == LEVEL_TERMS | {"other_sound"} else []
    assert turns == of_levels


def test_whole_steps_compare_levels_unless_their_weight_is_zero(tmp_path):
    off = {"levels_every": 0}
    assert set(refining(tmp_path, levels=0.1, **off).take_step(0.0)) >= LEVEL_TERMS
    assert not LEVEL_TERMS & set(refining(tmp_path, levels=0.0, **off).take_step(0.0))


def test_a_run_of_other_stages_is_refused_with_both_lists(tmp_path):
    train = corpus()
    trainer = Trainer(TINY, train, train, tmp_path, "cpu")
    trainer.save()
    content = load_checkpoint(tmp_path / CHECKPOINT)
    del content["stages"]
    save_checkpoint(tmp_path / CHECKPOINT, content)
    with pytest.raises(RtsrError, match="autoencoder, flow, refinement, and this version has"):
        trainer.resume()


def test_a_run_for_octaves_is_gone_on_with_as_such(tmp_path):
    train = corpus()
    Trainer(TINY, train, train, tmp_path, "cpu", octave_rate=96000).save()
    with pytest.raises(RtsrError, match="up to 48000 Hz, not 24000 Hz; go on with its --stage"):
        Trainer(TINY, train, train, tmp_path, "cpu").resume()
    assert Trainer(TINY, train, train, tmp_path, "cpu", octave_rate=96000).resume()


def test_another_configuration_cannot_resume_a_run(tmp_path):
    train = corpus()
    Trainer(TINY, train, train, tmp_path, "cpu").save()
    other = replace(TINY, model_changes={**TINY_CHANGES, "latent": 16})
    with pytest.raises(RtsrError, match="another model configuration"):
        Trainer(other, train, train, tmp_path, "cpu").resume()


def test_counted_steps_end_a_run_and_leave_stages_out(tmp_path):
    train = corpus()
    trainer = Trainer(replace(TINY, steps=(2, 1, 0, 3)), train, train, tmp_path / "all", "cpu")
    seen = []
    trainer.run(math.inf, lambda trainer, terms: seen.append(trainer.stage))
    # Once more for the last validation.
    assert seen == [0, 0, 1, 3, 3, 3, 3]
    assert trainer.steps == [2, 1, 0, 3]
    first = Trainer(replace(TINY, steps=(2, 0, 0, 0)), train, train, tmp_path / "first", "cpu")
    first.run(math.inf)
    assert (first.stage, first.steps, first.teacher) == (0, [2, 0, 0, 0], None)


def test_minutes_still_bound_a_run_of_counted_steps(tmp_path):
    train = corpus()
    trainer = Trainer(replace(TINY, steps=(500, 500, 500, 500)), train, train, tmp_path, "cpu")
    trainer.run(0.005)
    assert 0 < sum(trainer.steps) < 100


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [1, 3, 5, 7], ids=schedule.STAGES)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, stopped):
    train = corpus()
    settings = replace(TINY, steps=(2, 2, 2, 2))
    whole = Trainer(settings, train, train, tmp_path / "whole", "cpu")
    whole.run(math.inf)

    def stop(trainer, terms):
        if sum(trainer.steps) == stopped:
            raise KeyboardInterrupt

    broken = Trainer(settings, train, train, tmp_path / "broken", "cpu")
    with pytest.raises(KeyboardInterrupt):
        broken.run(math.inf, stop)
    broken.save()
    again = Trainer(settings, train, train, tmp_path / "broken", "cpu")
    assert again.resume()
    again.run(math.inf)
    expected = whole.generator.state_dict()
    for name, value in again.generator.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("within", "number", "ends"),
    [
        ("draw_batch", signal.SIGINT, KeyboardInterrupt),
        ("_discriminator_step", signal.SIGTERM, SystemExit),
    ],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_run_that_is_stopped_within_a_step_goes_on_as_if_it_had_not_been(
    tmp_path, monkeypatch, within, number, ends
):
    settings = replace(TINY, precision="fp32", steps=(0, 0, 0, 3), levels_every=0)
    whole = Trainer(settings, corpus(), corpus(), tmp_path / "whole", "cpu")
    whole.run(math.inf)
    stopped = Trainer(settings, corpus(), corpus(), tmp_path / "stopped", "cpu")
    real = getattr(stopped, within)

    def told_to_stop(*arguments):
        if sum(stopped.steps) == 1:
            signal.raise_signal(number)
        return real(*arguments)

    monkeypatch.setattr(stopped, within, told_to_stop)
    handlers = signal.getsignal(signal.SIGINT), signal.signal(signal.SIGTERM, _stop)
    try:
        with pytest.raises(ends):
            run_until_stopped(stopped, 60.0)
        assert signal.getsignal(signal.SIGINT) is handlers[0]
        assert signal.getsignal(signal.SIGTERM) is _stop
    finally:
        signal.signal(signal.SIGTERM, handlers[1])
    again = Trainer(settings, corpus(), corpus(), tmp_path / "stopped", "cpu")
    assert again.resume()
    assert sum(again.steps) == 2
    again.run(math.inf)
    expected = whole.generator.state_dict()
    for name, value in again.generator.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_the_second_ctrl_c_ends_at_once_and_saves_nothing_half_done(tmp_path, monkeypatch):
    stopped = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu")
    stopped.save()
    real = stopped.draw_batch

    def told_to_stop(*arguments):
        batch = real(*arguments)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return batch

    monkeypatch.setattr(stopped, "draw_batch", told_to_stop)
    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(stopped, 60.0)
    again = Trainer(TINY, corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    assert again.rng.bit_generator.state == np.random.default_rng(TINY.seed).bit_generator.state


def test_the_mean_of_two_states_of_a_run(tmp_path):
    train = corpus()
    trainer = Trainer(replace(TINY, steps=(3, 0, 0, 0)), train, train, tmp_path, "cpu")
    early, late = tmp_path / "early.pt", tmp_path / CHECKPOINT

    def keep(trainer, terms):
        if sum(trainer.steps) == 1:
            trainer.save()
            late.replace(early)

    trainer.run(math.inf, keep)
    weights = [load_generator(path)[0].state_dict() for path in (early, late)]
    mean, facts = load_generator(late, [early])
    for name, value in mean.state_dict().items():
        torch.testing.assert_close(value, (weights[0][name] + weights[1][name]) / 2)
    assert facts["steps"]["autoencoder"] == 3
    assert [one["steps"]["autoencoder"] for one in facts["mean_with"]] == [1]
    other = Trainer(replace(TINY, model_changes={}), train, train, tmp_path / "other", "cpu")
    other.save()
    with pytest.raises(RtsrError, match="is of another model than"):
        load_generator(late, [tmp_path / "other" / CHECKPOINT])


def test_a_checkpoint_from_before_a_setting_existed_resumes(tmp_path):
    train = corpus()
    trainer = Trainer(TINY, train, train, tmp_path, "cpu")
    trainer.save()
    content = load_checkpoint(tmp_path / CHECKPOINT)
    for name in ("f_prior_token", "decoder_hears_carriers"):
        del content["model_config"][name]
    del content["torch_rng"]
    save_checkpoint(tmp_path / CHECKPOINT, content)
    assert Trainer(TINY, train, train, tmp_path, "cpu").resume()
    assert load_generator(tmp_path / CHECKPOINT)[0].config == trainer.generator.config


def refining(tmp_path, **weights):
    """A run about to take its first step of refinement."""
    train = corpus()
    settings = replace(TINY, **{"distillation_every": 1, "levels_every": 0, **weights})
    trainer = Trainer(settings, train, train, tmp_path, "cpu")
    trainer.stage, trainer.teacher = schedule.REFINEMENT, frozen(trainer.generator)
    return trainer


def forbid(monkeypatch, owner, name):
    monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail(f"{name} is computed"))


@pytest.mark.parametrize(
    ("weight", "term"),
    [
        ("adversarial", "adversarial"),
        ("feature_matching", "matching"),
        ("distillation", "distillation"),
        ("distribution", "distribution"),
    ],
)
def test_a_term_without_weight_is_left_out_and_the_others_stay(tmp_path, monkeypatch, weight, term):
    everything = set(refining(tmp_path).take_step(0.0))
    trainer = refining(tmp_path, **{weight: 0.0})
    teacher = trainer.teacher
    if term == "distillation":
        real = stages.integrate
        monkeypatch.setattr(
            stages,
            "integrate",
            lambda generator, *rest, **steps: (
                pytest.fail("the teacher integrates")
                if generator is teacher
                else real(generator, *rest, **steps)
            ),
        )
    elif term == "distribution":
        forbid(monkeypatch, teacher, "encode_reference")
    assert set(trainer.take_step(0.0)) == everything - {term}


def test_without_weight_neither_teacher_nor_discriminators_are_asked(tmp_path, monkeypatch):
    off = dict.fromkeys(("adversarial", "feature_matching", "distillation", "distribution"), 0.0)
    trainer = refining(tmp_path, **off)
    trainer.teacher = None
    forbid(monkeypatch, trainer.discriminators, "judge")
    terms = trainer.take_step(0.0)
    assert set(terms) == {*TERMS, *LEVEL_TERMS}


def test_weights_of_zero_are_the_same_as_losses_that_have_not_begun(tmp_path):
    """The gradient holds nothing of them."""
    never = refining(tmp_path, adversarial_start=2.0, distillation=0.0, distribution=0.0)
    zero = refining(
        tmp_path, adversarial=0.0, feature_matching=0.0, distillation=0.0, distribution=0.0
    )
    weights = []
    for trainer in (never, zero):
        torch.manual_seed(5)
        trainer.take_step(0.5)
        weights.append(trainer.generator.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_discriminators_compute_only_the_terms_that_are_wanted():
    torch.manual_seed(0)
    discriminators = Discriminators()
    loss = SpectralLoss(LossWeights())
    spectra = loss.powers(*(torch.randn(1, SAMPLES // 4) for _ in range(2)))
    limits = torch.full((1,), 4000.0), torch.full((1,), 22_000.0)
    judgements = discriminators.judge(spectra, *limits)
    both = discriminators.generator_terms(judgements)
    for wanted in ("adversarial", "matching"):
        alone = discriminators.generator_terms(judgements, wanted=(wanted,))
        assert list(alone) == [wanted]
        assert torch.equal(alone[wanted], both[wanted])


def test_each_side_learns_from_its_own_loss_alone(tmp_path):
    """Both losses come of one pass, and the gradient of either holds nothing of the other."""
    gradients = {}
    for weights in ((0.3, 1.0), (30.0, 100.0)):
        trainer = refining(
            tmp_path, precision="fp32", adversarial=weights[0], feature_matching=weights[1]
        )
        torch.manual_seed(5)
        trainer.take_step(1.0)
        parts = trainer.generator.velocity, trainer.discriminators
        gradients[weights] = [
            torch.cat([parameter.grad.flatten() for parameter in part.parameters()])
            for part in parts
        ]
    light, heavy = gradients.values()
    # Clipping leaves the direction.
    assert float(torch.cosine_similarity(light[0], heavy[0], dim=0)) < 0.99
    assert torch.equal(light[1], heavy[1])


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_latent_noise_can_be_set(tmp_path, level):
    train = corpus()
    trainer = Trainer(TINY, train, train, tmp_path, "cpu")
    batch = trainer.draw_batch()
    with torch.no_grad():
        first, again = (stages.autoencode(trainer.generator, batch, level) for _ in range(2))
        random = [stages.autoencode(trainer.generator, batch) for _ in range(2)]
        silent = stages.autoencode(trainer.generator, batch, 0.0)
    assert torch.equal(first.estimate, again.estimate)
    assert torch.equal(first.estimate, silent.estimate) == (level == 0.0)
    assert not torch.equal(random[0].estimate, random[1].estimate)


@pytest.mark.slow
def test_learning_lowers_the_loss(tmp_path):
    train = corpus()
    settings = replace(TINY, adversarial_start=1.1, levels_every=0)
    trainer = Trainer(settings, train, train, tmp_path, "cpu")
    trainer.stage = schedule.REFINEMENT
    trainer.teacher = frozen(trainer.generator)
    first = float(trainer.take_step(0.0)["smooth"])
    for _ in range(80):
        last = float(trainer.take_step(0.0)["smooth"])
    assert last < 0.8 * first


def test_damaged_and_foreign_checkpoints_are_named(tmp_path):
    damaged = tmp_path / "last.pt"
    for content in (b"not a checkpoint", b"RIFF\x24\0\0\0WAVEfmt ", b"\x80\x02."):
        damaged.write_bytes(content)
        with pytest.raises(RtsrError, match="damaged or is no checkpoint"):
            load_checkpoint(damaged)
    save_checkpoint(damaged, {"model_config": {"name": "small"}})
    with pytest.raises(RtsrError, match="not a checkpoint of this version"):
        load_generator(damaged)
    torch.save({"anything": 1}, damaged)
    with pytest.raises(RtsrError, match="not a checkpoint of this version"):
        load_checkpoint(damaged)
    with pytest.raises(RtsrError, match="Cannot read the checkpoint"):
        load_checkpoint(tmp_path / "absent.pt")


def test_a_checkpoint_that_cannot_be_written_keeps_the_last_one(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"value": 1})
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(RtsrError, match="Cannot write the checkpoint"):
        save_checkpoint(path, {"value": 2})
    monkeypatch.undo()
    assert load_checkpoint(path)["value"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch = 'many'", "'batch' is 'many'; it must be a int"),
        ("colour = 1", "unknown setting 'colour'"),
        ("[losses]\nmell = 1", "unknown setting 'losses.mell'"),
        ("batch = = 2", "not valid TOML"),
        ("model = 'huge'", "choose one of: small, base"),
        ("precision = 'fp8'", "accepted: auto, bf16, tf32, fp32"),
        ("batch = true", "'batch' is True; it must be a int"),
        ("batch = [1]", r"'batch' is \[1\]; it must be a int"),
        ("losses = 3", "'losses' is 3; it must be a table"),
        ("steps = [1, 2]", "it must be four whole numbers, one per stage"),
        ("steps = [1.5, 1, 1, 1]", "it must be four whole numbers, one per stage"),
        ("steps = [0, 0, 0, 0]", "not all 0"),
        ("steps = 3", "it must be four whole numbers, one per stage"),
        ("shares = [1, -1, 1, 1]", "none below 0"),
        ("[domains]\nspeech = -1", "none below 0 and not all 0"),
        ("batch = -5", "'batch' is -5; it must be 1 or more"),
        ("frames = 19", "'frames' is 19; it must be 20 or more"),
        ("level_frames = 7", "'level_frames' is 7; it must be 8 or more"),
        ("seed = -1", f"'seed' is -1; it must be 0 to {2**63 - 1}"),
        ("seed = 99999999999999999999", "'seed' is 99999999999999999999; it must be 0 to"),
        ("ema_decay = 1.5", "'ema_decay' is 1.5; it must be 0 to 0.999999"),
        ("gradient_clip = 0", "'gradient_clip' is 0; it must be 1e-06 or more"),
        ("weight_decay = -1", "'weight_decay' is -1; it must be 0 or more"),
        ("weight_decay = inf", "'weight_decay' is inf; it must be 0 or more, and finite"),
        ("final_learning_rate = -5", "'final_learning_rate' is -5; it must be 0 to 1"),
        ("levels_every = -3", "'levels_every' is -3; it must be 0 or more"),
        ("contours = nan", "'contours' is nan; it must be 0 or more"),
        ("shares = [inf, 1, 1, 1]", "it must be four finite numbers, one per stage"),
        ("learning_rates = [1, 1, nan, 1]", "it must be four finite numbers, one per stage"),
        ("[losses]\nmel = -1", "'losses.mel' is -1; it must be 0 or more"),
        ("[domains]\nspeech = 'a'", "it must give shares, none below 0"),
        ("[domains]\nspeech = nan", "it must give shares, none below 0"),
        ("[degrade]\nlowest_hz = -5", "'degrade.lowest_hz' is -5; it must be 20 to 24000"),
        ("[degrade]\nhighest_hz = 900", "it must be at most 'degrade.highest_hz', which is 900"),
        ("[degrade]\ncutoff_jitter = 2", "'degrade.cutoff_jitter' is 2; it must be 0 to 0.25"),
        ("[degrade]\ncodec_share = 7", "'degrade.codec_share' is 7; it must be 0 to 1"),
        ("[degrade]\nspeed_share = nan", "'degrade.speed_share' is nan; it must be 0 to 1"),
        ("[degrade]\nhighest_speed = 0.9", "are 0.85 to 0.9; they must hold 1"),
        ("[degrade]\nlowest_speed = 0.0", "are 0 to 1.5; they must hold 1"),
        ("domains = 3", "'domains' is 3; it must be a table"),
        ("adversarial = -1", "'adversarial' is -1; it must be 0"),
        ("[model_changes]\nwidth = 3", "unknown setting 'model_changes.width'"),
        ("[model_changes]\nlatent = 'wide'", "'model_changes.latent' is 'wide'"),
        ("[model_changes]\nprior = 'x'", "'model_changes' cannot be: prior is 'x'"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "train.toml"
    path.write_text(text)
    kind = RtsrError if message == "not valid TOML" else ArgumentError
    with pytest.raises(kind, match=message):
        load_settings(path)


def test_every_number_has_a_range_and_the_shortest_clips_are_long_enough(tmp_path):
    numbers = {name for name, value in vars(TINY).items() if type(value) in (int, float)}
    assert numbers <= set(RANGES)
    shortest = {name: RANGES[name][0] for name in ("frames", "level_frames")}
    settings = replace(TINY, steps=(1, 1, 4, 2), **shortest)
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    trainer.run(math.inf)
    assert trainer.steps == [1, 1, 4, 2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_settings_survive_a_round_trip(tmp_path, encoding):
    path = tmp_path / "train.toml"
    path.write_text(
        "model = 'base'\nbatch = 3\nsteps = [1, 2, 0, 3]\n"
        "[losses]\nmel = 2\n[degrade]\nmix_share = 0.5\n",
        encoding=encoding,
    )
    settings = load_settings(path)
    assert (settings.model, settings.batch, settings.losses.mel) == ("base", 3, 2.0)
    assert settings.steps == (1, 2, 0, 3)
    assert TrainSettings.from_dict(settings.to_dict()) == settings


def test_an_absent_device_is_an_error_that_names_what_is_present():
    if torch.cuda.is_available():
        pytest.skip("every device is present")
    with pytest.raises(RtsrError, match="present: cpu"):
        choose_device("cuda")

"""Growing a wider model: it begins where the narrow one is, and then learns what that could not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from small_run import SMALLEST_CHANGES, TINY, corpus  # noqa: E402

from rtsr.errors import ArgumentError, RtsrError  # noqa: E402
from rtsr.model.config import configuration  # noqa: E402
from rtsr.model.generator import seeded  # noqa: E402
from rtsr.train.checkpoint import load_generator  # noqa: E402
from rtsr.train.grow import grow  # noqa: E402
from rtsr.train.schedule import REFINEMENT  # noqa: E402
from rtsr.train.trainer import CHECKPOINT, Trainer  # noqa: E402

WIDE = {
    **SMALLEST_CHANGES,
    "encoder_width": 24,
    "encoder_blocks": 2,
    "flow_width": 24,
    "flow_middle": 16,
    "attention_heads": 4,
    "attention_window": 12,
    "decoder_width": 36,
    "decoder_blocks": 3,
}
FRAMES = 40


@pytest.fixture(scope="module")
def narrow(make_generator):
    return make_generator(**SMALLEST_CHANGES)


@torch.no_grad()
def played(generator):
    chance = torch.Generator().manual_seed(7)
    cutoff = torch.full((2, 1, FRAMES), 4000.0)
    out, _ = generator.step(
        0.1 * torch.randn(2, 1, 480 * FRAMES, generator=chance),
        torch.randn(2, generator.config.noise_channels, FRAMES, generator=chance),
        cutoff,
        5.0 * cutoff,
        generator.initial_state(2),
    )
    return out


def test_a_grown_model_computes_what_the_narrow_one_computed(narrow):
    wide = configuration("small", **WIDE)
    grown = grow(narrow.state_dict(), narrow.config, wide, seed=1).eval()
    before, after = played(narrow), played(grown)
    # What is left comes from ages that only the wide model can attend to.
    assert (after - before).std() < 0.01 * before.std()


def test_without_new_ages_it_is_the_same_to_rounding(narrow):
    wide = configuration(
        "small", **{**WIDE, "attention_window": SMALLEST_CHANGES["attention_window"]}
    )
    grown = grow(narrow.state_dict(), narrow.config, wide, seed=1).eval()
    before, after = played(narrow), played(grown)
    assert (after - before).abs().max() < 1e-3 * before.abs().max()


def test_repeated_channels_do_not_read_alike(narrow):
    grown = grow(narrow.state_dict(), narrow.config, configuration("small", **WIDE), seed=1)
    first, second = grown.encoder.leave.weight[:, :12], grown.encoder.leave.weight[:, 12:]
    assert (first - second).abs().mean() > 0.1 * first.abs().mean()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder_width": 20}, "choose a multiple of 12"),
        ({"decoder_blocks": 0}, "cannot shrink: decoder_blocks is 1"),
        ({"attention_heads": 8}, "width of an attention head"),
        ({"latent": 8}, "Growing keeps latent: it is 6"),
        ({"flow_blocks": 2}, "Growing keeps flow_blocks"),
        ({"level_width": 16}, "Growing keeps level_width: it is 8"),
        ({"level_memory": 8}, "Growing keeps level_memory"),
        ({"predictor_other": 16}, "Growing keeps predictor_other"),
        ({"level_width": 0}, "Growing keeps level_width"),
    ],
)
def test_what_cannot_be_grown_is_refused(narrow, change, says):
    wide = configuration("small", **{**WIDE, **change})
    with pytest.raises(ArgumentError, match=says):
        grow(narrow.state_dict(), narrow.config, wide)


@torch.no_grad()
def test_free_bins_can_be_left_out_and_the_carriers_begin_louder():
    # What predicts levels would take the lift back.
    alone = {"level_width": 0, "predictor_width": 0}
    free = seeded(
        configuration("small", **{**SMALLEST_CHANGES, **alone}, decoder_free_bins=True), 3
    ).eval()
    window = {"attention_window": SMALLEST_CHANGES["attention_window"]}
    rest = configuration("small", **{**WIDE, **window, **alone})
    free.decoder.head.bias[:301] = 0.0
    everything = played(free)
    free.decoder.head.bias[:301] = -60.0
    carried = played(free)
    assert carried.std() < 0.5 * everything.std()
    after = played(grow(free.state_dict(), free.config, rest, seed=1).eval())
    assert (after - math.exp(0.7) * carried).abs().max() < 1e-3 * carried.abs().max()


def test_a_band_predictor_can_be_left_out(narrow):
    without = configuration("small", **{**SMALLEST_CHANGES, "predictor_width": 0})
    grown = grow(narrow.state_dict(), narrow.config, without, seed=5)
    assert grown.band_predictor is None
    assert torch.equal(grown.state_dict()["level_path.head.bias"], narrow.level_path.head.bias)


@torch.no_grad()
def test_levels_of_other_sound_can_be_added_and_those_of_speech_stay(narrow):
    without = configuration("small", **{**SMALLEST_CHANGES, "predictor_other": 0})
    weights = {
        name: value
        for name, value in narrow.state_dict().items()
        if not name.startswith("band_predictor.other.")
    }
    grown = grow(weights, without, narrow.config, seed=5)
    power, cutoff = torch.rand(1, 20, 64), torch.full((1, 20, 1), 4000.0)
    before, after = (one.predict_from_bands(power, cutoff) for one in (narrow, grown))
    assert torch.equal(before.speech, after.speech)
    assert torch.equal(before.logit, after.logit)
    assert not torch.equal(before.other, after.other)


def test_a_level_path_can_be_added_and_all_else_stays(narrow):
    without = configuration("small", **{**SMALLEST_CHANGES, "level_width": 0, "predictor_other": 0})
    weights = {
        name: value
        for name, value in narrow.state_dict().items()
        if not name.startswith(("level_path", "band_predictor.other"))
    }
    grown = grow(weights, without, narrow.config, seed=5)
    assert grown.level_path is not None
    for name, value in weights.items():
        assert torch.equal(grown.state_dict()[name], value)


def test_free_bins_cannot_be_added(narrow):
    wide = configuration("small", **WIDE, decoder_free_bins=True)
    with pytest.raises(ArgumentError, match="Growing adds no free bins"):
        grow(narrow.state_dict(), narrow.config, wide)


def test_base_can_be_grown_from_small():
    small = configuration("small")
    grown = grow(seeded(small, 0).state_dict(), small, configuration("base"))
    assert grown.config == configuration("base")


def test_a_run_without_a_flow_cannot_be_grown(tmp_path):
    settings = replace(TINY, model_changes=SMALLEST_CHANGES)
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    trainer.save()
    with pytest.raises(RtsrError, match="has not reached its refinement"):
        trainer.grow_from(tmp_path / CHECKPOINT)


@pytest.mark.parametrize("missing", ["teacher", "facts", "ema"])
def test_a_foreign_checkpoint_is_refused(tmp_path, missing):
    settings = replace(TINY, model_changes=SMALLEST_CHANGES)
    trainer = Trainer(settings, corpus(), corpus(), tmp_path, "cpu")
    trainer.stage = REFINEMENT
    trainer.save()
    content = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del content[missing]
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(RtsrError, match="is not a checkpoint of this version"):
        trainer.grow_from(tmp_path / CHECKPOINT)


def test_weights_that_are_not_all_there_are_refused(tmp_path, narrow):
    weights = narrow.state_dict()
    del weights["decoder.head.bias"]
    with pytest.raises(RuntimeError, match=r"decoder\.head\.bias"):
        grow(weights, narrow.config, narrow.config)


def test_free_bins_that_are_left_out_are_remembered(tmp_path):
    free = {**SMALLEST_CHANGES, "decoder_free_bins": True}
    before = Trainer(replace(TINY, model_changes=free), corpus(), corpus(), tmp_path, "cpu")
    before.stage = REFINEMENT
    before.save()
    after = Trainer(
        replace(TINY, model_changes=SMALLEST_CHANGES), corpus(), corpus(), tmp_path, "cpu"
    )
    after.grow_from(tmp_path / CHECKPOINT)
    assert after.facts()["grown_from"]["free_bins_left_out"]
    before.grow_from(tmp_path / CHECKPOINT)
    assert "free_bins_left_out" not in before.facts()["grown_from"]


@pytest.mark.slow
def test_a_grown_run_refines_and_remembers_where_it_came_from(tmp_path):
    settings = replace(TINY, model_changes=SMALLEST_CHANGES, steps=(1, 1, 1, 1))
    Trainer(settings, corpus(), corpus(), tmp_path / "narrow", "cpu").run(math.inf)
    wider = replace(settings, model_changes=WIDE, distillation_every=1)
    trainer = Trainer(wider, corpus(), corpus(), tmp_path / "wide", "cpu")
    trainer.grow_from(tmp_path / "narrow" / CHECKPOINT)
    trainer.run(math.inf)
    assert trainer.steps == [0, 0, 1, 1]

    generator, facts = load_generator(tmp_path / "wide" / CHECKPOINT)
    assert generator.config.encoder_width == 24
    assert facts["grown_from"]["steps"]["autoencoder"] > 0
    again = Trainer(wider, corpus(), corpus(), tmp_path / "wide", "cpu")
    assert again.resume()
    assert again.facts()["grown_from"] == facts["grown_from"]

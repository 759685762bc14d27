"""Training: simulation, losses, adversaries, stages, checkpoints, and a whole short run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rtsr.errors import RtsrError  # noqa: E402
from rtsr.train.checkpoint import load_checkpoint, load_generator, save_checkpoint  # noqa: E402
from rtsr.train.data import Corpus  # noqa: E402
from rtsr.train.degrade import DegradeConfig, degrade, draw_cutoffs  # noqa: E402
from rtsr.train.discriminators import Discriminators  # noqa: E402
from rtsr.train.losses import LossWeights, SpectralLoss, sliced_wasserstein  # noqa: E402
from rtsr.train.settings import TrainSettings, load_settings  # noqa: E402
from rtsr.train.similarity import dissimilarity  # noqa: E402
from rtsr.train.trainer import CHECKPOINT, LOG, Trainer, choose_device  # noqa: E402

SAMPLES = 48_000
PLAIN = DegradeConfig(
    floor_share=0.0, equalizer_share=0.0, mix_share=0.0, analog_share=0.0, companding_share=0.0
)
TINY_CHANGES = {
    "encoder_width": 24,
    "flow_width": 16,
    "flow_middle": 8,
    "attention_heads": 2,
    "decoder_width": 24,
    "latent": 8,
}
TINY = TrainSettings(
    batch=2, frames=48, model_changes=TINY_CHANGES, warm_up_steps=2, adversarial_start=0.0
)


def corpus(clips: int = 4, seconds: float = 1.5) -> Corpus:
    random = np.random.default_rng(0)
    length = int(seconds * SAMPLES)
    samples = (random.standard_normal(clips * length) * 3000).astype(np.int16)
    return Corpus(
        samples=samples,
        starts=np.arange(clips) * length,
        lengths=np.full(clips, length),
        cutoffs_hz=np.full(clips, 22_000.0, np.float32),
        domains=["unknown"],
        domain_codes=np.zeros(clips, np.int64),
        names=[f"{index}.wav" for index in range(clips)],
        groups=["unknown"] * clips,
    )


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
    for narrow, truth, f_prior in zip(
        data.narrow[:, 0], data.truth[:, 0], data.f_prior.tolist(), strict=True
    ):
        ratio = band_power(narrow, 100, 0.7 * f_prior) / band_power(truth, 100, 0.7 * f_prior)
        assert abs(10 * np.log10(float(ratio))) < 0.3


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


def spectral(estimate, truth, f_prior=4000.0, f_target=22_000.0):
    loss = SpectralLoss(LossWeights())
    limits = torch.full((len(truth),), f_prior), torch.full((len(truth),), f_target)
    return loss(loss.powers(estimate, truth), *limits)


def test_losses_are_zero_for_equal_audio_and_blind_below_the_cutoff():
    truth = torch.randn(2, SAMPLES) * 0.1
    terms = spectral(truth.clone(), truth)
    assert all(abs(float(value)) < 1e-6 for value in terms.values())
    time = torch.arange(SAMPLES) / 48_000
    hum = 0.1 * torch.sin(2 * torch.pi * 400.0 * time)
    assert float(spectral(truth + hum, truth)["total"]) < 0.02


def test_a_gain_is_measured_as_its_logarithm():
    truth = torch.randn(2, SAMPLES) * 0.1
    terms = spectral(truth * 2.0, truth)
    for name in ("bins", "mel", "smooth", "level"):
        assert float(terms[name]) == pytest.approx(2 * np.log(2.0), abs=0.02)


def test_near_the_cutoff_an_error_counts_more_than_far_above_it():
    truth = torch.randn(2, SAMPLES) * 0.1
    spectrum = torch.fft.rfft(truth)
    frequency = torch.fft.rfftfreq(SAMPLES, 1 / 48_000)

    def louder(low):
        gain = 1.0 + ((frequency > low) & (frequency < low + 3000.0)).float()
        return torch.fft.irfft(spectrum * gain, SAMPLES)

    near, far = (float(spectral(louder(low), truth)["bins"]) for low in (4500.0, 15_000.0))
    assert near > 1.3 * far > 0.0


def test_similarity_prefers_the_true_contour_to_a_flat_one_of_equal_error():
    truth = torch.randn(2, 60, 24)
    flat = torch.zeros_like(truth)
    mask = torch.ones(2, 1, 24)
    contour = 2.0 * truth
    assert float((contour - truth).abs().mean()) == pytest.approx(
        float((flat - truth).abs().mean()), rel=1e-3
    )
    assert float(dissimilarity(truth, truth, mask)) == pytest.approx(0.0, abs=1e-4)
    assert float(dissimilarity(contour, truth, mask)) < 0.8 * float(
        dissimilarity(flat, truth, mask)
    )


def test_what_lies_far_below_the_loudest_band_is_not_compared():
    truth = torch.zeros(1, 40, 24)
    truth[:, :, 12:] = -30.0
    quiet_noise = truth.clone()
    quiet_noise[:, :, 12:] += torch.randn(1, 40, 12)
    assert float(dissimilarity(quiet_noise, truth, torch.ones(1, 1, 24))) < 1e-3


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
        truth = torch.randn(2, SAMPLES // 2) * 0.1
        estimate = 0.1 * torch.sin(2 * torch.pi * 9000 * time).expand(2, -1) + truth * 0.01
        value = discriminators.loss(loss.powers(estimate, truth), *limits)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


def test_three_stages_run_resume_and_export(tmp_path):
    train = corpus()
    trainer = Trainer(TINY, train, train, tmp_path, "cpu")
    before = {name: value.clone() for name, value in trainer.generator.state_dict().items()}
    trainer._step(0.9)
    trainer._next_stage()
    frozen = trainer.generator.encoder.enter.weight.clone()
    trainer._step(0.9)
    assert torch.equal(trainer.generator.encoder.enter.weight, frozen)
    trainer._next_stage()
    for _ in range(2):
        trainer._step(0.5)
    assert trainer.steps == [1, 1, 2]
    assert trainer.teacher is not None
    moved = trainer.generator.state_dict()
    assert sum(not torch.equal(moved[name], value) for name, value in before.items()) > 20
    trainer.save()

    again = Trainer(TINY, train, train, tmp_path, "cpu")
    assert again.resume()
    assert (again.stage, again.steps) == (2, [1, 1, 2])
    for name, value in trainer.generator.state_dict().items():
        assert torch.equal(again.generator.state_dict()[name], value)
    generator, facts = load_generator(tmp_path / CHECKPOINT)
    assert facts["steps"] == {"autoencoder": 1, "flow": 1, "refinement": 2}
    assert generator.config.latent == 8


def test_run_is_bounded_by_minutes_and_logs(tmp_path):
    train = corpus()
    trainer = Trainer(TINY, train, train, tmp_path, "cpu")
    seen = []
    trainer.run(0.15, lambda trainer, terms: seen.append(trainer.stage))
    assert set(seen) == {0, 1, 2}
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert lines[-1]["stage"] == "refinement"
    assert np.isfinite(lines[-1]["valid_total"])
    assert 0.15 <= trainer.elapsed < 0.5


def test_another_configuration_cannot_resume_a_run(tmp_path):
    train = corpus()
    Trainer(TINY, train, train, tmp_path, "cpu").save()
    other = replace(TINY, model_changes={**TINY_CHANGES, "latent": 16})
    with pytest.raises(RtsrError, match="another model configuration"):
        Trainer(other, train, train, tmp_path, "cpu").resume()


def test_learning_lowers_the_loss(tmp_path):
    train = corpus()
    trainer = Trainer(replace(TINY, adversarial_start=1.1), train, train, tmp_path, "cpu")
    trainer.stage = 2
    trainer.teacher = trainer._freeze(trainer.generator)
    first = float(trainer._step(0.0)["smooth"])
    for _ in range(80):
        last = float(trainer._step(0.0)["smooth"])
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
        ("precision = 'fp8'", "accepted: auto, bf16, fp32"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "train.toml"
    path.write_text(text)
    with pytest.raises(RtsrError, match=message):
        load_settings(path)


def test_settings_survive_a_round_trip(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text("model = 'base'\nbatch = 3\n[losses]\nmel = 2\n[degrade]\nmix_share = 0.5\n")
    settings = load_settings(path)
    assert (settings.model, settings.batch, settings.losses.mel) == ("base", 3, 2.0)
    assert TrainSettings.from_dict(settings.to_dict()) == settings


def test_an_absent_device_is_an_error_that_names_what_is_present():
    if torch.cuda.is_available():
        pytest.skip("every device is present")
    with pytest.raises(RtsrError, match="present: cpu"):
        choose_device("cuda")

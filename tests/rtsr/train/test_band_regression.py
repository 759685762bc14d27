"""Fitting the band regression: it finds what is linear, and respects a recording's end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

from rtsr.errors import ArgumentError, RtsrError  # noqa: E402
from rtsr.model import CONFIGURATIONS  # noqa: E402
from rtsr.model.analysis import below  # noqa: E402
from rtsr.model.band_regression import BandRegression  # noqa: E402
from rtsr.model.bands import band_centres  # noqa: E402
from rtsr.model.generator import seeded  # noqa: E402
from rtsr.train import band_regression, fit_band_regression  # noqa: E402
from rtsr.train.band_domain import BandDomain, Bands  # noqa: E402
from rtsr.train.band_regression import (  # noqa: E402
    LEAST_CUTOFF_HZ,
    LIFT_DB,
    NormalEquations,
    add_batch,
    draw_evenly,
)
from rtsr.train.checkpoint import load_checkpoint, load_generator, save_checkpoint  # noqa: E402
from rtsr.train.corpus import Crops  # noqa: E402
from rtsr.train.degrade import DegradeConfig  # noqa: E402
from rtsr.train.grow import grow  # noqa: E402
from rtsr.train.levels import LevelLoss  # noqa: E402

CONFIG = replace(CONFIGURATIONS["small"], predictor_rank=4)
BANDS = CONFIG.gain_bands
CENTRES = band_centres(BANDS)
LIFT = LIFT_DB / 10.0 * np.log(10.0)


def linear_batch(cutoff_hz: float, f_end: float, seed: int, beyond: float = 0.0) -> Bands:
    """Return clips whose upper bands follow two of the input's; `beyond` is added above the end."""
    chance = torch.Generator().manual_seed(seed)
    clips, frames = 8, 120
    slow = torch.randn(clips, frames, 2, generator=chance)
    energy = -9.0 + 0.5 * torch.randn(clips, frames, BANDS, generator=chance)
    energy[:, :, 4], energy[:, :, 12] = -8.0 + slow[:, :, 0], -8.0 + slow[:, :, 1]
    f_prior = torch.full((clips,), cutoff_hz)
    is_input = below(f_prior[:, None, None], CENTRES)
    power = energy.exp() * is_input
    loudness = power.mean(dim=2, keepdim=True).log()
    slope = torch.linspace(0.0, 1.0, BANDS)
    wanted = loudness - 3.0 - 2.0 * slope + 0.6 * (energy[:, :, 4:5] - loudness)
    wanted = wanted + 0.3 * slope * (energy[:, :, 12:13] - loudness)
    wanted = wanted + beyond * (f_end < CENTRES)
    ends = torch.full((clips,), f_end)
    floor = torch.full((clips, 1, BANDS), 1e-12)
    return Bands(power, wanted.exp(), f_prior, ends, floor, torch.zeros(clips))


def fitted(*batches: Bands) -> BandRegression:
    regression = BandRegression(CONFIG).eval()
    equations = NormalEquations(regression)
    for bands in batches:
        add_batch(equations, bands)
    maps, basis = equations.solve()
    regression.load_state_dict({"maps": maps, "basis": basis})
    return regression


def errors(regression: BandRegression, bands: Bands) -> torch.Tensor:
    """Return predicted less wanted levels, natural logarithms, ``(clips, frames, bands)``."""
    is_input = below(bands.cutoffs, CENTRES)
    loudness = ((bands.power * is_input).mean(dim=2, keepdim=True) + 1e-10).log()
    energy = (bands.power + 1e-10).log()
    state = regression.initial_state(energy.shape[0])
    levels, _ = regression.step(energy, loudness, is_input, state)
    return (levels - (bands.reference.log() - loudness))[:, 20:]


@pytest.mark.parametrize("cutoff_hz", [4000.0, 9000.0])
def test_what_is_linear_is_found(cutoff_hz):
    teaching = [linear_batch(hz, 24_000.0, seed) for hz in (4000.0, 9000.0) for seed in range(5)]
    error = errors(fitted(*teaching), linear_batch(cutoff_hz, 24_000.0, 99))
    above = error[:, :, cutoff_hz * 1.05 < CENTRES]
    assert float(above.mean()) == pytest.approx(LIFT, abs=0.05)
    assert float(above.std()) < 0.1


def test_a_recording_teaches_nothing_above_its_own_end():
    """What is wrong there changes nothing, and what others teach there stays."""
    whole = [linear_batch(4000.0, 24_000.0, seed) for seed in range(5)]
    ending = [linear_batch(4000.0, 12_000.0, seed, beyond=-9.0) for seed in range(5, 10)]
    error = errors(fitted(*whole, *ending), linear_batch(4000.0, 24_000.0, 99))
    assert float((error[:, :, CENTRES > 4200.0] - LIFT).abs().mean()) < 0.1


def test_bands_that_nothing_teaches_continue_those_that_are_taught():
    ending = [linear_batch(4000.0, 12_000.0, seed) for seed in range(5)]
    regression = fitted(*ending)
    assert torch.isfinite(regression.maps).all()
    error = errors(regression, linear_batch(4000.0, 12_000.0, 99))
    within = (CENTRES > 4200.0) & (CENTRES < 12_000.0)
    assert float((error[:, :, within] - LIFT).abs().mean()) < 0.1


def test_maps_that_nothing_teaches_are_those_of_inputs_that_end_lower():
    regression = fitted(*[linear_batch(4000.0, 24_000.0, seed) for seed in range(5)])
    number = int((CENTRES < 4000.0).sum()) - regression.fewest
    torch.testing.assert_close(regression.maps[number + 1], regression.maps[number])
    torch.testing.assert_close(regression.maps[0], regression.maps[number])


def test_quiet_frames_count_for_less():
    bands = linear_batch(4000.0, 24_000.0, 0)
    bands.power[:] = below(bands.cutoffs, CENTRES) * 1e-4
    bands.power[:, ::4] *= 1e-3
    equations = NormalEquations(BandRegression(CONFIG))
    add_batch(equations, bands)
    ((gram, _),) = equations.sums.values()
    # 104 frames of each of 8 clips are not fresh; 30 dB of 40 leave a quarter. The first input is
    # a constant one.
    assert gram[0, 0] == pytest.approx(8 * (78 + 26 * 0.25), rel=1e-3)


def test_silence_teaches_nothing():
    silent = linear_batch(4000.0, 24_000.0, 0)
    silent.power *= 1e-9
    equations = NormalEquations(BandRegression(CONFIG))
    add_batch(equations, silent)
    assert equations.frames == 0
    with pytest.raises(RtsrError, match="No recording goes on above"):
        equations.solve()


def test_cutoffs_are_drawn_below_the_ends():
    rng = np.random.default_rng(0)
    ends = np.repeat([5000.0, 12_000.0, 24_000.0], 200)
    cutoffs = draw_evenly(ends, DegradeConfig(), rng)
    assert (cutoffs >= LEAST_CUTOFF_HZ).all()
    assert (cutoffs * 1.14 < ends).all()
    assert cutoffs[400:].max() > 15_000.0
    assert np.median(cutoffs[400:]) < 9000.0


def test_the_domain_takes_the_cutoffs_that_it_is_given():
    domain = BandDomain(
        LevelLoss(BANDS), BANDS, DegradeConfig(cutoff_jitter=0.0), torch.device("cpu")
    )
    piece = torch.randint(-3000, 3000, (480 * 20,), dtype=torch.int16)
    crops = Crops(
        [piece] * 2, [1.0] * 2, 480 * 20, np.full(2, 24e3, np.float32), None,
        np.zeros(2, bool), np.zeros(2, bool),
    )  # fmt: skip
    bands = domain.degrade(crops, np.random.default_rng(0), lambda ends, *_: ends / 4.0)
    assert bands.f_prior.tolist() == [6000.0, 6000.0]


SMALLEST = replace(
    CONFIGURATIONS["small"],
    encoder_width=8, flow_width=8, flow_middle=8, attention_heads=1, decoder_width=8, latent=4,
    level_width=8, level_memory=4, predictor_width=8, predictor_memory=4, predictor_other=8,
)  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "trained.pt", SMALLEST)


def write_checkpoint(path: Path, config) -> Path:
    values = seeded(config, 1).state_dict()
    facts = {"stage": "refinement", "steps": 1}
    content = {"model_config": config.to_dict(), "ema": {"steps": 1, "values": values}}
    save_checkpoint(path, {**content, "facts": facts})
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = ["path,split,domain,speaker_or_group"]
    for domain in ("music", "effects", "speech"):
        path = tmp_path / "corpus" / domain / "a.flac"
        path.parent.mkdir(parents=True)
        noise = np.random.default_rng(len(rows)).normal(size=48_000 * 6) * 0.05
        soundfile.write(path, noise, 48_000)
        rows.append(f"{domain}/a.flac,train,{domain},{domain}")
    (tmp_path / "corpus" / "manifest.csv").write_text("\n".join(rows))
    return tmp_path / "corpus"


@pytest.fixture
def few_frames_do(monkeypatch):
    """Let few batches do: a map is learnt from fewer frames than would be wise."""
    monkeypatch.setattr(band_regression, "FRAMES_PER_INPUT", 1)


def fit(checkpoint: Path, corpus: Path, out: Path, **options) -> None:
    given = {"rank": 4, "batches": 3, "seed": 1, "share": 0.4, "trust": 0.8, "cache": None}
    fit_band_regression.fit_command(checkpoint, corpus, out, **{**given, **options})


@pytest.mark.usefixtures("few_frames_do")
def test_the_command_adds_a_regression_to_a_checkpoint(checkpoint, corpus, tmp_path, capsys):
    out = tmp_path / "fitted.pt"
    fit(checkpoint, corpus, out)
    generator, facts = load_generator(out)
    assert generator.band_predictor.regression.maps.abs().sum() > 0.0
    assert (generator.config.predictor_rank, generator.config.predictor_other_trust) == (4, 0.8)
    assert generator.config.predictor_regression_share == 0.4
    assert facts["band_regression"]["batches"] == 3
    assert "music 1" in str(facts["band_regression"])
    # White noise goes on as loud as it was.
    bands = linear_batch(6000.0, 24_000.0, 0)
    bands.power = below(bands.cutoffs, CENTRES) * 1e-3
    bands.reference = torch.full_like(bands.reference, 1e-3)
    found = errors(generator.band_predictor.regression, bands)[:, :, CENTRES > 6500.0]
    assert abs(float(found.mean()) - LIFT) < 0.5
    # All else is as it was.
    before, after = (
        load_checkpoint(checkpoint)["ema"]["values"],
        load_checkpoint(out)["ema"]["values"],
    )
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert "numbers from" in capsys.readouterr().out


@pytest.mark.usefixtures("few_frames_do")
def test_a_seed_gives_the_same_again(checkpoint, corpus, tmp_path):
    for name in ("a.pt", "b.pt"):
        fit(checkpoint, corpus, tmp_path / name)
    one, other = (load_checkpoint(tmp_path / name)["ema"]["values"] for name in ("a.pt", "b.pt"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.usefixtures("few_frames_do")
def test_it_can_be_fitted_anew(checkpoint, corpus, tmp_path):
    fit(checkpoint, corpus, tmp_path / "a.pt")
    fit(tmp_path / "a.pt", corpus, tmp_path / "b.pt", rank=2)
    assert load_generator(tmp_path / "b.pt")[0].config.predictor_rank == 2


def test_what_is_grown_has_to_be_fitted_anew():
    fitted_model = seeded(replace(SMALLEST, predictor_rank=4), 1)
    grown = grow(fitted_model.state_dict(), fitted_model.config, SMALLEST)
    assert grown.band_predictor.regression is None


def test_models_without_a_part_for_other_sound_are_refused(corpus, tmp_path):
    path = write_checkpoint(tmp_path / "old.pt", replace(SMALLEST, predictor_other=0))
    with pytest.raises(ArgumentError, match="cannot have a band regression: predictor_rank needs"):
        fit(path, corpus, tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_weights_of_another_model_are_refused_before_the_corpus_is_read(checkpoint, tmp_path):
    content = load_checkpoint(checkpoint)
    content["model_config"]["latent"] = 6
    save_checkpoint(checkpoint, content)
    with pytest.raises(RtsrError, match="is not a checkpoint of this version"):
        fit(checkpoint, tmp_path / "none", tmp_path / "out.pt")


def test_a_corpus_of_speech_alone_is_refused(checkpoint, corpus, tmp_path):
    manifest = corpus / "manifest.csv"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], lines[3]]))
    with pytest.raises(RtsrError, match="None of the domains"):
        fit(checkpoint, corpus, tmp_path / "out.pt")


def test_a_folder_that_is_not_there_is_said_before_the_fit(checkpoint, corpus, tmp_path):
    with pytest.raises(RtsrError, match="There is no folder"):
        fit(checkpoint, corpus, tmp_path / "none" / "out.pt")

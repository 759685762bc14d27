"""Coded training inputs: each coder's alignment, what it leaves, and how a batch draws it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

import rtsr  # noqa: E402
from rtsr.errors import MissingDependencyError, RtsrError  # noqa: E402
from rtsr.train import codec_versions as coded_versions  # noqa: E402
from rtsr.train.codec_versions import CodecRows, CodecVersions, prepare_codec_versions  # noqa: E402
from rtsr.train.codecs import FAMILIES, CodecSetting, code, draw_setting, lag  # noqa: E402
from rtsr.train.corpus import Corpus  # noqa: E402
from rtsr.train.data import load_corpus  # noqa: E402
from rtsr.train.degrade import DegradeConfig, degrade  # noqa: E402
from rtsr.train.g711 import a_law, mu_law, telephone  # noqa: E402

RATE = 48000
SETTINGS = [setting for _, settings in FAMILIES.values() for setting in settings]
BY_NAME = {setting.name: setting for setting in SETTINGS}
DEMO_SPEECH = Path(rtsr.__file__).parent / "demo_data" / "speech_reference.flac"
Audio = NDArray[np.float32]


def voice(seconds: float = 3.0, seed: int = 0, highest: float = 22_000.0) -> Audio:
    """Harmonics of a gliding pitch in syllables, falling by 6 dB an octave up to `highest` Hz."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 140.0 + 30.0 * np.sin(2 * np.pi * (1.3 * time + rng.random()))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    audio = np.zeros(len(time))
    for partial in range(1, 200):
        if partial * 170.0 > highest:
            break
        audio += np.sin(partial * phase + rng.uniform(0, 2 * np.pi)) / partial
    syllables = 0.05 + 0.95 * np.clip(np.sin(2 * np.pi * 2.5 * time), 0.0, None)
    return (0.1 * audio * syllables).astype(np.float32)


def match_db(estimate: Audio, reference: Audio, low: float, high: float) -> float:
    """SI-SDR (Le Roux et al. 2019, eq. 3) of what lies between two frequencies."""
    frequency = np.fft.rfftfreq(len(reference), 1 / RATE)
    band = (frequency > low) & (frequency < high)
    a, b = (np.fft.rfft(signal)[band] for signal in (estimate, reference))
    target = (np.vdot(b, a).real / np.vdot(b, b).real) * b
    return float(10 * np.log10(np.sum(np.abs(target) ** 2) / np.sum(np.abs(a - target) ** 2)))


def corpus_of(clips: list[Audio], domains: list[str] | None = None) -> Corpus:
    domains = domains or ["speech"] * len(clips)
    names = sorted(set(domains))
    lengths = np.array([len(clip) for clip in clips])
    return Corpus(
        samples=np.rint(np.concatenate(clips) * 32767).astype(np.int16),
        starts=np.concatenate([[0], np.cumsum(lengths)[:-1]]),
        lengths=lengths,
        cutoffs_hz=np.full(len(clips), 22_000.0, np.float32),
        domains=names,
        domain_codes=np.array([names.index(domain) for domain in domains]),
        names=[f"{index}.wav" for index in range(len(clips))],
        groups=["unknown"] * len(clips),
    )


@pytest.fixture(scope="module")
def coded_corpus() -> Corpus:
    """Twenty voices of 6 s, a good third of them coded."""
    pytest.importorskip("av")
    corpus = corpus_of([voice(6.0, seed) for seed in range(20)])
    corpus.codec_versions = prepare_codec_versions(corpus)
    return corpus


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_chirp_comes_out_where_it_went_in(setting: CodecSetting) -> None:
    pytest.importorskip("av")
    time = np.arange(RATE // 2) / RATE
    highest = min(0.4 * setting.rate, 6000.0)
    phase = 2 * np.pi * (200.0 * time + (highest - 200.0) * time**2)
    sweep = (0.4 * np.sin(phase) * np.hanning(len(time))).astype(np.float32)
    audio = np.zeros(2 * RATE, np.float32)
    audio[31_111 : 31_111 + len(sweep)] = sweep
    coded = code(audio, setting)
    assert (coded.shape, coded.dtype) == (audio.shape, np.float32)
    found = int(np.argmax(np.correlate(coded, sweep, "valid")))
    assert abs(found - 31_111) <= 2
    assert np.abs(coded[: 31_111 - 2400]).max() < 0.02
    assert np.sum(coded**2) == pytest.approx(np.sum(audio**2), rel=0.25)


@pytest.mark.parametrize("name", ["g711-a", "g711-mu", "mp3-44k-64", "aac-44k-64"])
def test_a_click_stays_at_its_sample(name: str) -> None:
    pytest.importorskip("av")
    audio = np.zeros(RATE, np.float32)
    audio[24_321] = 0.9
    coded = code(audio, BY_NAME[name])
    assert abs(int(np.argmax(coded)) - 24_321) <= (3 if name.startswith("g711") else 1)


def test_lag_counts_samples_of_delay() -> None:
    audio = np.random.default_rng(1).standard_normal(RATE).astype(np.float32)
    assert lag(np.concatenate([np.zeros(37, np.float32), audio])[:RATE], audio, 4000.0) == 37
    assert lag(audio[5:], audio, 20_000.0) == -5
    # A loud partial alone does not decide.
    tone = 10.0 * np.sin(2 * np.pi * 500.0 * np.arange(RATE) / RATE).astype(np.float32)
    assert lag(audio + tone, audio + np.roll(tone, 40), 20_000.0) == 0


@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("g711-a", 30.0),
        ("g711-mu", 30.0),
        ("opus-8k-12", 5.0),
        ("opus-24k-32", 10.0),
        ("mp3-44k-64", 15.0),
        ("aac-44k-64", 15.0),
    ],
)
def test_below_its_cutoff_a_coder_keeps_the_original(name: str, at_least: float) -> None:
    pytest.importorskip("av")
    audio, _ = soundfile.read(DEMO_SPEECH, dtype="float32")
    setting = BY_NAME[name]
    coded = code(audio, setting)
    highest = min(0.4 * setting.rate, 6000.0)
    assert match_db(coded, audio, 100.0, highest) > at_least
    for shift in (-12, 12):  # the measure itself notices a quarter of a millisecond
        assert match_db(np.roll(coded, shift), audio, 100.0, highest) < at_least


def test_settings_are_drawn_by_family() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_setting(rng) for _ in range(2000)]
    for share, settings in FAMILIES.values():
        assert np.mean([one in settings for one in drawn]) == pytest.approx(share, abs=0.04)
    assert {setting.name for setting in drawn} == set(BY_NAME)
    assert len(BY_NAME) == len(SETTINGS)


@pytest.mark.parametrize(("law", "name"), [(a_law, "pcm_alaw"), (mu_law, "pcm_mulaw")])
def test_companding_is_that_of_real_coders(law, name) -> None:
    av = pytest.importorskip("av")
    values = np.arange(-32768, 32768, dtype=np.int16)[None]
    encoder = av.CodecContext.create(name, "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(values, format="s16", layout="mono")
    frame.sample_rate = 8000
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    decoder = av.CodecContext.create(name, "r")
    decoder.sample_rate, decoder.layout = 8000, "mono"
    expected = np.concatenate(
        [f.to_ndarray()[0] for p in [*packets, None] for f in decoder.decode(p)]
    )
    levels = np.rint(law(torch.from_numpy(values[0] / 32768.0)).numpy() * 32768)
    assert set(levels.tolist()) == set(expected.tolist())
    # Coders differ in which of two neighbours a value on the border goes to.
    assert np.mean(levels == expected) > 0.95
    exact = values[0].astype(float)
    assert np.max(np.abs(levels - exact) / np.maximum(np.abs(exact), 512.0)) < 0.04


def test_companding_noise_on_the_fly_lies_in_the_telephone_band() -> None:
    audio = torch.from_numpy(voice(2.0))
    spectrum = torch.fft.rfft(audio)
    frequency = torch.fft.rfftfreq(len(audio), 1 / RATE)
    spectrum[frequency > 3800.0] = 0.0
    narrow = torch.fft.irfft(spectrum, len(audio))[None]
    coded = telephone(narrow, torch.tensor([True]))
    degraded = torch.fft.irfft(torch.fft.rfft(coded) * (frequency < 4000.0), narrow.shape[1])
    # 8-bit companding is known for 37-38 dB over a wide range of levels (G.711, appendix).
    assert 33.0 < match_db(degraded[0].numpy(), narrow[0].numpy(), 50.0, 4000.0) < 42.0


def test_prepared_versions_are_aligned_and_lose_their_high_band(coded_corpus: Corpus) -> None:
    versions = coded_corpus.codec_versions
    assert versions is not None
    assert len(versions) >= 4
    assert versions.lengths.sum() <= 0.3 * coded_corpus.lengths.sum() + 6 * RATE
    assert set(versions.settings) <= set(BY_NAME)
    for index in range(len(versions)):
        start, length = int(versions.starts[index]), int(versions.lengths[index])
        cutoff = float(versions.cutoffs_hz[index])
        degraded = versions.samples[start : start + length].astype(np.float32)
        offset = int(versions.offsets[index])
        reference = coded_corpus.clip(int(versions.clips[index]))[offset : offset + length]
        assert (
            abs(lag(degraded, reference.astype(np.float32), cutoff)) <= coded_versions.LARGEST_LAG
        )
        assert 1000.0 <= cutoff <= 0.85 * 22_000.0
        assert cutoff <= BY_NAME[versions.settings[index]].rate / 2
        if not versions.settings[index].startswith("opus"):  # which codes no waveform at its worst
            assert match_db(degraded, reference.astype(np.float32), 100.0, 0.7 * cutoff) > 9.0


def test_useless_versions_are_counted_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = corpus_of([voice(2.0, seed, highest=21_000.0) for seed in range(10)])
    late = np.zeros(400, np.float32)
    monkeypatch.setattr(coded_versions.codecs, "load_pyav", lambda: None)
    monkeypatch.setattr(
        coded_versions.codecs,
        "code",
        lambda samples, setting: np.concatenate([late, samples / 32768.0])[: len(samples)],
    )
    with pytest.raises(RtsrError, match="not aligned"):
        prepare_codec_versions(corpus)
    monkeypatch.setattr(
        coded_versions.codecs, "code", lambda samples, setting: 0.0 * samples.astype(np.float32)
    )
    with pytest.raises(RtsrError, match="with nothing left"):
        prepare_codec_versions(corpus)


def test_truth_and_coded_input_are_the_same_crop(coded_corpus: Corpus) -> None:
    crops = coded_corpus.draw(np.random.default_rng(0), 16, RATE, codec_share=1.0)
    assert crops.codec_rows is not None
    np.testing.assert_array_equal(crops.codec_rows.rows, np.arange(16))
    assert crops.codec_rows.audio.shape == crops.audio.shape
    for reference, degraded, cutoff in zip(
        crops.audio, crops.codec_rows.audio, crops.codec_rows.cutoffs_hz, strict=True
    ):
        assert abs(lag(degraded, reference, float(cutoff))) <= coded_versions.LARGEST_LAG + 1
        assert np.corrcoef(degraded, reference)[0, 1] > 0.5


def test_a_crop_longer_than_its_version_is_filled_up_in_front(coded_corpus: Corpus) -> None:
    crops = coded_corpus.draw(np.random.default_rng(0), 4, 8 * RATE, codec_share=1.0)
    assert crops.codec_rows is not None
    for signal in (crops.audio, crops.codec_rows.audio):
        assert not signal[:, : 2 * RATE - 100].any()
        assert signal[:, 3 * RATE :].any(axis=1).all()


def test_share_is_kept_and_zero_is_as_if_nothing_was_coded(coded_corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(40):
        crops = coded_corpus.draw(rng, 50, 480, codec_share=0.12)
        rows.append(0 if crops.codec_rows is None else len(crops.codec_rows.rows))
    assert np.mean(rows) / 50 == pytest.approx(0.12, abs=0.02)
    plain = replace(coded_corpus, codec_versions=None)
    expected = plain.draw(np.random.default_rng(3), 8, RATE).audio
    for drawn in (
        coded_corpus.draw(np.random.default_rng(3), 8, RATE, codec_share=0.0),
        plain.draw(np.random.default_rng(3), 8, RATE, codec_share=0.5),
    ):
        assert drawn.codec_rows is None
        np.testing.assert_array_equal(drawn.audio, expected)


def test_coded_rows_are_drawn_by_domain() -> None:
    corpus = corpus_of([voice(2.0, 1), voice(2.0, 2)], ["music", "speech"])
    corpus.codec_versions = CodecVersions(
        samples=corpus.samples.copy(),
        starts=corpus.starts,
        lengths=corpus.lengths,
        clips=np.array([0, 1]),
        offsets=np.zeros(2, np.int64),
        cutoffs_hz=np.array([4000.0, 8000.0], np.float32),
        settings=["a", "b"],
    )
    weights = {"music": 3.0, "speech": 1.0}
    crops = corpus.draw(np.random.default_rng(0), 600, 4800, 1.0, weights)
    assert crops.codec_rows is not None
    assert np.mean(crops.codec_rows.cutoffs_hz == 4000.0) == pytest.approx(0.75, abs=0.06)


def degraded_rows(config: DegradeConfig, batch: int = 6):
    """Every second row is coded: its input is the reference below 5 kHz, at half the level."""
    clips = np.stack([voice(1.0, seed) for seed in range(batch)])
    frequency = np.fft.rfftfreq(RATE, 1 / RATE)
    rows = np.arange(0, batch, 2)
    degraded = np.fft.irfft(0.5 * np.fft.rfft(clips[rows]), RATE).astype(np.float32)
    cutoffs = np.full(len(rows), 5000.0, np.float32)
    coded = CodecRows(rows, degraded, cutoffs)
    torch.manual_seed(0)
    data = degrade(
        torch.from_numpy(clips),
        np.full(batch, 22_000.0),
        config,
        np.random.default_rng(0),
        coded,
    )
    return clips, frequency, rows, data


def test_a_coded_row_takes_the_coded_input_and_nothing_else() -> None:
    everything = DegradeConfig(
        floor_share=1.0, equalizer_share=1.0, mix_share=1.0, companding_share=1.0
    )
    clips, frequency, rows, data = degraded_rows(everything)
    for row in rows:
        reference, narrow = data.reference[row, 0].numpy(), data.narrow[row, 0].numpy()
        assert float(data.f_prior[row]) == 5000.0
        assert match_db(reference, clips[row], 0.0, 24_000.0) > 60.0
        assert match_db(narrow, clips[row], 0.0, 5000.0) > 60.0
        ratio = (
            np.abs(np.fft.rfft(narrow)).sum()
            / np.abs(np.fft.rfft(reference)[frequency < 5000.0]).sum()
        )
        assert ratio == pytest.approx(0.5, rel=1e-3)
        assert np.abs(np.fft.rfft(narrow)[frequency >= 5000.0]).max() < 1e-3
    for row in set(range(6)) - set(rows.tolist()):
        assert match_db(data.reference[row, 0].numpy(), clips[row], 0.0, 24_000.0) < 40.0


def test_a_coder_that_overshoots_does_not_clip() -> None:
    clips = torch.from_numpy(voice(1.0)[None].copy())
    coded = CodecRows(np.array([0]), 3.0 * clips.numpy(), np.array([20_000.0], np.float32))
    for seed in range(20):
        data = degrade(
            clips, np.array([22_000.0]), DegradeConfig(), np.random.default_rng(seed), coded
        )
        assert float(data.narrow.abs().max()) <= 1.0


def write_folder(folder: Path) -> None:
    folder.mkdir()
    for seed in range(8):
        soundfile.write(folder / f"{seed}.wav", voice(3.0, seed), RATE)


@pytest.mark.slow
def test_versions_are_kept_beside_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    write_folder(tmp_path / "data")
    cache = tmp_path / "kept" / "train.npz"
    load_corpus(tmp_path / "data", "train", cache=cache)
    before = cache.read_bytes()
    first = load_corpus(tmp_path / "data", "train", cache=cache, codec=True)
    assert sorted(path.name for path in cache.parent.iterdir()) == ["train-coded.npz", "train.npz"]
    assert cache.read_bytes() == before
    monkeypatch.setitem(sys.modules, "av", None)
    again = load_corpus(tmp_path / "data", "train", cache=cache, codec=True)
    assert first.codec_versions is not None
    assert again.codec_versions is not None
    np.testing.assert_array_equal(first.codec_versions.samples, again.codec_versions.samples)
    assert first.codec_versions.settings == again.codec_versions.settings
    assert f"coded {len(again.codec_versions)} excerpts" in again.describe()
    (tmp_path / "data" / "new.wav").write_bytes((tmp_path / "data" / "0.wav").read_bytes())
    with pytest.raises(MissingDependencyError):
        load_corpus(tmp_path / "data", "train", cache=cache, codec=True)


def test_without_pyav_only_coding_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "av", None)
    corpus = load_corpus(tmp_path / "data", "train")
    crops = corpus.draw(np.random.default_rng(0), 4, RATE, codec_share=0.12)
    assert crops.codec_rows is None
    data = degrade(
        torch.from_numpy(crops.audio),
        crops.cutoffs_hz,
        DegradeConfig(),
        np.random.default_rng(0),
        crops.codec_rows,
    )
    assert torch.isfinite(data.narrow).all()
    with pytest.raises(MissingDependencyError, match=r'pip install "rtsr\[train\]"'):
        load_corpus(tmp_path / "data", "train", codec=True)


def test_the_guide_shows_every_setting_with_its_default(tmp_path: Path) -> None:
    from rtsr.train.settings import TrainSettings, load_settings

    guide = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    shown = guide.split("```toml\n")[1].split("```")[0]
    (tmp_path / "train.toml").write_text(shown)
    assert load_settings(tmp_path / "train.toml") == TrainSettings()
    for name in TrainSettings().to_dict():
        assert name in shown
    for name in {**TrainSettings().to_dict()["losses"], **TrainSettings().to_dict()["degrade"]}:
        assert f"\n{name} = " in shown

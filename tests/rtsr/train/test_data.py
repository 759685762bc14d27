"""Loading a corpus: whose files, which split, what is in the crops."""

from __future__ import annotations

import csv
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.errors import ArgumentError, AudioFormatError, RtsrError, RtsrWarning
from rtsr.train import decode as decode_module
from rtsr.train.cache import key_of
from rtsr.train.data import DEMO_SOURCES, Corpus, load_corpus
from rtsr.train.decode import clock_of, decode, to_int16
from rtsr.train.degrade import draw_cutoffs
from rtsr.train.listing import Listed, list_recordings
from rtsr.train.octave import octave_settings
from rtsr.train.settings import TrainSettings
from rtsr.train.speed import change_speed, draw_speed

RATE = 48000
Sound = Callable[..., NDArray[np.float32]]


@pytest.fixture
def folder(tmp_path: Path, make_sound: Sound) -> Path:
    """A user's recordings: several rates, containers and channel counts, and rubbish."""
    root = tmp_path / "recordings"
    (root / "anna").mkdir(parents=True)
    (root / "bert").mkdir()
    soundfile.write(root / "anna" / "one.wav", make_sound(48000, 1.0, seed=1), 48000)
    soundfile.write(
        root / "anna" / "two.FLAC", make_sound(44100, 1.5, seed=2), 44100, format="FLAC"
    )
    soundfile.write(root / "bert" / "three.ogg", make_sound(32000, 2.0, seed=3), 32000)
    soundfile.write(root / "bert" / "four.mp3", make_sound(44100, 2.0, seed=4), 44100)
    stereo = make_sound(48000, 0.5, channels=2, seed=5)
    stereo[:, 0] = 0.0
    soundfile.write(root / "bert" / "right-only.wav", stereo, 48000, subtype="FLOAT")
    (root / "bert" / "broken.wav").write_text("This is not audio.")
    (root / "notes.txt").write_text("neither is this")
    return root


@pytest.fixture
def corpus() -> Corpus:
    """Three domains, one clip of 2 s and one of 0.2 s each, told apart by their sample values."""
    lengths = np.array([2 * RATE, RATE // 5] * 3)
    values = np.array([1000, 2000, 3000, 4000, 5000, 6000])
    return Corpus(
        samples=np.repeat(values, lengths).astype(np.int16),
        starts=np.concatenate([[0], np.cumsum(lengths)[:-1]]),
        lengths=lengths,
        cutoffs_hz=np.array([10e3, 11e3, 12e3, 13e3, 14e3, 15e3], np.float32),
        domains=["effects", "music", "speech"],
        domain_codes=np.array([0, 0, 1, 1, 2, 2]),
        names=list("abcdef"),
        groups=list("abcdef"),
    )


def write_manifest(root: Path, rows: list[dict[str, str]]) -> None:
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_any_folder_is_a_corpus(folder: Path) -> None:
    train, valid = load_corpus(folder, "train"), load_corpus(folder, "valid")
    names = set(train.names) | set(valid.names)
    assert names == {
        "anna/one.wav",
        "anna/two.FLAC",
        "bert/three.ogg",
        "bert/four.mp3",
        "bert/right-only.wav",
    }
    assert set(train.names).isdisjoint(valid.names)
    assert len(valid) >= 1
    assert train.domains == ["unknown"]
    assert train.samples.dtype == np.int16
    assert train.lengths.sum() == len(train.samples)
    skipped = dict(train.skipped + valid.skipped)
    assert "not decodable" in skipped["bert/broken.wav"]
    assert load_corpus(folder, "train").names == train.names


def test_everything_is_at_48_khz_with_its_level(folder: Path, make_sound: Sound) -> None:
    everything = [load_corpus(folder, split) for split in ("train", "valid")]
    clips = {name: c.clip(i) for c in everything for i, name in enumerate(c.names)}
    original = make_sound(48000, 1.0, seed=1)[:, 0]
    np.testing.assert_allclose(clips["anna/one.wav"] / 32768.0, original, atol=1.1 / 32768)
    assert len(clips["anna/two.FLAC"]) == 72000
    assert len(clips["bert/three.ogg"]) == 96000
    resampled = clips["anna/two.FLAC"].astype(float)
    assert np.sqrt(np.mean((resampled / 32768) ** 2)) == pytest.approx(0.1, rel=0.01)


def test_silent_first_channel_is_passed_over(folder: Path) -> None:
    everything = [load_corpus(folder, split) for split in ("train", "valid")]
    clips = {name: c.clip(i) for c in everything for i, name in enumerate(c.names)}
    assert np.abs(clips["bert/right-only.wav"]).max() > 1000


def test_cutoff_is_measured_not_believed(tmp_path: Path, make_sound: Sound) -> None:
    soundfile.write(tmp_path / "narrow.wav", make_sound(48000, 3.0, cutoff=8000.0), 48000)
    soundfile.write(tmp_path / "wide.wav", make_sound(48000, 3.0), 48000)
    row = {"split": "train", "domain": "speech", "measured_cutoff_hz": "20000"}
    write_manifest(tmp_path, [{"path": "narrow.wav", **row}, {"path": "wide.wav", **row}])
    corpus = load_corpus(tmp_path, "train")
    assert corpus.names == ["narrow.wav", "wide.wav"]
    assert corpus.cutoffs_hz[0] == pytest.approx(8000.0, rel=0.03)
    assert corpus.cutoffs_hz[1] == 20000.0


def test_resampled_recording_ends_below_its_own_nyquist(folder: Path) -> None:
    for split in ("train", "valid"):
        corpus = load_corpus(folder, split)
        for name, cutoff in zip(corpus.names, corpus.cutoffs_hz, strict=True):
            if name.startswith("anna/two"):
                assert cutoff <= 0.95 * 22050


@pytest.mark.parametrize("rate", [16000, 48000])
def test_an_mp3_of_few_bits_is_decoded_without_clicks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    """A decoder that is started anew at each block lacks what frames before it hold."""
    path = tmp_path / "noise.mp3"
    noise = 0.3 * np.random.default_rng(0).standard_normal(8 * rate)
    soundfile.write(path, noise, rate, bitrate_mode="CONSTANT", compression_level=0.95)
    whole = soundfile.read(path, dtype="float32")[0]
    if rate != RATE:
        whole = soxr.resample(whole, rate, RATE, quality="HQ")
    monkeypatch.setattr(decode_module, "BLOCK", 1 << 13)
    monkeypatch.setattr(decode_module, "LOWEST_CUTOFF_HZ", 0.0)
    found = decode(path, Listed("noise.mp3", "unknown", "a", None)).samples
    assert np.abs(found.astype(int) - to_int16(whole).astype(int)).max() <= 1


def test_manifest_says_what_belongs_to_a_split(folder: Path) -> None:
    write_manifest(
        folder,
        [
            {"path": "anna/one.wav", "split": "train", "domain": "speech", "speaker_or_group": "A"},
            {"path": "anna/two.FLAC", "split": "valid", "domain": "", "speaker_or_group": ""},
            {"path": "gone.wav", "split": "train", "domain": "music", "speaker_or_group": ""},
        ],
    )
    train = load_corpus(folder, "train")
    assert train.names == ["anna/one.wav"]
    assert train.groups == ["A"]
    assert train.domains == ["speech"]
    assert [name for name, _ in train.skipped] == ["gone.wav"]
    assert load_corpus(folder, "valid").domains == ["unknown"]


def test_a_manifest_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    """As spreadsheets write it."""
    text = "path,split\nanna/one.wav,train\n"
    (folder / "manifest.csv").write_text(text, encoding="utf-8-sig")
    assert load_corpus(folder, "train").names == ["anna/one.wav"]


def test_a_manifest_that_ends_above_nyquist_is_refused(tmp_path: Path, make_sound: Sound) -> None:
    soundfile.write(tmp_path / "a.wav", make_sound(16000, 1.0), 16000)
    write_manifest(tmp_path, [{"path": "a.wav", "split": "train", "measured_cutoff_hz": "12000"}])
    with pytest.raises(RtsrError, match=r"a\.wav ends at 12000 Hz, above half of its rate"):
        load_corpus(tmp_path, "train")


def test_a_corpus_knows_whether_all_of_it_is_lossy(corpus: Corpus) -> None:
    assert not corpus.is_all_lossy
    assert replace(corpus, names=["a.ogg"] * len(corpus)).is_all_lossy
    assert not replace(corpus, names=["a.ogg"] * (len(corpus) - 1) + ["b.flac"]).is_all_lossy


def test_a_limit(folder: Path) -> None:
    assert len(load_corpus(folder, "train", limit=2)) == 2


def test_demo_sources_are_never_trained_on(tmp_path: Path, make_sound: Sound) -> None:
    (tmp_path / "train" / "speech").mkdir(parents=True)
    demo = next(path for path in DEMO_SOURCES if "speech" in path)
    for path in (demo, "train/speech/other.ogg"):
        soundfile.write(tmp_path / path, make_sound(48000, 1.0), 48000)
    write_manifest(
        tmp_path,
        [{"path": path, "split": "train"} for path in (demo, "train/speech/other.ogg")],
    )
    assert load_corpus(tmp_path, "train").names == ["train/speech/other.ogg"]


def test_unusable_corpora_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RtsrError, match="not a folder"):
        load_corpus(tmp_path / "nothing", "train")
    with pytest.raises(RtsrError, match="no recordings"):
        load_corpus(tmp_path, "train")
    with pytest.raises(ArgumentError, match="'train' or 'valid'"):
        load_corpus(tmp_path, "test")
    (tmp_path / "a.wav").write_text("text")
    with pytest.raises(RtsrError, match=r"a\.wav: not decodable"):
        load_corpus(tmp_path, "train")
    (tmp_path / "manifest.csv").write_text("file,kind\n1,2\n")
    with pytest.raises(RtsrError, match="path and split"):
        load_corpus(tmp_path, "train")


@pytest.mark.parametrize(
    ("seconds", "cutoff", "reason"),
    [(0.05, None, "shorter"), (1.0, 3000.0, "ends at")],
)
def test_recordings_with_nothing_to_learn_from_are_named(
    tmp_path: Path, make_sound: Sound, seconds: float, cutoff: float | None, reason: str
) -> None:
    soundfile.write(tmp_path / "useless.wav", make_sound(48000, seconds, cutoff=cutoff), 48000)
    soundfile.write(tmp_path / "good.wav", make_sound(48000, 1.0), 48000)
    write_manifest(
        tmp_path, [{"path": path, "split": "train"} for path in ("useless.wav", "good.wav")]
    )
    corpus = load_corpus(tmp_path, "train")
    assert corpus.names == ["good.wav"]
    assert reason in corpus.skipped[0][1]
    assert "useless.wav" in corpus.describe()


def test_cache_is_used_and_noticed_to_be_old(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "kept" / "train.npz"
    first = load_corpus(folder, "train", cache=cache)
    calls: list[tuple[int, int]] = []
    second = load_corpus(folder, "train", cache=cache, progress=lambda *at: calls.append(at))
    assert calls == []
    np.testing.assert_array_equal(first.samples, second.samples)
    assert (first.names, first.skipped) == (second.names, second.skipped)

    (folder / "bert" / "broken.wav").unlink()
    third = load_corpus(folder, "train", cache=cache, progress=lambda *at: calls.append(at))
    assert calls
    assert third.names == first.names
    cache.write_bytes(b"damaged")
    assert load_corpus(folder, "train", cache=cache).names == first.names
    with cache.open("wb") as file:
        np.save(file, np.zeros(3))
    assert load_corpus(folder, "train", cache=cache).names == first.names
    assert list(cache.parent.iterdir()) == [cache]


def test_a_cache_of_an_earlier_version_is_still_used(folder: Path, tmp_path: Path) -> None:
    """Its layout, written by hand: gigabytes are not decoded again for a new field."""
    listed = list_recordings(folder, "train")
    described = {
        "key": key_of(folder, listed),
        "domains": ["unknown"],
        "names": ["a.wav"],
        "groups": ["g"],
        "skipped": [["b.wav", "why"]],
    }
    np.savez(
        tmp_path / "old.npz",
        described=np.array(json.dumps(described)),
        samples=np.arange(7, dtype=np.int16),
        starts=np.array([0]),
        lengths=np.array([7]),
        cutoffs_hz=np.array([9000.0], np.float32),
        domain_codes=np.array([0]),
    )
    corpus = load_corpus(folder, "train", cache=tmp_path / "old.npz")
    np.testing.assert_array_equal(corpus.samples, np.arange(7))
    assert (corpus.names, corpus.skipped, corpus.codec_versions) == (
        ["a.wav"],
        [("b.wav", "why")],
        None,
    )


def test_crops_have_their_shape_and_the_lowest_cutoff(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    crops = corpus.draw(rng, 64, RATE)
    audio, cutoffs = crops.audio, crops.cutoffs_hz
    assert (audio.shape, audio.dtype) == ((64, RATE), np.float32)
    assert (cutoffs.shape, cutoffs.dtype) == ((64,), np.float32)
    reference = dict(zip(range(1000, 7000, 1000), corpus.cutoffs_hz, strict=True))
    for crop, cutoff in zip(audio, cutoffs, strict=True):
        values = np.unique(np.rint(crop * 32768))
        present = [reference[int(value)] for value in values if int(value) in reference]
        assert cutoff == min(present)


def test_seed_gives_the_same_crops_again(corpus: Corpus) -> None:
    first, second = (corpus.draw(np.random.default_rng(7), 8, RATE).audio for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_domains_are_drawn_by_weight(corpus: Corpus) -> None:
    rng = np.random.default_rng(1)
    cutoffs = corpus.draw(rng, 3000, 480).cutoffs_hz
    assert np.mean(cutoffs >= 14e3) == pytest.approx(0.4, abs=0.04)
    assert np.mean(cutoffs < 12e3) == pytest.approx(0.3, abs=0.04)
    cutoffs = corpus.draw(rng, 100, 480, domain_weights={"music": 1.0}).cutoffs_hz
    assert ((cutoffs == 12e3) | (cutoffs == 13e3)).all()
    with pytest.raises(RtsrError, match="weight above zero"):
        corpus.draw(rng, 1, 480, domain_weights={"unheard": 1.0})


def test_short_clips_are_padded_in_front_or_joined(corpus: Corpus) -> None:
    rng = np.random.default_rng(2)
    corpus.domain_codes[:] = [0, 1, 2, 2, 2, 2]  # the second domain is one short clip
    audio = corpus.draw(rng, 40, RATE, domain_weights={"music": 1.0}).audio
    padded = [crop for crop in audio if not crop[: RATE // 2].any()]
    joined = [crop for crop in audio if (np.abs(crop) > 0).mean() > 0.95]
    assert len(padded) + len(joined) == 40
    assert padded
    assert joined
    assert all(crop[-1000] == 2000 / 32768 for crop in padded)


def test_mostly_silent_crops_are_rare(corpus: Corpus) -> None:
    start = int(corpus.starts[4])
    corpus.samples[start : start + RATE * 18 // 10] = 3
    rng = np.random.default_rng(3)
    audio = corpus.draw(rng, 400, RATE // 10, domain_weights={"speech": 1.0}).audio
    silent = np.mean(np.abs(audio).max(axis=1) < 1e-3)
    assert 0.005 < silent < 0.5


def test_a_voice_with_few_minutes_is_heard_more_than_its_minutes(corpus: Corpus) -> None:
    """Nine times the minutes are drawn three times as often, not nine."""
    few, many = RATE, 9 * RATE
    voices = replace(
        corpus,
        samples=np.concatenate([np.full(few, 1000), np.full(many, 2000)]).astype(np.int16),
        starts=np.array([0, few]),
        lengths=np.array([few, many]),
        cutoffs_hz=np.array([20e3, 20e3], np.float32),
        domains=["speech"],
        domain_codes=np.zeros(2, np.int64),
        names=["a.wav", "b.wav"],
        groups=["a", "b"],
    )
    audio = voices.draw(np.random.default_rng(0), 2000, 480).audio
    assert np.mean(audio[:, 0] > 1500 / 32768) == pytest.approx(0.75, abs=0.03)


def test_music_that_reaches_the_edge_of_cd_rate_is_compared_to_the_top(corpus: Corpus) -> None:
    domains = ["speech", "music", "music", "effects", "music", "speech"]
    names = sorted(set(domains))
    corpus = replace(
        corpus,
        cutoffs_hz=np.array([20_947, 20_947, 20_000, 22_500, 24_000, 24_000], np.float32),
        domains=names,
        domain_codes=np.array([names.index(domain) for domain in domains]),
    )
    ends = [corpus.end_hz(index) for index in range(6)]
    assert ends == [20_947, 24_000, 20_000, 24_000, 24_000, 24_000]
    drawn = corpus.draw(np.random.default_rng(0), 64, 480, domain_weights={"music": 1.0})
    assert set(drawn.cutoffs_hz.tolist()) == {20_000.0, 24_000.0}


def test_lossy_files_are_known_by_their_suffix(corpus: Corpus) -> None:
    names = ["a.wav", "b.ogg", "c.flac", "d.MP3", "e.opus", "f.aiff"]
    corpus = replace(corpus, names=names)
    lossy = [corpus.is_lossy(index) for index in range(6)]
    assert lossy == [False, True, False, True, True, False]
    drawn = corpus.draw(np.random.default_rng(0), 32, 480)
    values = np.rint(drawn.audio[:, 0] * 32768 / 1000).astype(int) - 1
    assert drawn.lossy.tolist() == [lossy[value] for value in values]


def test_what_is_played_faster_ends_higher(make_sound: Sound) -> None:
    def played(sound: np.ndarray, samples: int) -> np.ndarray:
        return change_speed(torch.from_numpy(sound)[None], samples)[0].numpy()

    faster = played(make_sound(RATE, 3.0, cutoff=10e3)[:, 0], RATE * 2)
    assert len(faster) == RATE * 2
    assert measure_cutoff(faster, RATE) == pytest.approx(15e3, rel=0.03)
    tone = np.sin(2 * np.pi * 1000 * np.arange(3 * RATE) / RATE).astype(np.float32)
    higher = np.sin(2 * np.pi * 1500 * np.arange(2 * RATE) / RATE)
    np.testing.assert_allclose(played(tone, 2 * RATE), higher, atol=1e-3)
    lower = np.sin(2 * np.pi * 750 * np.arange(4 * RATE) / RATE)
    np.testing.assert_allclose(played(tone, 4 * RATE), lower, atol=1e-3)


def test_speeds_are_drawn_from_the_lowest_to_the_highest() -> None:
    rng = np.random.default_rng(0)
    speeds = {round(draw_speed(rng, 0.88, 1.13), 2) for _ in range(300)}
    assert speeds == {0.9, 0.95, 1.0, 1.05, 1.1}
    assert draw_speed(rng, 1.0, 1.0) == 1.0


def test_faster_crops_tell_where_they_end(corpus: Corpus) -> None:
    plain = corpus.draw(np.random.default_rng(0), 64, 4800, domain_weights={"music": 1.0})
    faster = corpus.draw(
        np.random.default_rng(0),
        64,
        4800,
        domain_weights={"music": 1.0},
        speed_share=1.0,
        speeds=(1.05, 1.5),
    )
    assert set(plain.cutoffs_hz.tolist()) <= {12e3, 13e3}
    assert faster.cutoffs_hz.min() > 12e3 * 1.04
    assert faster.cutoffs_hz.max() <= 13e3 * 1.51
    assert faster.audio.shape == (64, 4800)


@pytest.mark.parametrize("cutoff", [5500.0, 8000.0, 12000.0, 16000.0, 19000.0])
@pytest.mark.parametrize("rate", [44100, 48000])
def test_band_edge_is_measured(make_sound: Sound, rate: int, cutoff: float) -> None:
    sound = make_sound(rate, 3.0, cutoff=cutoff)[:, 0]
    assert measure_cutoff(sound, rate) == pytest.approx(cutoff, rel=0.03)
    whole = np.rint(sound * 32768).astype(np.int16)
    assert measure_cutoff(whole, rate) == pytest.approx(cutoff, rel=0.03)


def test_full_band_reaches_nyquist(make_sound: Sound) -> None:
    assert measure_cutoff(make_sound(48000, 3.0)[:, 0], 48000) > 23800.0


def test_stationary_noise_is_no_speech(make_sound: Sound) -> None:
    loudness = (np.arange(3 * RATE) // (RATE // 2)) % 2
    voice = make_sound(48000, 3.0, cutoff=9000.0)[:, 0] * loudness
    noise = 1e-3 * np.random.default_rng(4).standard_normal(len(voice))
    recording = (voice + noise).astype(np.float32)
    assert measure_cutoff(recording, RATE, speech=True) == pytest.approx(9000.0, rel=0.05)


def test_silence_and_scraps_hold_nothing() -> None:
    assert measure_cutoff(np.zeros(RATE, np.float32), RATE) == 0.0
    assert measure_cutoff(np.zeros(10, np.int16), RATE) == 0.0
    with pytest.raises(AudioFormatError, match="one channel"):
        measure_cutoff(np.zeros((10, 2), np.float32), RATE)


@pytest.mark.parametrize(
    ("rate", "octave_rate", "clock"),
    [
        (48000, 48000, 1),
        (192000, 48000, 1),
        (48000, 96000, 1),
        (88200, 96000, 2),
        (192000, 96000, 2),
        (96000, 192000, 2),
        (176400, 192000, 4),
        (64000, 192000, 1),
    ],
)
def test_recordings_are_played_as_slow_as_an_octave_is_fast(
    rate: int, octave_rate: int, clock: int
) -> None:
    assert clock_of(rate, octave_rate) == clock


def test_a_high_rate_teaches_an_octave_at_half_its_speed(tmp_path: Path, make_sound: Sound) -> None:
    sound = make_sound(96000, 1.0, cutoff=30000)[:, 0]
    soundfile.write(tmp_path / "one.wav", sound, 96000, subtype="PCM_16")
    (tmp_path / "manifest.csv").write_text("path,split\none.wav,train\n")
    cache = tmp_path / "kept.npz"
    plain = load_corpus(tmp_path, "train", cache=cache)
    slow = load_corpus(tmp_path, "train", cache=cache, octave_rate=96000)
    assert list(plain.lengths) == [48000]
    assert list(slow.lengths) == [96000]
    assert slow.cutoffs_hz[0] == pytest.approx(15000, rel=0.03)
    assert (
        np.array_equal(slow.samples, np.rint(sound * 32768).astype(np.int16))
        or np.max(np.abs(slow.samples - sound * 32768)) <= 1.0
    )


def test_inputs_of_an_octave_end_in_the_octave_below() -> None:
    settings = octave_settings(TrainSettings())
    chance = np.random.default_rng(0)
    cutoffs = draw_cutoffs(np.full(500, 24000.0), settings.degrade, chance)
    assert cutoffs.min() == pytest.approx(8500.0, abs=100.0)
    assert cutoffs.max() == pytest.approx(12500.0, abs=100.0)
    assert settings.degrade.codec_share == settings.degrade.room_share == 0.0


def test_a_cache_does_not_serve_a_file_that_was_replaced(tmp_path: Path, make_sound: Sound) -> None:
    """By one of the same name and size, as of another take."""
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, make_sound(RATE, 1.0, seed=1), RATE)
        os.utime(tmp_path / name, (1e9, 1e9))
    write_manifest(tmp_path, [{"path": name, "split": "train"} for name in ("a.wav", "b.wav")])
    cache = tmp_path / "kept.npz"
    before = load_corpus(tmp_path, "train", cache=cache)
    soundfile.write(tmp_path / "a.wav", make_sound(RATE, 1.0, seed=2), RATE)
    with pytest.warns(RtsrWarning, match=r"kept\.npz is of other recordings, settings or version"):
        after = load_corpus(tmp_path, "train", cache=cache)
    assert not np.array_equal(before.clip(0), after.clip(0))
    np.testing.assert_array_equal(before.clip(1), after.clip(1))


def test_a_cache_that_was_copied_with_its_recordings_still_holds(
    folder: Path, tmp_path: Path
) -> None:
    load_corpus(folder, "train", cache=tmp_path / "kept.npz")
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    calls: list[int] = []
    load_corpus(
        copied, "train", cache=tmp_path / "kept.npz", progress=lambda done, _: calls.append(done)
    )
    assert not calls


def test_a_cache_that_cannot_be_written_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "kept.npz"
    with pytest.warns(RtsrWarning, match=r"kept\.npz cannot be written \(.+\), so the next start"):
        corpus = load_corpus(folder, "train", cache=cache)
    assert len(corpus)


@pytest.mark.skipif(os.name != "posix", reason="names are text there")
def test_names_that_are_not_utf_8_are_taken_and_kept(tmp_path: Path, make_sound: Sound) -> None:
    root = tmp_path / "recordings"
    root.mkdir()
    for number in range(3):
        name = os.fsdecode(b"caf\xe9%d.wav" % number)
        try:
            (root / name).touch()
        except OSError:
            pytest.skip("this file system takes UTF-8 only")
        soundfile.write(os.fsencode(root / name), make_sound(RATE, 1.0), RATE)
    found = []
    for _ in range(2):
        for split in ("train", "valid"):
            found.append(load_corpus(root, split, cache=tmp_path / f"{split}.npz").names)
    assert len(found[0]) + len(found[1]) == 3
    assert found[:2] == found[2:]


def test_folders_that_are_links_are_followed_once(tmp_path: Path) -> None:
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    for folder in (corpus / "own", elsewhere / "deep"):
        folder.mkdir(parents=True)
        (folder / "a.wav").touch()
    links = {"linked": elsewhere, "again": corpus / "own", "up": tmp_path}
    for name, target in links.items():
        (corpus / name).symlink_to(target, target_is_directory=True)
    (elsewhere / "deep" / "round").symlink_to(elsewhere, target_is_directory=True)
    listed = [*list_recordings(corpus, "train"), *list_recordings(corpus, "valid")]
    assert sorted(entry.path for entry in listed) == ["linked/deep/a.wav", "own/a.wav"]


@pytest.mark.parametrize("inner", ["a", "b"], ids=["inner first", "outer first"])
def test_a_folder_that_two_links_lead_to_is_walked_once(tmp_path: Path, inner: str) -> None:
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    corpus.mkdir()
    for path in (elsewhere / "sub" / "x.wav", elsewhere / "y.wav"):
        path.touch()
    outer = "b" if inner == "a" else "a"
    (corpus / inner).symlink_to(elsewhere / "sub", target_is_directory=True)
    (corpus / outer).symlink_to(elsewhere, target_is_directory=True)
    listed = [*list_recordings(corpus, "train"), *list_recordings(corpus, "valid")]
    assert sorted(Path(entry.path).name for entry in listed) == ["x.wav", "y.wav"]


def test_sound_that_cannot_be_decoded_is_counted(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.m4a", "d.M4A", "e.wma", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.warns(RtsrWarning, match=r"are passed over \(2 \.m4a, 1 \.wma\); accepted are"):
        list_recordings(tmp_path, "train")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["a.wav,train,,", "./a.wav,valid,,"], r"lists \./a\.wav twice, in lines 2 and 3 \(train"),
        (["a.wav,train,,", "a.wav,train,,"], r"lists a\.wav twice, in lines 2 and 3 \(train\)"),
        (["a.wav,train,,abc"], r"has the measured_cutoff_hz 'abc' in line 2"),
        (["a.wav,train,,-5"], r"has the measured_cutoff_hz '-5' in line 2"),
        (["a.wav,train,,nan"], r"has the measured_cutoff_hz 'nan' in line 2"),
        (["a.wav,Train,,", "b.wav,Valid,,"], "for the split 'train', but for 'Train', 'Valid'"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(
    tmp_path: Path, rows: list[str], sentence: str
) -> None:
    header = "path,split,speaker_or_group,measured_cutoff_hz"
    (tmp_path / "manifest.csv").write_text("\n".join([header, *rows]))
    with pytest.raises(RtsrError, match=sentence):
        list_recordings(tmp_path, "train")


def test_a_row_that_is_not_used_may_hold_anything(tmp_path: Path) -> None:
    rows = ["a.wav,train,5000", "b.wav,test,unknown"]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,split,measured_cutoff_hz", *rows]))
    listed = list_recordings(tmp_path, "train")
    assert [(entry.path, entry.cutoff_hz) for entry in listed] == [("a.wav", 5000.0)]


def test_one_speaker_in_both_splits_is_told_of(tmp_path: Path) -> None:
    rows = [{"path": f"{split}.wav", "split": split} for split in ("train", "valid")]
    write_manifest(tmp_path, [{**row, "speaker_or_group": "ann"} for row in rows])
    with pytest.warns(RtsrWarning, match=r"same speaker_or_group in both splits \(ann\)"):
        list_recordings(tmp_path, "train")
    # Their folder is not a group that somebody has named.
    write_manifest(tmp_path, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list_recordings(tmp_path, "train")


def test_a_recording_that_is_not_there_is_called_so(tmp_path: Path, make_sound: Sound) -> None:
    soundfile.write(tmp_path / "a.wav", make_sound(RATE, 1.0), RATE)
    write_manifest(tmp_path, [{"path": path, "split": "train"} for path in ("a.wav", "gone.wav")])
    assert load_corpus(tmp_path, "train").skipped == [("gone.wav", "there is no such file")]


def test_a_split_without_a_usable_recording_leads_to_the_manifest(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_text("no sound")
    with pytest.raises(RtsrError, match=r"with others of the split 'valid' in its manifest\.csv"):
        load_corpus(tmp_path, "valid")

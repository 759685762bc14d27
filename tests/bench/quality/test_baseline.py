"""The baseline: causal, level-true, silent in silence; and the validation set around it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy import signal as filters

from rtsr.errors import ArgumentError, RtsrError
from rtsr.quality import evaluate
from rtsr.quality.compare import compare_files
from rtsr.train.excerpt import loudest_part
from rtsr.train.replicate import frame_matrix
from rtsr_bench.corpus import (
    Clip,
    count_by_domain,
    list_clips,
    prepare_inputs,
    prepare_references,
)
from rtsr_bench.quality.baseline import (
    RidgeBaseline,
    baseline_path,
    degrade,
    high_edges,
    low_edges,
    targets,
)
from rtsr_bench.quality.scores import gather_scores

RATE = 48000
CUTOFF = 4000.0


def swelling_noise(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """Noise that falls by 6 dB per octave and whose level wanders by some 20 dB."""
    random = np.random.default_rng(seed)
    samples = filters.lfilter([0.3], [1, -0.85], random.normal(size=int(seconds * rate)))
    steps = np.repeat(random.uniform(-2, 0, size=int(seconds * 5) + 1), rate // 5)[: samples.size]
    return 0.1 * samples * 10 ** (steps / 2)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> RidgeBaseline:
    folder = tmp_path_factory.mktemp("train")
    files = []
    for seed in range(4):
        files.append(folder / f"{seed}.wav")
        soundfile.write(files[-1], swelling_noise(4.0, seed), RATE, subtype="PCM_16")
    return RidgeBaseline.fit(files, CUTOFF)


def test_it_learns_the_level_of_what_it_cannot_hear(baseline: RidgeBaseline) -> None:
    reference = swelling_noise(4.0, 99)
    names = ["lsd_near", "hf_bias_db", "hf_envelope_db", "lf_sisdr", "lf_gain_db"]
    values = evaluate(reference, baseline.enhance(degrade(reference, CUTOFF)), CUTOFF, names)
    assert abs(values["hf_bias_db"]) < 1.0
    assert values["hf_envelope_db"] < 2.0
    # the distance of two independent noises of one level is 0.79
    assert values["lsd_near"] < 0.95
    assert values["lf_sisdr"] > 35
    assert abs(values["lf_gain_db"]) < 0.05


def test_the_future_changes_nothing_in_the_past(baseline: RidgeBaseline) -> None:
    narrow = degrade(swelling_noise(1.0, 5), CUTOFF)
    changed = narrow.copy()
    changed[24000:] = np.random.default_rng(1).normal(size=24000) * 0.1
    # a frame that ends at sample s writes back to s - 600
    np.testing.assert_array_equal(
        baseline.high_band(narrow)[: 24000 - 600], baseline.high_band(changed)[: 24000 - 600]
    )
    assert not np.allclose(baseline.high_band(narrow)[24000:], baseline.high_band(changed)[24000:])


def test_silence_stays_silent_and_seeds_repeat(baseline: RidgeBaseline) -> None:
    assert not baseline.high_band(np.zeros(9600)).any()
    narrow = degrade(swelling_noise(0.5, 6), CUTOFF)
    np.testing.assert_array_equal(baseline.enhance(narrow, 3), baseline.enhance(narrow, 3))
    assert not np.array_equal(baseline.enhance(narrow, 3), baseline.enhance(narrow, 4))


@pytest.mark.parametrize("samples", [1, 479, 480, 481, 4801])
def test_any_length_comes_out_at_its_own(baseline: RidgeBaseline, samples: int) -> None:
    assert baseline.enhance(swelling_noise(1.0, 7)[:samples]).shape == (samples,)


def test_the_generated_band_stays_above_the_cutoff(baseline: RidgeBaseline) -> None:
    high = baseline.high_band(degrade(swelling_noise(3.0, 8), CUTOFF))
    frequencies, density = filters.welch(high, RATE, nperseg=4096)
    inside = density[(frequencies > 1.1 * CUTOFF) & (frequencies < 1.5 * CUTOFF)].mean()
    below = density[(frequencies > 100) & (frequencies < 0.85 * CUTOFF)].max()
    assert 10 * np.log10(below / inside) < -50


def test_white_noise_has_the_same_density_in_every_band() -> None:
    white = np.random.default_rng(0).normal(size=20 * RATE) * 0.01
    levels = np.log10((10.0 ** targets(white, CUTOFF)[2:-2]).mean(axis=0))
    assert levels == pytest.approx(np.full(levels.size, -4.0), abs=0.03)


def test_frames_end_at_whole_hops() -> None:
    frames = frame_matrix(np.arange(1.0, 2001.0), 600)
    assert frames.shape == (6, 600)
    assert frames[0, -1] == 480
    assert frames[0, 119] == 0
    assert frames[0, 120] == 1
    assert frames[3, -1] == 1920
    assert frames[3, 0] == 1321


@pytest.mark.parametrize("cutoff", [2000.0, 4000.0, 8000.0, 12000.0, 16000.0])
def test_bands_cover_the_spectrum(cutoff: float) -> None:
    low, high = low_edges(cutoff), high_edges(cutoff)
    assert low[0] == 50
    assert low[-1] < cutoff
    assert (np.diff(low) > 90).sum() >= low.size - 2
    assert high[0] == pytest.approx(cutoff)
    assert high[-1] == pytest.approx(24000)
    assert (np.diff(low) > 0).all()
    assert (np.diff(high) > 0).all()


def test_a_recording_teaches_nothing_above_its_own_end(tmp_path: Path) -> None:
    files = []
    for seed in range(2):
        samples = swelling_noise(3.0, seed)
        if seed:
            samples = filters.sosfilt(
                filters.butter(20, 9000, "low", fs=RATE, output="sos"), samples
            )
        files.append(tmp_path / f"{seed}.wav")
        soundfile.write(files[-1], samples, RATE, subtype="FLOAT")
    believed = RidgeBaseline.fit(files, CUTOFF)
    masked = RidgeBaseline.fit(files, CUTOFF, {str(files[1]): 9000.0})
    narrow = degrade(swelling_noise(1.0, 9), CUTOFF)
    top_believed, top_masked = (f.predict(narrow)[10:90, -3].mean() for f in (believed, masked))
    assert top_masked > top_believed + 1.0


def test_a_recording_that_ends_below_the_cutoff_teaches_nothing(tmp_path: Path) -> None:
    """Nor how empty the first band is, nor how loud all of them are."""
    limit = filters.butter(20, 3000, "low", fs=RATE, output="sos")
    files = [tmp_path / f"{seed}.wav" for seed in range(4)]
    for seed, file in enumerate(files):
        samples = swelling_noise(2.0, seed)
        samples = samples if seed == 3 else filters.sosfilt(limit, samples)
        soundfile.write(file, samples, RATE, subtype="PCM_16")
    low = {str(file): 3000.0 for file in files[:3]}
    alone, beside = RidgeBaseline.fit(files[3:], CUTOFF), RidgeBaseline.fit(files, CUTOFF, low)
    np.testing.assert_array_equal(beside.weights, alone.weights)
    assert beside.level == alone.level
    with pytest.raises(RtsrError, match="None of the recordings has sound up to"):
        RidgeBaseline.fit(files[:3], CUTOFF, low)


def test_what_cannot_be_written_whole_leaves_what_was_there(
    baseline: RidgeBaseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "baseline.npz"
    baseline.save(file)
    before = file.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OSError, match="No space"):
        baseline.save(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_save_and_load(baseline: RidgeBaseline, tmp_path: Path) -> None:
    baseline.save(tmp_path / "baseline.npz")
    loaded = RidgeBaseline.load(tmp_path / "baseline.npz")
    assert loaded.cutoff_hz == CUTOFF
    assert loaded.level == baseline.level
    np.testing.assert_array_equal(loaded.weights, baseline.weights)
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "half.npz").write_bytes((tmp_path / "baseline.npz").read_bytes()[:3000])
    (tmp_path / "empty.npz").write_bytes(b"")
    for path in ("text.npz", "half.npz", "empty.npz", "none.npz"):
        with pytest.raises(RtsrError, match="is not a baseline"):
            RidgeBaseline.load(tmp_path / path)
    with pytest.raises(ArgumentError, match="no files"):
        RidgeBaseline.fit([], CUTOFF)


def test_inputs_are_16_bit_files_and_references_whole(
    tmp_path: Path, baseline: RidgeBaseline
) -> None:
    (tmp_path / "corpus").mkdir()
    for number, rate in enumerate((44100, 48000)):
        sound = swelling_noise(3.0, 20, rate)
        soundfile.write(tmp_path / "corpus" / f"{number}.wav", sound, rate, subtype="PCM_16")
    clips = [
        Clip(f"{domain}/clip", tmp_path / "corpus" / f"{number}.wav", domain, 20000.0)
        for number, domain in enumerate(("speech", "music"))
    ]
    references = prepare_references(clips, tmp_path / "references", 2.0)
    inputs = prepare_inputs(references, tmp_path / "inputs", CUTOFF)
    assert set(inputs) == {"speech/clip", "music/clip"}
    untouched, enhanced = {}, {}
    for name, source in inputs.items():
        info = soundfile.info(source)
        assert (info.samplerate, info.subtype) == (8000, "PCM_16")
        target = tmp_path / f"{info.name.count('music')}.wav"
        baseline.enhance_file(source, target)
        for output, scores in ((source, untouched), (target, enhanced)):
            scores[name] = compare_files(references[name], output, CUTOFF, ["lsd_near"]).metrics
    better = gather_scores(CUTOFF, enhanced)
    for domain, values in gather_scores(CUTOFF, untouched).by_domain.items():
        assert better.by_domain[domain]["lsd_near"] < values["lsd_near"] / 3
    with pytest.raises(RtsrError, match="has no recordings for the split 'train'"):
        list_clips(_all_valid(tmp_path / "corpus"), "train")


def _all_valid(folder: Path) -> Path:
    rows = [f"{file.name},valid,speech" for file in folder.glob("*.wav")]
    (folder / "manifest.csv").write_text("\n".join(["path,split,domain", *rows]) + "\n")
    return folder


def test_the_command_fits_what_the_report_looks_for(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    for number in range(2):
        file = tmp_path / "corpus" / f"{number}.wav"
        file.parent.mkdir(exist_ok=True)
        soundfile.write(file, swelling_noise(2.0, number), RATE, subtype="PCM_16")
    rows = [f"{number}.wav,train,speech,9000" for number in range(2)]
    head = "path,split,domain,measured_cutoff_hz"
    (tmp_path / "corpus" / "manifest.csv").write_text("\n".join([head, *rows]) + "\n")
    folder = tmp_path / "baselines"
    options = ("--cutoff", "4000", "--baselines", folder, "--seconds-per-file", "1")
    done = bench("baseline", tmp_path / "corpus", *options)
    assert done.exit_code == 0, done.stderr
    assert [file.name for file in folder.iterdir()] == ["ridge-4000.npz"]
    plain = RidgeBaseline.load(baseline_path(folder, 4000.0))
    bench("baseline", tmp_path / "corpus", *options, "--mask")
    masked = RidgeBaseline.load(baseline_path(folder, 4000.0))
    assert not np.array_equal(plain.weights, masked.weights)
    refused = bench("baseline", tmp_path / "corpus", "--cutoff", "100")
    assert refused.exit_code == 2
    assert "must lie between" in refused.stderr


@pytest.mark.parametrize(
    "header",
    ["path,split", "path,split,domain", "path,split,domain,speaker_or_group"],
)
def test_a_manifest_needs_no_more_than_training_does(header: str, tmp_path: Path) -> None:
    rows = [header]
    for song in ("one", "two"):
        (tmp_path / song).mkdir()
        noise = swelling_noise(1.0, 3, 48000)
        soundfile.write(tmp_path / song / "mixture.wav", noise, 48000)
        facts = {"path": f"{song}/mixture.wav", "split": "valid", "domain": "jazz"}
        rows.append(",".join(facts.get(name, "x") for name in header.split(",")))
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    clips = list_clips(tmp_path)
    assert [clip.name for clip in clips] == ["unknown/one-mixture.wav", "unknown/two-mixture.wav"]
    assert all(clip.measured_cutoff_hz > 15000.0 for clip in clips)
    assert count_by_domain(clips) == {"unknown": 2}


def test_a_folder_needs_no_manifest(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, swelling_noise(1.0, number, 48000), 48000)
    assert list_clips(tmp_path)[0].domain == "unknown"


def test_a_recording_that_is_none_is_named_in_one_sentence(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    rows = "path,split,domain,measured_cutoff_hz\nbroken.wav,train,speech,9000\n"
    (tmp_path / "manifest.csv").write_text(rows)
    (tmp_path / "broken.wav").write_bytes(b"RIFF$\x00\x00\x00WAVE")
    done = bench("baseline", tmp_path, "--baselines", tmp_path / "fitted")
    assert done.exit_code == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"rtsr: Input file '{tmp_path / 'broken.wav'}' is damaged and ")


def test_the_loudest_part() -> None:
    samples = np.zeros(1000)
    samples[600:650] = 1.0
    part = loudest_part(samples, 50)
    assert part.size == 50
    assert part.sum() == 50
    np.testing.assert_array_equal(loudest_part(samples, 2000), samples)

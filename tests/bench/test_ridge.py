"""The floor: causal, level-true, silent in silence; and the validation set around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal as filters

from rtsr.errors import RtsrError
from rtsr.quality import evaluate
from rtsr_bench import validation
from rtsr_bench.ridge import RidgeFloor, degrade, frame_matrix, high_edges, low_edges, targets

RATE = 48000
CUTOFF = 4000.0


def swelling_noise(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """Noise that falls by 6 dB per octave and whose level wanders by some 20 dB."""
    random = np.random.default_rng(seed)
    samples = filters.lfilter([0.3], [1, -0.85], random.normal(size=int(seconds * rate)))
    steps = np.repeat(random.uniform(-2, 0, size=int(seconds * 5) + 1), rate // 5)[: samples.size]
    return 0.1 * samples * 10 ** (steps / 2)


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> RidgeFloor:
    folder = tmp_path_factory.mktemp("train")
    files = []
    for seed in range(4):
        files.append(folder / f"{seed}.wav")
        soundfile.write(files[-1], swelling_noise(4.0, seed), RATE, subtype="PCM_16")
    return RidgeFloor.fit(files, CUTOFF)


def test_it_learns_the_level_of_what_it_cannot_hear(floor: RidgeFloor) -> None:
    truth = swelling_noise(4.0, 99)
    names = ["lsd_near", "hf_bias_db", "hf_envelope_db", "lf_sisdr", "lf_gain_db"]
    values = evaluate(truth, floor.enhance(degrade(truth, CUTOFF)), CUTOFF, names)
    assert abs(values["hf_bias_db"]) < 1.0
    assert values["hf_envelope_db"] < 2.0
    # the distance of two independent noises of one level is 0.79
    assert values["lsd_near"] < 0.95
    assert values["lf_sisdr"] > 35
    assert abs(values["lf_gain_db"]) < 0.05


def test_the_future_changes_nothing_in_the_past(floor: RidgeFloor) -> None:
    narrow = degrade(swelling_noise(1.0, 5), CUTOFF)
    changed = narrow.copy()
    changed[24000:] = np.random.default_rng(1).normal(size=24000) * 0.1
    # a frame that ends at sample s writes back to s - 600
    np.testing.assert_array_equal(
        floor.high_band(narrow)[: 24000 - 600], floor.high_band(changed)[: 24000 - 600]
    )
    assert not np.allclose(floor.high_band(narrow)[24000:], floor.high_band(changed)[24000:])


def test_silence_stays_silent_and_seeds_repeat(floor: RidgeFloor) -> None:
    assert not floor.high_band(np.zeros(9600)).any()
    narrow = degrade(swelling_noise(0.5, 6), CUTOFF)
    np.testing.assert_array_equal(floor.enhance(narrow, 3), floor.enhance(narrow, 3))
    assert not np.array_equal(floor.enhance(narrow, 3), floor.enhance(narrow, 4))


@pytest.mark.parametrize("samples", [1, 479, 480, 481, 4801])
def test_any_length_comes_out_at_its_own(floor: RidgeFloor, samples: int) -> None:
    assert floor.enhance(swelling_noise(1.0, 7)[:samples]).shape == (samples,)


def test_the_generated_band_stays_above_the_cutoff(floor: RidgeFloor) -> None:
    high = floor.high_band(degrade(swelling_noise(3.0, 8), CUTOFF))
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
    believed = RidgeFloor.fit(files, CUTOFF)
    masked = RidgeFloor.fit(files, CUTOFF, {str(files[1]): 9000.0})
    narrow = degrade(swelling_noise(1.0, 9), CUTOFF)
    top_believed, top_masked = (f.predict(narrow)[10:90, -3].mean() for f in (believed, masked))
    assert top_masked > top_believed + 1.0


def test_save_and_load(floor: RidgeFloor, tmp_path: Path) -> None:
    floor.save(tmp_path / "floor.npz")
    loaded = RidgeFloor.load(tmp_path / "floor.npz")
    assert loaded.cutoff_hz == CUTOFF
    assert loaded.level == floor.level
    np.testing.assert_array_equal(loaded.weights, floor.weights)
    (tmp_path / "text.npz").write_text("no")
    for path in ("text.npz", "none.npz"):
        with pytest.raises(RtsrError, match="is not a floor"):
            RidgeFloor.load(tmp_path / path)
    with pytest.raises(RtsrError, match="no files"):
        RidgeFloor.fit([], CUTOFF)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [
        "path,split,domain,source,licence,speaker_or_group,sample_rate,seconds,measured_cutoff_hz"
    ]
    for domain, rate in (("speech", 44100), ("music", 48000)):
        path = tmp_path / "corpus" / "valid" / domain / "clip.flac"
        path.parent.mkdir(parents=True)
        soundfile.write(path, swelling_noise(3.0, 20, rate), rate, subtype="PCM_16")
        rows.append(f"valid/{domain}/clip.flac,valid,{domain},s,CC0,g,{rate},3.0,20000")
    (tmp_path / "corpus" / "manifest.csv").write_text("\n".join(rows))
    return tmp_path / "corpus"


def test_validation_gives_enhancers_16_bit_files_and_judges_them(
    corpus: Path, tmp_path: Path, floor: RidgeFloor
) -> None:
    clips = validation.list_clips(corpus)
    seen = []

    def enhancer(source: Path, target: Path) -> None:
        info = soundfile.info(source)
        seen.append((info.samplerate, info.subtype))
        floor.enhance_file(source, target)

    def scores(f: validation.Enhancer | None) -> validation.Scores:
        return validation.validate(
            f, clips, tmp_path / "work", CUTOFF, metrics=["lsd", "lsd_near"], max_seconds=2.0
        )

    untouched, enhanced = scores(None), scores(enhancer)
    assert seen == [(8000, "PCM_16")] * 2
    assert set(enhanced.by_domain) == {"speech", "music"}
    assert set(enhanced.clips) == {"speech/clip", "music/clip"}
    for domain in enhanced.by_domain:
        assert enhanced.by_domain[domain]["lsd_near"] < untouched.by_domain[domain]["lsd_near"] / 3
    table = validation.markdown_table({"input": untouched, "floor": enhanced}, ["lsd"])
    assert table.count("\n") == 3
    assert "| floor |" in table


def test_validation_misses_what_was_not_written(corpus: Path, tmp_path: Path) -> None:
    clips = validation.list_clips(corpus)
    with pytest.raises(RtsrError, match="There is no file"):
        validation.validate(lambda *_: None, clips, tmp_path, CUTOFF, metrics=["lsd"])
    with pytest.raises(RtsrError, match="2 clips have no output"):
        validation.judge(validation.prepare_references(clips, tmp_path / "r"), {}, CUTOFF)
    with pytest.raises(RtsrError, match="has no recordings for the split 'train'"):
        validation.list_clips(corpus, "train")


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
    clips = validation.list_clips(tmp_path)
    assert [clip.name for clip in clips] == ["unknown/one-mixture.wav", "unknown/two-mixture.wav"]
    assert all(clip.measured_cutoff_hz > 15000.0 for clip in clips)
    scores = validation.validate(None, clips, tmp_path / "work", CUTOFF, metrics=["lsd"])
    assert set(scores.clips) == {clip.name for clip in clips}
    assert "unknown" in scores.by_domain


def test_a_folder_needs_no_manifest(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, swelling_noise(1.0, number, 48000), 48000)
    assert validation.list_clips(tmp_path)[0].domain == "unknown"


def test_the_loudest_part() -> None:
    samples = np.zeros(1000)
    samples[600:650] = 1.0
    part = validation.loudest_part(samples, 50)
    assert part.size == 50
    assert part.sum() == 50
    assert validation.loudest_part(samples, 2000) is samples

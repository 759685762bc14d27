"""Files and folders compared, pictures drawn, and the ``eval`` command around them."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from rtsr.cli.eval import eval_command
from rtsr.cli.metric_meanings import MEANINGS
from rtsr.errors import ArgumentError, AudioFormatError, MissingDependencyError, RtsrError
from rtsr.quality import METRICS, compare_files, compare_folders, medians
from rtsr.quality.audio import read_audio
from rtsr.quality.compare import audio_by_stem
from rtsr.quality.cutoff import measure_file_cutoff
from rtsr.quality.mismatch import find_mismatches
from rtsr.quality.spectrogram import level_picture, save_spectrograms

FAST = ["lsd", "lsd_near", "lf_gain_db"]


def write_noise(path: Path, rate: int = 48000, seconds: float = 1.0, gain: float = 1.0) -> Path:
    samples = np.random.default_rng(3).normal(size=int(rate * seconds)) * 0.05 * gain
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def band(seconds: float = 1.5, top_hz: float = 20000.0) -> np.ndarray:
    """The same noise up to a cutoff, as 48 kHz samples."""
    samples = np.random.default_rng(4).normal(size=int(48000 * seconds)) * 0.05
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(samples.size, 1 / 48000) > top_hz] = 0
    return np.fft.irfft(spectrum, samples.size)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    soundfile.write(tmp_path / "full.flac", band(), 48000, subtype="PCM_24")
    soundfile.write(tmp_path / "narrow.wav", band(top_hz=4000), 48000, subtype="PCM_16")
    return tmp_path / "full.flac", tmp_path / "narrow.wav"


def test_a_file_against_itself(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.wav", rate=44100)
    assert compare_files(path, path, 4000, FAST).metrics == {
        "lsd": 0.0,
        "lsd_near": 0.0,
        "lf_gain_db": pytest.approx(0.0, abs=1e-9),
    }


def test_files_with_different_channels_are_named(tmp_path: Path) -> None:
    mono = write_noise(tmp_path / "mono.wav")
    soundfile.write(tmp_path / "stereo.wav", np.zeros((48000, 2)), 48000)
    with pytest.raises(ArgumentError, match=r"stereo.wav' has 2 channel.*mono.wav' 1; they must"):
        compare_files(tmp_path / "stereo.wav", mono, 4000, FAST)


def test_files_of_two_rates_meet_at_48_khz(tmp_path: Path) -> None:
    import soxr

    original = band(2.0, 18000)
    at_44100 = soxr.resample(original, 48000, 44100, quality="VHQ")
    soundfile.write(tmp_path / "a.wav", original, 48000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", at_44100, 44100, subtype="FLOAT")
    values = compare_files(tmp_path / "b.wav", tmp_path / "a.wav", 8000, ["lf_sisdr", "lsd_near"])
    assert values.metrics["lf_sisdr"] > 60
    assert values.metrics["lsd_near"] < 0.02


def test_folders_are_paired_by_name(tmp_path: Path) -> None:
    for name in ("speech/one", "speech/two", "music/one", "music/alone"):
        write_noise(tmp_path / "reference" / f"{name}.flac")
    write_noise(tmp_path / "out" / "speech/one.wav")
    write_noise(tmp_path / "out" / "speech/two.wav", gain=0.1)
    write_noise(tmp_path / "out" / "music/one.wav", gain=0.1)
    seen: list[tuple[int, int]] = []
    result = compare_folders(
        tmp_path / "reference", tmp_path / "out", 4000, FAST, lambda *count: seen.append(count)
    )
    assert [pair.name for pair in result.files] == ["music/one", "speech/one", "speech/two"]
    assert result.unmatched == ["music/alone"]
    assert result.median["lf_gain_db"] == pytest.approx(-20, abs=0.01)
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".au", ".opus"])
def test_folders_have_every_format_that_is_enhanced(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"call{suffix}").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("none")
    assert list(audio_by_stem(tmp_path)) == ["call"]


def test_folders_that_cannot_be_paired(tmp_path: Path) -> None:
    write_noise(tmp_path / "reference" / "a.wav")
    write_noise(tmp_path / "out" / "b.wav")
    with pytest.raises(RtsrError, match="partner of the same name"):
        compare_folders(tmp_path / "reference", tmp_path / "out", 4000, FAST)
    write_noise(tmp_path / "out" / "b.flac")
    with pytest.raises(RtsrError, match="which one is meant"):
        compare_folders(tmp_path / "reference", tmp_path / "out", 4000, FAST)
    with pytest.raises(RtsrError, match="no folder"):
        compare_folders(tmp_path / "reference", tmp_path / "nowhere", 4000, FAST)


def test_a_pair_that_cannot_be_compared_is_left_out_and_named(tmp_path: Path) -> None:
    for folder in ("reference", "out"):
        for name in ("good", "nested/short", "stereo", "text"):
            write_noise(tmp_path / folder / f"{name}.wav")
    samples, rate = soundfile.read(tmp_path / "out/good.wav")
    soundfile.write(tmp_path / "out/nested/short.wav", samples[:200], rate)
    soundfile.write(tmp_path / "out/stereo.wav", np.stack([samples, samples], 1), rate)
    (tmp_path / "out/text.wav").write_text("no sound")
    arguments = (tmp_path / "reference", tmp_path / "out", "--cutoff", 4000, "--metrics", "lsd")
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "1 pair(s)" in result.stdout
    for name in ("nested/short", "stereo", "text"):
        assert f"left out '{name}': " in result.stderr
    found = json.loads(invoke(*arguments, "--json").stdout)
    assert [one["name"] for one in found["files"]] == ["good"]
    assert list(found["failed"]) == ["nested/short", "stereo", "text"]
    (tmp_path / "out/good.wav").unlink()
    with pytest.raises(RtsrError, match="None of the 3 pairs can be compared; 'nested/short': "):
        compare_folders(*arguments[:2], 4000, ["lsd"])


def test_surround_is_compared_channel_by_channel(tmp_path: Path) -> None:
    voice = soundfile.read(write_noise(tmp_path / "mono.wav"))[0][:48000]
    sound = voice[:, None] * np.array([1.0, 0.0, 0.5, 0.0, 0.0, 0.0])
    soundfile.write(tmp_path / "a.wav", sound, 48000)
    # Vorbis has the centre, third in WAV files, second.
    soundfile.write(tmp_path / "b.ogg", sound[:, [0, 2, 1, 4, 5, 3]], 48000)
    difference = read_audio(tmp_path / "a.wav") - read_audio(tmp_path / "b.ogg")
    assert np.abs(difference[:, 1]).max() < 0.01 * np.abs(voice).max()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = write_noise(tmp_path / "good.wav")
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0), 48000)
    infinite = tmp_path / "infinite.wav"
    soundfile.write(infinite, np.full(4800, np.inf), 48000, subtype="FLOAT")
    for bad, reason in (
        (tmp_path / "none.wav", "There is no file"),
        (text, "cannot be read as audio"),
        (empty, "no samples"),
        (infinite, "NaN or infinite"),
    ):
        with pytest.raises(AudioFormatError, match=reason):
            compare_files(good, bad, 4000, FAST)


def test_medians_leave_out_what_is_not_defined() -> None:
    rows = [{"a": 1.0, "b": math.nan}, {"a": 3.0, "b": math.nan}, {"a": math.nan, "b": math.nan}]
    result = medians(rows)
    assert result["a"] == 2.0
    assert math.isnan(result["b"])


@pytest.mark.parametrize("rate", [8000, 48000])
def test_the_cutoff_is_measured_on_the_input(tmp_path: Path, rate: int) -> None:
    import soxr

    narrow = soxr.resample(soxr.resample(band(3.0), 48000, 8000), 8000, rate)
    soundfile.write(tmp_path / "in.wav", narrow, rate, subtype="PCM_16")
    assert measure_file_cutoff(tmp_path / "in.wav") == pytest.approx(4000, rel=0.05)


def test_a_silent_input_has_no_cutoff(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 8000)
    with pytest.raises(RtsrError, match="--cutoff"):
        measure_file_cutoff(tmp_path / "silence.wav")


def test_levels_of_the_picture_are_those_of_a_full_scale_sine() -> None:
    level, hop = level_picture(np.sin(2 * np.pi * 6000 * np.arange(48000) / 48000))
    assert level.shape[0] == 1025
    assert level.shape[1] == 1 + 48000 // hop
    assert level[256, 10:-10] == pytest.approx(0.0, abs=0.01)
    assert level[900, 10:-10].max() == -100.0
    assert level_picture(np.zeros(48000 * 120))[0].shape[1] <= 3001


def test_without_matplotlib_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "rtsr\[eval\]"'):
        save_spectrograms(tmp_path / "x.png", [("a", np.zeros(4800))], title="t")


def test_without_soxr_only_other_rates_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    at_48k, at_16k = write_noise(tmp_path / "a.wav"), write_noise(tmp_path / "b.wav", rate=16000)
    assert compare_files(at_48k, at_48k, 4000, ["lsd"]).metrics["lsd"] == 0.0
    with pytest.raises(MissingDependencyError, match=r'16000 Hz.*pip install "rtsr\[eval\]"'):
        compare_files(at_48k, at_16k, 4000, ["lsd"])


def invoke(*arguments: object) -> Any:
    app = typer.Typer()
    app.command("eval")(eval_command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(*arguments: object) -> str:
    return str(invoke(*arguments).stdout)


def test_command_with_json(pair: tuple[Path, Path]) -> None:
    answer = json.loads(
        run(*pair, "--cutoff", 4000, "--metrics", "lsd_near,silence_dbfs", "--json")
    )
    (file,) = answer["files"]
    assert answer["cutoff_hz"] == 4000
    assert file["name"] == "narrow"
    assert file["metrics"]["lsd_near"] > 3
    assert file["metrics"]["silence_dbfs"] is None
    assert answer["median"] == file["metrics"]
    assert answer["unmatched"] == []


def test_command_with_tables(pair: tuple[Path, Path], tmp_path: Path) -> None:
    one = run(*pair, "--cutoff", 4000, "--metrics", "lsd_near,lf_sisdr")
    assert "lsd_near" in one
    assert "lf_sisdr" in one
    assert "mel_hf" not in one
    for name in ("a", "b"):
        write_noise(tmp_path / "reference" / f"{name}.wav")
        write_noise(tmp_path / "out" / f"{name}.wav")
    many = run(tmp_path / "reference", tmp_path / "out", "--cutoff", 4000, "--metrics", "lsd")
    assert many.count("median") == 1
    assert "0.000" in many
    # levels have a table of their own, so that their names can be read
    wide = run(tmp_path / "reference", tmp_path / "out", "--cutoff", 4000)
    assert wide.count("median") == 2
    assert "level_wander_loud_db" in wide


def test_command_takes_the_cutoff_from_the_input_and_draws(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.png"
    reference, narrow = pair
    answer = json.loads(
        run(
            reference, reference, "--input", narrow, "--metrics", "lsd", "--json", "--plot", picture
        )
    )
    assert answer["cutoff_hz"] == pytest.approx(4000, rel=0.05)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20000


def test_files_that_do_not_belong_together_are_pointed_out(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    reference, narrow = pair
    other = write_noise(tmp_path / "other.wav", seconds=2.5)
    result = invoke(reference, other, "--cutoff", 4000, "--metrics", "lsd")
    assert "other is 1.00 s longer than the original" in result.stderr
    assert "other is not the same sound as the original below the cutoff" in result.stderr
    answer = json.loads(run(reference, other, "--cutoff", 4000, "--metrics", "lsd", "--json"))
    assert len(answer["files"][0]["mismatches"]) == 2
    assert "warning" not in invoke(reference, narrow, "--cutoff", 4000, "--metrics", "lsd").stderr


def test_an_original_that_is_narrow_itself_is_pointed_out(pair: tuple[Path, Path]) -> None:
    reference, narrow = pair
    result = invoke(narrow, reference, "--cutoff", 4000, "--metrics", "lsd")
    assert "Hz, so that the scores mean nothing" in result.stderr


def test_a_delay_a_gain_and_a_lost_low_band_are_told_apart() -> None:
    reference = band(2.0)[:, np.newaxis]
    late = np.concatenate([np.zeros((4000, 1)), 0.1 * reference])
    assert find_mismatches(reference, late, 4000.0) == []
    noisy = reference + np.random.default_rng(9).normal(size=reference.shape) * 0.05
    assert find_mismatches(reference, noisy, 4000.0) == []
    (silent,) = find_mismatches(reference, np.zeros_like(reference), 4000.0)
    assert "correlation 0.00" in silent
    (cut,) = find_mismatches(reference, reference[:48000], 4000.0)
    assert cut.startswith("1.00 s shorter than the original")
    assert find_mismatches(np.zeros_like(reference), reference, 4000.0) == []


def test_command_says_why_there_is_no_visqol(tmp_path: Path) -> None:
    pytest.importorskip("visqol")
    short = write_noise(tmp_path / "short.wav", seconds=0.5)
    result = invoke(short, short, "--cutoff", 4000, "--metrics", "visqol,lsd")
    assert "visqol needs at least 1 s of sound" in result.stderr


def test_every_metric_has_a_meaning_that_stands_alone() -> None:
    assert tuple(MEANINGS) == METRICS
    for meaning in MEANINGS.values():
        assert not re.search(r"the same|^(it|they|that|how (that|far they))\b", meaning.text)
    text = run("--help")
    for name in METRICS:
        assert name in text.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "--cutoff HZ"),
        (("--cutoff", 100), "must lie between"),
        (("--cutoff", 4000, "--metrics", "loudness"), "no metric named 'loudness'"),
        (("--cutoff", 4000, "--plot", "/nowhere/at/all.png"), "no folder"),
        (("--cutoff", 4000, "--plot", "picture.foo"), "ends in .png"),
    ],
)
def test_command_refuses_in_one_sentence(
    pair: tuple[Path, Path], arguments: tuple[object, ...], reason: str
) -> None:
    with pytest.raises(RtsrError, match=reason):
        run(*pair, *arguments)


def test_command_refuses_a_file_and_a_folder(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RtsrError, match="a folder and a file"):
        run(pair[0], tmp_path, "--cutoff", 4000)
    with pytest.raises(RtsrError, match="two files instead"):
        run(tmp_path, tmp_path, "--cutoff", 4000, "--plot", tmp_path / "a.png")

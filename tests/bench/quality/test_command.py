"""The command on a corpus of the packaged recordings: from clips to a report on disk."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import soundfile
from typer.testing import CliRunner

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("soxr")
pytest.importorskip("visqol")
pytest.importorskip("matplotlib")

from rtsr.cli import app as application
from rtsr.errors import ArgumentError, RtsrError
from rtsr.quality.band_levels import BAND_LEVELS
from rtsr_bench.corpus import list_clips
from rtsr_bench.quality import jobs, systems
from rtsr_bench.quality.baseline import RidgeBaseline
from rtsr_bench.quality.systems import BASELINE, INPUT, at_full_precision, choose_systems

DEMO = Path(str(resources.files("rtsr").joinpath("demo_data")))
SECONDS = 1.5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of speech, two of music (one of them the same), none of effects."""
    folder = tmp_path_factory.mktemp("corpus")
    fields = ["path", "split", "domain", "speaker_or_group", "sample_rate", "seconds",
              "measured_cutoff_hz"]  # fmt: skip
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, fields)
        rows.writeheader()
        for name, domain in (("one", "speech"), ("two", "music"), ("two2", "music")):
            shutil.copy(DEMO / f"{domain}_reference.flac", folder / f"{name}.flac")
            values = (f"{name}.flac", "valid", domain, name, 48000, 5.0, 20000)
            rows.writerow(dict(zip(fields, values, strict=True)))
    return folder


def run(corpus: Path, out: Path, *more: str) -> Any:
    arguments = [str(corpus), "--out", str(out), "--work", str(out.parent / "work"), "--jobs", "1"]
    with pytest.MonkeyPatch.context() as here:
        # Baselines are looked for in the present folder if none are named.
        here.chdir(corpus.parent)
        words = ["bench", "quality", *arguments, "--seconds", str(SECONDS), *more]
        here.setattr(sys, "argv", ["rtsr", *words])
        return CliRunner().invoke(application.app, words)


def scores(out: Path, place: int = 0) -> Any:
    """By cutoff and system, of one of the corpora."""
    return json.loads((out / "quality.json").read_text())["corpora"][place]["cutoffs"]


@pytest.fixture(scope="module")
def made(corpus: Path, stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on input, replicate and a stand-in for a network, one clip of each domain."""
    out = tmp_path_factory.mktemp("made") / "report"
    options = ["--cutoff", "4000", "--cutoff", "8000", "--limit", "1", "--model", str(stand_in)]
    result = run(corpus, out, *options, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((out / "quality.json").read_text())
    return out


def test_the_report_holds_every_system_at_every_cutoff(made: Path) -> None:
    report = json.loads((made / "quality.json").read_text())
    names = ["input", "replicate", "stand-in"]
    assert list(report["systems"]) == names
    (scored,) = report["corpora"]
    assert {key: list(rows) for key, rows in scored["cutoffs"].items()} == {
        "4000": names,
        "8000": names,
    }
    assert scored["clips"] == {"speech": 1, "music": 1}
    for rows in scored["cutoffs"].values():
        for row in rows.values():
            assert set(row["by_domain"]) == {"speech", "music"}
            assert set(row["clips"]) == {"speech/one", "music/two"}
        input_, replicate = (rows[name]["by_domain"]["speech"] for name in names[:2])
        assert replicate["lsd"] < input_["lsd"]
        assert replicate["visqol"] > input_["visqol"]
        assert input_["hf_bias_db"] < -20.0
        assert replicate["level_bias_db"] < input_["level_bias_db"]
    at_8, at_16 = (
        scored["cutoffs"][key]["input"]["by_domain"]["music"] for key in ("4000", "8000")
    )
    assert at_16["lsd"] < at_8["lsd"]


def test_streams_without_a_difference_and_says_so(made: Path) -> None:
    facts = json.loads((made / "quality.json").read_text())["systems"]
    for name in ("replicate", "stand-in"):
        assert facts[name]["streaming"] == {"8000": 0.0, "16000": 0.0}
    assert facts["input"]["streaming"] == {}
    (row,) = (
        line
        for line in (made / "quality.md").read_text().splitlines()
        if line.startswith("| stand-in | fp32 |")
    )
    assert row.split(" | ")[-2] == "0"


def test_a_stream_that_depends_on_its_blocks_is_found(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = systems.Upsampler.process

    def uneven(self: Any, block: Any) -> Any:
        return process(self, block) + 1e-4 * (len(block) == 37)

    monkeypatch.setattr(systems.Upsampler, "process", uneven)
    speed, difference = systems.stream_part(str(stand_in), DEMO / "speech_8k.wav")
    assert speed > 0.0
    assert difference == pytest.approx(1e-4, rel=1e-2)


def test_costs_are_those_of_the_files(made: Path, stand_in: Path) -> None:
    facts = json.loads((made / "quality.json").read_text())["systems"]
    assert facts["stand-in"]["file_bytes"] == stand_in.stat().st_size
    assert facts["stand-in"]["latency_ms"]["8000"] > facts["stand-in"]["latency_ms"]["16000"]
    assert facts["replicate"]["parameters"] > 10000
    assert facts["input"]["parameters"] is None
    for name in ("replicate", "stand-in"):
        assert all(value > 0.0 for value in facts[name]["real_time"].values())


def test_pictures_are_there_and_linked(made: Path) -> None:
    text = (made / "quality.md").read_text()
    files = {path.name for path in made.iterdir()}
    drawn = {name for name in files if name.endswith(".png")}
    assert drawn == {"spectrogram-speech-one.png", "spectrogram-music-two.png"}
    assert files == drawn | {"quality.md", "quality.json"}
    assert all(f"({name})" in text for name in drawn)


def test_no_path_of_the_machine_is_published(made: Path, corpus: Path) -> None:
    for name in ("quality.md", "quality.json"):
        text = (made / name).read_text()
        assert str(corpus) not in text
        assert str(made.parent) not in text
        command = (
            f"rtsr bench quality {corpus.name} --out report --work work --jobs 1 --seconds 1.5"
        )
        assert f"{command} --cutoff 4000 --cutoff 8000 --limit 1 --model stand-in.onnx" in text


@pytest.mark.slow
def test_a_second_report_computes_nothing_again(
    corpus: Path, made: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise AssertionError("was computed again")

    monkeypatch.setattr(jobs.ClipJob, "run", fail)
    out = made.parent / "again"
    options = ["--cutoff", "4000", "--limit", "1", "--model", str(stand_in)]
    result = run(corpus, out, *options)
    assert result.exit_code == 0, result.output
    assert scores(out)["4000"] == scores(made)["4000"]
    # without --json the page itself is printed
    assert result.stdout.startswith("# Quality report")


def test_a_part_of_the_report_computes_nothing_again(
    corpus: Path, made: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.ClipJob, "run", None)
    out = made.parent / "part"
    options = ["--cutoff", "8000", "--limit", "1", "--model", str(stand_in), "--tables-only"]
    result = run(corpus, out, *options, "--domain", "music")
    assert result.exit_code == 0, result.output
    whole, part = scores(made)["8000"], scores(out)["8000"]
    for name, row in part.items():
        assert row["clips"] == {"music/two": whole[name]["clips"]["music/two"]}
    # no pictures, no times
    assert {path.name for path in out.iterdir()} == {"quality.json", "quality.md"}
    assert "--domain music" in result.stdout
    assert "The baseline is left out" in result.stderr
    assert "'rtsr bench baseline CORPUS --cutoff 8000'" in result.stderr


@pytest.mark.slow
def test_several_corpora_with_a_floor_and_clips_that_cannot_be_judged(
    corpus: Path, tmp_path: Path
) -> None:
    """One clip was lost, one is too short for any metric and one for ViSQOL alone."""
    other = tmp_path / "recordings"
    shutil.copytree(corpus, other)
    samples, rate = soundfile.read(DEMO / "music_reference.flac")
    for name, seconds in (("blip", 0.1), ("brief", 0.6)):
        soundfile.write(other / f"{name}.flac", samples[rate : rate + int(seconds * rate)], rate)
    with (other / "manifest.csv").open("a", encoding="utf-8") as file:
        for name in ("lost", "blip", "brief"):
            file.write(f"{name}.flac,valid,effects,{name},48000,1.0,20000\n")
    (tmp_path / "baselines").mkdir()
    RidgeBaseline.fit([corpus / "one.flac"], 4000.0, seconds_per_file=1.0).save(
        tmp_path / "baselines" / "ridge-4000.npz"
    )
    out = tmp_path / "report"
    result = run(other, out, str(corpus), "--cutoff", "4000", "--limit", "3", "--model",
                 "replicate", "--tables-only", "--metrics", "visqol,lsd,band_levels")  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((out / "quality.json").read_text())
    assert [part["name"] for part in report["corpora"]] == ["recordings", corpus.name]
    assert report["corpora"][0]["clips"] == {"speech": 1, "effects": 1, "music": 2}
    assert list(scores(out)["4000"]) == ["input", "ridge", "ridge-bare", "replicate"]
    assert list(scores(out, 1)["4000"]) == list(scores(out)["4000"])
    brief = scores(out)["4000"]["replicate"]["clips"]["effects/brief"]
    assert brief["visqol"] is None
    assert brief["level_bias_db"] > 0.0
    assert set(brief) == {"visqol", "lsd", *BAND_LEVELS}
    page = (out / "quality.md").read_text()
    assert page.index("## recordings, input cutoff 4 kHz") < page.index(f"## {corpus.name}, input")
    assert "- `effects/lost` of recordings: the file is missing" in page
    assert "- `effects/blip` of recordings: 0.10 s long, at least 0.25 s are needed" in page
    assert "with less than 1 s of sound, of recordings: `effects/brief`" in page
    assert "## Better than `ridge-bare`" in page


@pytest.mark.slow
def test_conditions_are_judged(corpus: Path, made: Path, stand_in: Path) -> None:
    pytest.importorskip("av")
    out = made.parent / "conditions"
    options = ["--cutoff", "8000", "--limit", "1", "--model", str(stand_in), "--conditions"]
    result = run(corpus, out, *options)
    assert result.exit_code == 0, result.output
    part = json.loads((out / "quality.json").read_text())["conditions"]
    assert list(part["scores"]) == ["input", "replicate", "stand-in"]
    for by_condition in part["scores"].values():
        assert list(by_condition) == list(part["titles"])
    found = {key: row["by_domain"]["speech"] for key, row in part["scores"]["input"].items()}
    assert found["8k"]["lf_sisdr"] > found["mu-law"]["lf_sisdr"] > found["opus-8k"]["lf_sisdr"]
    assert "Largest loss against the first row" in (out / "quality.md").read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cutoff", "5000"], "rtsr takes none of 10000 Hz"),
        (["--cutoff", "100"], "must lie between"),
        (["--model", "large"], "'large' is unknown"),
        (["--baselines", "nowhere"], "is not a baseline"),
        (["--metrics", "loudness"], "no metric named 'loudness'"),
        (["--domain", "effects"], "has no valid clips of effects"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    corpus: Path, stand_in: Path, tmp_path: Path, options: list[str], sentence: str
) -> None:
    options = [str(stand_in) if option == "FILE" else option for option in options]
    result = run(corpus, tmp_path / "report", *options)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not list(tmp_path.rglob("quality.*"))


def test_a_folder_that_cannot_be_made_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(corpus, tmp_path / "file" / "report")
    assert result.exit_code == 2
    assert "cannot be made" in result.stderr


def test_systems_are_told_apart_by_their_weights(
    corpus: Path, stand_in: Path, failing_model: Path, tmp_path: Path
) -> None:
    names = [system.name for system in choose_systems(None, None, [4000.0])]
    assert names[:2] == ["input", "replicate"]
    one, other = (
        choose_systems([str(path)], None, [4000.0])[-1] for path in (stand_in, failing_model)
    )
    assert one.digest != other.digest
    twin = tmp_path / "replicate.onnx"
    shutil.copy(stand_in, twin)
    with pytest.raises(ArgumentError, match="would be called 'replicate'"):
        choose_systems([str(twin)], None, [4000.0])
    precise, rough = tmp_path / "net.onnx", tmp_path / "net-int8.onnx"
    shutil.copy(stand_in, precise)
    shutil.copy(stand_in, rough)
    both = choose_systems([str(rough), str(precise)], None, [4000.0])
    assert [system.name for system in at_full_precision(both)] == ["input", "replicate", "net"]
    alone = choose_systems([str(rough)], None, [4000.0])
    assert at_full_precision(alone) == alone


def test_the_floor_stands_in_front_of_what_must_beat_it(corpus: Path, tmp_path: Path) -> None:
    clips = list_clips(corpus)
    RidgeBaseline.fit([clips[0].path], 4000.0, seconds_per_file=1.0).save(
        tmp_path / "ridge-4000.npz"
    )
    systems = choose_systems([], tmp_path, [4000.0])
    assert [system.kind for system in systems[:3]] == [INPUT, BASELINE, BASELINE]
    assert [system.name for system in systems[1:3]] == ["ridge", "ridge-bare"]
    assert systems[1].digest != systems[2].digest
    narrow = DEMO / "speech_8k.wav"
    outputs = [system.enhance(narrow, tmp_path, 4000.0) for system in systems[:3]]
    assert outputs[0] == narrow
    assert outputs[1].stat().st_size > 48000
    assert outputs[1].read_bytes() != outputs[2].read_bytes()
    with pytest.raises(RtsrError, match="is not a baseline"):
        choose_systems([], tmp_path, [4000.0, 8000.0])


@pytest.mark.slow
def test_processes_work_side_by_side_under_python_m(corpus: Path, tmp_path: Path) -> None:
    """Spawned processes import the program's main module again, which must not run it again."""
    out = tmp_path / "report"
    command = [sys.executable, "-m", "rtsr", "bench", "quality", str(corpus), "--out", str(out)]
    command += ["--cutoff", "4000", "--model", "replicate", "--metrics", "lsd", "--tables-only"]
    command += ["--seconds", "1", "--jobs", "2", "--work", str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("# Quality report") == 1
    found = scores(out)["4000"]["replicate"]["clips"]
    assert set(found) == {"speech/one", "music/two", "music/two2"}

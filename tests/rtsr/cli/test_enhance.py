"""``rtsr enhance`` with several files and folders, with any file name, and with useless bands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rtsr.cli import app as application
from rtsr.cli.enhance_files import Job, plan_jobs
from rtsr.errors import ArgumentError, AudioFormatError


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def _sound(path: Path, seconds: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(8000 * seconds), 0.1), 8000)
    return path


def test_two_paths_are_a_file_and_the_file_to_write(tmp_path: Path) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.flac"
    assert plan_jobs([source, target], None) == [Job(source, target)]


def test_a_folder_is_read_with_its_sub_folders_and_without_its_own_results(tmp_path: Path) -> None:
    first, second = _sound(tmp_path / "in/a.wav"), _sound(tmp_path / "in/deep/b.FLAC")
    (tmp_path / "in/notes.txt").write_text("no sound")
    _sound(tmp_path / "in/out/a.wav")
    out = tmp_path / "in/out"
    expected = [Job(first, out / "a.wav"), Job(second, out / "deep/b.FLAC")]
    assert plan_jobs([tmp_path / "in", out], None) == expected
    assert plan_jobs([tmp_path / "in"], out) == expected


def test_a_folder_is_not_written_into_itself(tmp_path: Path) -> None:
    folder = _sound(tmp_path / "in/a.wav").parent
    (tmp_path / "link").symlink_to(folder)
    for output in (folder, tmp_path / "link"):
        with pytest.raises(ArgumentError, match="written into itself"):
            plan_jobs([folder, output], None)


def test_a_folder_may_lie_in_the_one_to_write_into(tmp_path: Path) -> None:
    source = _sound(tmp_path / "all/raw/a.wav")
    expected = [Job(source, tmp_path / "all/a.wav")]
    assert plan_jobs([tmp_path / "all/raw", tmp_path / "all"], None) == expected


def test_no_result_replaces_another_source(tmp_path: Path) -> None:
    for name in ("all/raw/a.wav", "all/raw/raw/a.wav"):
        _sound(tmp_path / name)
    with pytest.raises(ArgumentError, match="would replace"):
        plan_jobs([tmp_path / "all/raw", tmp_path / "all"], None)


def test_a_link_to_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    folder = _sound(tmp_path / "in/a.wav").parent
    (folder / "b.wav").symlink_to("nowhere.wav")
    jobs = plan_jobs([folder, tmp_path / "out"], None)
    assert [job.source.name for job in jobs] == ["a.wav", "b.wav"]


@pytest.mark.parametrize("count", [1, 3], ids=["one path", "three paths"])
def test_without_a_place_to_write_nothing_is_done(tmp_path: Path, count: int) -> None:
    with pytest.raises(ArgumentError, match="several files with --out-dir"):
        plan_jobs([_sound(tmp_path / f"{index}.wav") for index in range(count)], None)


def test_two_results_of_one_name_are_refused(tmp_path: Path) -> None:
    files = [_sound(tmp_path / folder / "a.wav") for folder in ("x", "y")]
    with pytest.raises(ArgumentError, match="would both be written to"):
        plan_jobs(files, tmp_path / "out")


def test_what_is_written_as_flac_leaves_a_flac_of_its_name_alone(tmp_path: Path) -> None:
    files = [_sound(tmp_path / "in/a.flac"), tmp_path / "in/a.m4a", tmp_path / "in/b.m4a"]
    for path in files[1:]:
        path.touch()
    out = tmp_path / "out"
    expected = [
        Job(path, out / name)
        for path, name in zip(files, ("a.flac", "a.m4a.flac", "b.flac"), strict=True)
    ]
    assert plan_jobs([tmp_path / "in", out], None) == expected


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = _sound(tmp_path / "a.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioFormatError, match="holds no sound file"):
        plan_jobs([tmp_path / "empty", tmp_path / "out"], None)
    with pytest.raises(ArgumentError, match="give two folders"):
        plan_jobs([tmp_path / "empty", file], None)
    with pytest.raises(ArgumentError, match="names one to write into"):
        plan_jobs([file], file)
    with pytest.raises(ArgumentError, match="empty' is a folder; --out-dir"):
        plan_jobs([file, tmp_path / "empty"], None)


def test_no_folder_is_made_with_the_name_of_a_sound_file(tmp_path: Path) -> None:
    file, named = _sound(tmp_path / "in/a.wav"), tmp_path / "x.wav"
    for arguments in (([tmp_path / "in", named], None), ([file], named)):
        with pytest.raises(ArgumentError, match="would be a folder with the name"):
            plan_jobs(*arguments)
    named.mkdir()
    assert plan_jobs([tmp_path / "in", named], None)[0].target == named / "a.wav"


def test_a_file_that_fails_does_not_stop_the_others(
    tmp_path: Path, stand_in: Path, runner: CliRunner
) -> None:
    first, last = _sound(tmp_path / "in/a.wav"), _sound(tmp_path / "in/deep/c.wav")
    (tmp_path / "in/b.wav").write_text("no sound")
    out = tmp_path / "made" / "out"
    arguments = ["enhance", str(tmp_path / "in"), str(out), "--model", str(stand_in), "--json"]
    result = runner.invoke(application.app, arguments)
    assert result.exit_code == 2
    assert [json.loads(line)["output"] for line in result.stdout.splitlines()] == [
        str(out / "a.wav"),
        str(out / "deep/c.wav"),
    ]
    complaint, summary = result.stderr.splitlines()
    assert "b.wav" in complaint
    assert summary == "rtsr: 1 of 3 files could not be enhanced."
    for source in (first, last):
        made = out / source.relative_to(tmp_path / "in")
        assert soundfile.info(made).frames == 4800
    assert not (out / "b.wav").exists()


def test_what_is_said_of_one_of_several_files_names_it_once(
    tmp_path: Path, stand_in: Path, runner: CliRunner
) -> None:
    odd, cut = tmp_path / "odd.wav", tmp_path / "cut.wav"
    soundfile.write(odd, np.zeros(800), 37000)
    cut.write_bytes(_sound(tmp_path / "whole.wav").read_bytes()[:-400])
    arguments = ["enhance", str(odd), str(cut), "-o", str(tmp_path / "out"), "--quiet"]
    result = runner.invoke(application.app, [*arguments, "--model", str(stand_in)])
    refused, warning, _ = result.stderr.splitlines()
    assert refused.startswith(f"rtsr: '{odd}': A sample rate of 37000 Hz is not supported")
    assert warning.startswith(f"rtsr: Input file '{cut}' is truncated")


def test_several_files_go_into_one_folder(
    tmp_path: Path, stand_in: Path, runner: CliRunner
) -> None:
    files = [str(_sound(tmp_path / name)) for name in ("a.wav", "b.flac")]
    out = tmp_path / "out"
    arguments = ["enhance", *files, "--out-dir", str(out), "--model", str(stand_in), "--quiet"]
    result = runner.invoke(application.app, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["a.wav", "b.flac"]


def test_a_second_recording_is_not_taken_for_the_output(
    runner: CliRunner, tmp_path: Path, stand_in: Path
) -> None:
    first, second = _sound(tmp_path / "a.wav"), _sound(tmp_path / "b.wav")
    before = second.read_bytes()
    command = ["enhance", str(first), str(second), "--model", str(stand_in)]
    refused = runner.invoke(application.app, command)
    assert refused.exit_code == 2
    assert "exists already; --overwrite replaces it" in refused.stderr
    assert second.read_bytes() == before
    assert runner.invoke(application.app, [*command, "-y"]).exit_code == 0
    assert soundfile.info(second).samplerate == 48000


def test_a_file_to_keep_what_is_learnt_in_is_for_live(runner: CliRunner, tmp_path: Path) -> None:
    source, out = _sound(tmp_path / "a.wav"), tmp_path / "b.wav"
    command = ["enhance", str(source), str(out), "--colour", "auto:me.json"]
    refused = runner.invoke(application.app, command)
    assert refused.exit_code == 2
    assert "Only `rtsr live` and `rtsr call sip` keep what they learn" in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file names are any bytes on Linux only")
def test_a_name_that_is_not_utf_8_is_a_name(tmp_path: Path, stand_in: Path) -> None:
    folder = os.fsencode(tmp_path)
    os.rename(_sound(tmp_path / "in.wav"), folder + b"/in\xff.wav")
    command = [sys.executable, "-m", "rtsr", "enhance", folder + b"/in\xff.wav"]
    command += [folder + b"/out\xff.wav", "--model", str(stand_in)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert folder + b"/out\xff.wav: 0.10 s" in done.stdout
    assert os.path.getsize(folder + b"/out\xff.wav") > 4800 * 2
    refused = subprocess.run(
        [*command[:4], folder + b"/none\xff.wav", folder + b"/out.wav"],
        capture_output=True,
        check=False,
    )
    assert refused.returncode == 2
    assert b"does not exist" in refused.stderr
    assert b"Traceback" not in refused.stderr


@pytest.mark.parametrize("command", ["enhance", "pipe"])
def test_a_ceiling_below_the_cutoff_is_refused(
    command: str, tmp_path: Path, runner: CliRunner
) -> None:
    places = [str(tmp_path / "in.wav"), str(tmp_path / "out.wav")]
    arguments = places if command == "enhance" else ["--rate", "8000"]
    result = runner.invoke(
        application.app, [command, *arguments, "--cutoff", "4000", "--ceiling", "3000"]
    )
    assert result.exit_code == 2
    assert "--ceiling 3000 Hz is not above --cutoff 4000 Hz" in result.stderr


def test_a_ceiling_within_the_measured_band_is_reported(
    tmp_path: Path, stand_in: Path, runner: CliRunner
) -> None:
    files = [str(_sound(tmp_path / "in.wav")), str(tmp_path / "out.wav")]
    arguments = ["enhance", *files, "--model", str(stand_in), "-qy", "--ceiling"]
    result = runner.invoke(application.app, [*arguments, "3000"])
    assert result.exit_code == 0
    assert "nothing was added" in result.stderr
    assert runner.invoke(application.app, [*arguments, "16000"]).stderr == ""


def test_what_was_added_before_the_content_reached_the_ceiling_counts(
    tmp_path: Path, stand_in: Path, runner: CliRunner, make_sound: Callable[..., np.ndarray]
) -> None:
    parts = [make_sound(48000, 4.0, cutoff=4000), make_sound(48000, 2.0, level=0.3)]
    soundfile.write(tmp_path / "in.wav", np.concatenate(parts), 48000)
    files = [str(tmp_path / "in.wav"), str(tmp_path / "out.wav")]
    arguments = ["enhance", *files, "--model", str(stand_in), "--ceiling", "12000", "--json"]
    result = runner.invoke(application.app, arguments)
    report = json.loads(result.stdout)
    assert report["input"]["cutoff_hz"] > 12000
    assert report["added_steps"] > 0
    assert result.stderr == ""


def test_what_libsndfile_cannot_read_is_pointed_to_a_pipe(
    tmp_path: Path, runner: CliRunner
) -> None:
    (tmp_path / "in.m4a").write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0" + bytes(64))
    result = runner.invoke(
        application.app, ["enhance", str(tmp_path / "in.m4a"), str(tmp_path / "out.wav")]
    )
    assert result.exit_code == 2
    assert "neither libsndfile nor FFmpeg (through PyAV) knows its format" in result.stderr


def test_every_metric_has_a_text(runner: CliRunner) -> None:
    from rtsr.quality import METRICS

    text = " ".join(runner.invoke(application.app, ["eval", "--help"]).stdout.split())
    assert all(name in text for name in METRICS)


def test_the_help_names_formats_that_are_read(runner: CliRunner) -> None:
    text = runner.invoke(application.app, ["--help"]).stdout
    assert "whatever its format" not in text
    assert "WAV, FLAC, Ogg, Opus or MP3" in text

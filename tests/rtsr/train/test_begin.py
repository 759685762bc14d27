"""What is refused before a recording is decoded: runs that cannot begin, go on, or be kept."""

from __future__ import annotations

import errno
import math
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from small_run import SMALLEST_CHANGES, TINY, corpus  # noqa: E402

from rtsr.cli.app import app  # noqa: E402
from rtsr.errors import RtsrError  # noqa: E402
from rtsr.train import data as data_module  # noqa: E402
from rtsr.train.begin import checkpoint_bytes  # noqa: E402
from rtsr.train.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from rtsr.train.lock import locked  # noqa: E402
from rtsr.train.trainer import CHECKPOINT, Trainer  # noqa: E402

SETTINGS = replace(TINY, model_changes=SMALLEST_CHANGES, steps=(1, 1, 1, 1))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings that must not be decoded, settings, and a run that has begun."""
    (tmp_path / "recordings").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "recordings" / name).touch()
    changes = "\n".join(f"{name} = {value}" for name, value in SMALLEST_CHANGES.items())
    (tmp_path / "tiny.toml").write_text(f"steps = [1, 1, 1, 1]\n[model_changes]\n{changes}\n")
    Trainer(SETTINGS, corpus(), corpus(), tmp_path / "begun", "cpu").save()
    monkeypatch.setattr(data_module, "load_corpus", lambda *_, **__: pytest.fail("it decodes"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*options: str) -> str:
    done = CliRunner().invoke(app, ["train", "recordings", "--config", "tiny.toml", *options])
    assert done.exit_code == 2, done.output
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "begun", "--model", "base"], "was trained with another model configuration"),
        (["--out", "begun", "--stage", "96"], "is trained for sound up to 24000 Hz, not 48000 Hz"),
        (["--out", "begun", "--grow-from", "begun/last.pt"], "did not begin with --grow-from"),
        (["--out", "begun", "--seed", "77"], "is a run that began with seed 1, not 77"),
        (["--out", "new", "--grow-from", "begun/last.pt"], "has not reached its refinement yet"),
        (["--out", "new", "--device", "tpu"], "There is no device 'tpu' here"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_anything_is_decoded(
    folder: Path, options: list[str], sentence: str
) -> None:
    assert sentence in refused(*options)
    assert not (folder / "new").exists()


def test_the_seed_of_the_settings_is_that_of_the_run_unless_an_option_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decodes(*_: object, **__: object) -> None:
        raise RtsrError("It came to decoding.")

    settings = (folder / "tiny.toml").read_text()
    (folder / "tiny.toml").write_text(f"seed = 77\n{settings}")
    said = refused("--out", "begun")
    assert "began with seed 1, not 77; leave --seed and 'seed' out or name 1 to go on" in said
    monkeypatch.setattr(data_module, "load_corpus", decodes)
    assert "It came to decoding." in refused("--out", "begun", "--seed", "1")


def test_a_folder_that_cannot_be_written_is_refused_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**named: Path) -> None:
        raise OSError(errno.EROFS, f"Read-only file system: {named['dir']}")

    monkeypatch.setattr(tempfile, "TemporaryFile", fails)
    assert "Nothing can be written to . (Read-only file system: .)" in refused("--out", "new/run")


@pytest.mark.parametrize(("out", "checkpoints"), [("new", 2), ("begun", 1)])
def test_a_disk_without_room_for_the_checkpoints_is_refused_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, out: str, checkpoints: int
) -> None:
    size = checkpoint_bytes(SETTINGS)
    if out == "begun":
        size = (folder / "begun" / CHECKPOINT).stat().st_size
    free = checkpoints * size - 1
    usage = shutil.disk_usage(folder)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert f"has {free / 1e6:.0f} MB free, and checkpoints need" in refused("--out", out)


def test_a_checkpoint_is_about_as_large_as_was_said(tmp_path: Path) -> None:
    Trainer(SETTINGS, corpus(), corpus(), tmp_path, "cpu").run(math.inf)
    size = (tmp_path / CHECKPOINT).stat().st_size
    assert checkpoint_bytes(SETTINGS) == pytest.approx(size, rel=0.25)


def test_a_run_that_goes_on_keeps_its_seed(tmp_path: Path) -> None:
    Trainer(replace(SETTINGS, seed=7), corpus(), corpus(), tmp_path, "cpu").save()
    again = Trainer(SETTINGS, corpus(), corpus(), tmp_path, "cpu")
    assert again.resume()
    assert again.facts()["seed"] == 7


def test_a_full_disk_is_called_one(tmp_path: Path) -> None:
    """Here the largest file that a process may write, which fails as a full disk does."""
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"value": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(RtsrError, match=r"Cannot write the checkpoint .*: File too large\.$"):
            save_checkpoint(path, {"value": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(path)["value"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_minutes_that_end_before_the_steps_are_said(
    tmp_path: Path, make_sound: Callable[..., NDArray[np.float32]]
) -> None:
    (tmp_path / "recordings").mkdir()
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / "recordings" / name, make_sound(48000, 1.5), 48000)
    changes = "\n".join(f"{name} = {value}" for name, value in SMALLEST_CHANGES.items())
    config = f"""
steps = [900, 0, 0, 0]
batch = 2
frames = 48
[degrade]
codec_share = 0.0
[model_changes]
{changes}
"""
    (tmp_path / "tiny.toml").write_text(config)
    words = ["train", "recordings", "--config", "tiny.toml", "--out", "run", "--minutes", "0.001"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    said = " ".join(done.stderr.split())
    assert re.search(
        r"The run is \d+\.\d minutes old and ends in autoencoder, step \d+, before", said
    )
    assert "the steps of its settings, [900, 0, 0, 0]; the same command with more" in said
    # What may hold nothing usable is read first.
    assert done.stdout.index("valid: ") < done.stdout.index("train: ")


def test_a_folder_that_another_run_writes_to(folder: Path) -> None:
    (folder / "recordings" / "manifest.csv").write_text(
        "path,split,domain\na.wav,train,speech\nb.wav,valid,speech\n"
    )
    with locked(folder / "begun"):
        assert "Another training writes to begun" in refused("--out", "begun")

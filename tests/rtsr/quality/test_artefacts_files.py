"""Artefacts of files and folders, and how ``rtsr eval --artefacts`` shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from rtsr.cli.eval import eval_command
from rtsr.quality import ARTEFACTS, compare_files, compare_folders

RATE = 48000
CUTOFF = 4000.0


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A reference with pauses, and an output that hisses in them."""
    random = np.random.default_rng(1)
    reference = (
        0.03 * random.normal(size=4 * RATE) * np.where(np.arange(4 * RATE) % RATE < 5000, 1, 0)
    )
    hissing = reference + 0.03 * random.normal(size=reference.size)
    for folder, sound in (("reference", reference), ("out", hissing)):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", sound, RATE, subtype="PCM_24")
        soundfile.write(tmp_path / folder / "b.wav", reference, RATE, subtype="PCM_24")
    return tmp_path / "reference", tmp_path / "out"


def test_files_are_searched_only_when_asked(files: tuple[Path, Path]) -> None:
    reference, out = files
    assert compare_files(reference / "a.wav", out / "a.wav", CUTOFF, ["lsd"]).artefacts == {}
    both = compare_folders(reference, out, CUTOFF, ["lsd"], artefacts=True)
    assert [pair.name for pair in both.files] == ["a", "b"]
    assert both.files[0].artefacts["hiss_db"] > 30
    assert both.files[1].artefacts["hiss_db"] == 0.0
    assert both.artefact_median["hiss_db"] == pytest.approx(both.files[0].artefacts["hiss_db"] / 2)


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command("eval")(eval_command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_command_shows_them(files: tuple[Path, Path]) -> None:
    reference, out = files
    common = ("--cutoff", CUTOFF, "--metrics", "lsd")
    one = run(reference / "a.wav", out / "a.wav", *common, "--artefacts")
    (row,) = (line for line in one.splitlines() if "hiss_db" in line)
    assert "!" in row
    assert "at most 6" in row
    many = run(reference, out, *common, "--artefacts")
    (row,) = (line for line in many.splitlines() if "hiss_db" in line)
    assert "1 of 2" in row
    assert "hiss_db" not in run(reference, out, *common)


def test_the_command_writes_them_as_json(files: tuple[Path, Path]) -> None:
    reference, out = files
    common = (reference, out, "--cutoff", CUTOFF, "--metrics", "lsd", "--json")
    answer = json.loads(run(*common, "--artefacts"))
    assert answer["files"][0]["artefacts"]["hiss_db"] > 30
    assert answer["files"][0]["artefacts"]["coherence_loss"] is None
    assert answer["artefact_limits"]["hiss_db"] == {"lowest": None, "highest": 6.0}
    assert set(answer["artefact_median"]) == set(ARTEFACTS)
    assert "artefact_median" not in json.loads(run(*common))

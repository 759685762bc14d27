"""What is measured beyond 48 kHz, on signals whose answer is known."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from example_run import load_example, run_example

from rtsr.errors import RtsrError
from rtsr.quality.metrics import lsd_hf
from rtsr.runtime.models import find_model

octaves = load_example("octaves_worth")


def _noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.05, samples)


def test_flat_noise_continues_a_flat_spectrum() -> None:
    reference = _noise(96000)
    narrow = octaves.narrowed(reference, 96000, 48000)
    estimate = octaves.flat_noise().enhance(soxr.resample(narrow, 1, 2, quality="VHQ"))
    # Two independent noises of one level: log10 of the ratio of two exponential variables has a
    # standard deviation of pi / (sqrt(3) ln 10) = 0.79; the level that is heard is one too.
    assert lsd_hf(reference, estimate, 13000.0) == pytest.approx(0.79, abs=0.12)
    levels = octaves.octave_levels_db(estimate, 96000) - octaves.octave_levels_db(reference, 96000)
    assert levels == pytest.approx([0.0, 0.0], abs=2.0)


@pytest.mark.parametrize(("hertz", "octave"), [(13000, 0), (30000, 1), (60000, 2)])
def test_levels_are_those_of_octaves(hertz: float, octave: int) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(19200) / 192000)
    levels = octaves.octave_levels_db(tone, 192000)
    assert levels[octave] == pytest.approx(-3.01, abs=0.01)
    assert np.delete(levels, octave).max() < -150.0


def test_a_recording_is_scored_in_every_case_that_its_rate_allows(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise" / "a.wav", _noise(192000 // 2), 192000, subtype="PCM_24")
    soundfile.write(tmp_path / "noise" / "too-low.wav", _noise(48000), 48000)
    (path,) = octaves.find_recordings(tmp_path)
    model = find_model("replicate")
    restorer = octaves.Restorer(model)
    scores = octaves.score_recording(path, tmp_path, restorer)
    found = {(one.case, one.system) for one in scores}
    assert {case for case, _ in found} == {
        "48 to 96",
        "16 to 48 to 96",
        "8 to 48 to 96",
        "48 to 192",
        "96 to 192",
    }
    assert ("48 to 192", "replicate, at once") in found
    assert ("48 to 192", "replicate, in turns") in found
    assert {one.group for one in scores} == {"noise"}
    (resampled,) = [one for one in scores if (one.case, one.system) == ("48 to 96", "soxr")]
    (restored,) = [one for one in scores if (one.case, one.system) == ("48 to 96", "replicate")]
    assert resampled.levels_db[1] < -60.0
    assert abs(restored.levels_db[1]) < 12.0
    assert restored.lsd_new < 0.5 * resampled.lsd_new
    assert "| 48 to 96 | noise | 1 | flat noise |" in octaves.medians(scores)


def test_rows_and_figures_are_of_what_makes_the_octaves() -> None:
    restorer = octaves.Restorer(find_model("small"))
    names = [list(systems) for _, _, systems in octaves.cases(restorer, 192000)]
    assert names == [["soxr", "small, at once", "octave, in turns"], ["soxr", "octave"]]
    assert {list(systems)[-1] for _, _, systems in octaves.cases(restorer, 96000)} == {"octave"}
    found = octaves.facts(restorer)
    keys = ("model", "octave_model", "two_octaves_model")
    assert [found[key]["name"] for key in keys] == ["small", "octave", "small"]
    own = octaves.Restorer(find_model("small"), find_model("replicate"))
    assert [own.maker(octaves).name for octaves in (1, 2)] == ["replicate", "replicate"]


def test_the_table_has_medians() -> None:
    scores = [
        octaves.Score("group", str(value), "48 to 96", "soxr", value, 2 * value, (value, -value))
        for value in (1.0, 2.0, 9.0)
    ]
    assert octaves.medians(scores).splitlines()[-1] == (
        "| 48 to 96 | group | 3 | soxr | 2.00 | 4.00 | +2.0, -2.0 |"
    )


def test_a_folder_without_high_rates_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "cd.wav", _noise(44100), 44100)
    with pytest.raises(RtsrError, match="holds no recording of 88200 Hz and more"):
        octaves.find_recordings(tmp_path)
    done = run_example("octaves_worth.py", tmp_path, "--model", "replicate")
    assert done.returncode == 2
    assert done.stderr == (
        f"octaves_worth: '{tmp_path}' holds no recording of 88200 Hz and more; "
        "give a folder that does.\n"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--every", "0"], "--every must be at least 1, not 0"),
        (["--plot", "out.txt"], "give a name that ends in .png"),
        (["--model", "large"], "'large' is unknown"),
        (["--octave-model", "large"], "'large' is unknown"),
    ],
)
def test_options_that_cannot_be_are_refused_before_the_work(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    done = run_example("octaves_worth.py", tmp_path / "missing", *options)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_the_program_writes_a_table_figures_and_a_picture(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _noise(24000), 96000, subtype="PCM_24")
    found, picture = tmp_path / "found.json", tmp_path / "found.png"
    options = ["--model", "replicate", "--json", found, "--plot", picture]
    done = run_example("octaves_worth.py", tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert f"| 48 to 96 | {tmp_path.name} | 1 | replicate |" in done.stdout
    values = json.loads(found.read_text())
    assert values["octave_model"]["name"] == "replicate"
    assert {one["name"] for one in values["scores"]} == {"a.wav"}
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"b\xff\xfe.wav")
    soundfile.write(os.fsencode(path), np.full(2 * 96000, 0.1), 96000)
    assert octaves.find_recordings(tmp_path) == [path]


def test_a_damaged_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF no sound at all")
    with pytest.raises(RtsrError, match=r"bad.wav' cannot be read"):
        octaves.find_recordings(tmp_path)

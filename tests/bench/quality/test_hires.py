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
from typer.testing import CliRunner

from rtsr.errors import RtsrError
from rtsr.quality.metrics import lsd_hf
from rtsr.runtime.models import find_model
from rtsr_bench.program import app
from rtsr_bench.quality import hires


def _noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.05, samples)


def test_flat_noise_continues_a_flat_spectrum() -> None:
    reference = _noise(96000)
    narrow = hires.narrowed(reference, 96000, 48000)
    estimate = hires.flat_noise().enhance(soxr.resample(narrow, 1, 2, quality="VHQ"))
    # Two independent noises of one level: log10 of the ratio of two exponential variables has a
    # standard deviation of pi / (sqrt(3) ln 10) = 0.79; the level that is heard is one too.
    assert lsd_hf(reference, estimate, 13000.0) == pytest.approx(0.79, abs=0.12)
    levels = hires.octave_levels_db(estimate, 96000) - hires.octave_levels_db(reference, 96000)
    assert levels == pytest.approx([0.0, 0.0], abs=2.0)


@pytest.mark.parametrize(("hertz", "octave"), [(13000, 0), (30000, 1), (60000, 2)])
def test_levels_are_those_of_octaves(hertz: float, octave: int) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(19200) / 192000)
    levels = hires.octave_levels_db(tone, 192000)
    assert levels[octave] == pytest.approx(-3.01, abs=0.01)
    assert np.delete(levels, octave).max() < -150.0


def test_a_recording_is_scored_in_every_case_that_its_rate_allows(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise" / "a.wav", _noise(192000 // 2), 192000, subtype="PCM_24")
    soundfile.write(tmp_path / "noise" / "too-low.wav", _noise(48000), 48000)
    (path,) = hires.find_recordings(tmp_path)
    model = find_model("replicate")
    restorer = hires.Restorer(model)
    scores = hires.score_recording(path, tmp_path, restorer)
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
    assert "| 48 to 96 | noise | 1 | flat noise |" in hires.table(scores)


def test_rows_and_figures_are_of_what_makes_the_octaves(tmp_path: Path) -> None:
    restorer = hires.Restorer(find_model("small"))
    names = [list(systems) for _, _, systems in hires._cases(restorer, 192000)]
    assert names == [["soxr", "small, at once", "octave, in turns"], ["soxr", "octave"]]
    assert {list(systems)[-1] for _, _, systems in hires._cases(restorer, 96000)} == {"octave"}
    hires.write_scores(tmp_path / "found.json", restorer, [])
    found = json.loads((tmp_path / "found.json").read_text())
    keys = ("model", "octave_model", "two_octaves_model")
    assert [found[key]["name"] for key in keys] == ["small", "octave", "small"]
    own = hires.Restorer(find_model("small"), find_model("replicate"))
    assert [own.maker(octaves).name for octaves in (1, 2)] == ["replicate", "replicate"]


def test_the_table_has_medians() -> None:
    scores = [
        hires.Score("group", str(value), "48 to 96", "soxr", value, 2 * value, (value, -value))
        for value in (1.0, 2.0, 9.0)
    ]
    assert hires.table(scores).splitlines()[-1] == (
        "| 48 to 96 | group | 3 | soxr | 2.00 | 4.00 | +2.0, -2.0 |"
    )


def test_a_folder_without_high_rates_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "cd.wav", _noise(44100), 44100)
    with pytest.raises(RtsrError, match="holds no recording of 88200 Hz and more"):
        hires.find_recordings(tmp_path)
    result = CliRunner().invoke(app, ["hires", str(tmp_path), "--model", "replicate"])
    assert isinstance(result.exception, RtsrError)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"b\xff\xfe.wav")
    soundfile.write(os.fsencode(path), np.full(2 * 96000, 0.1), 96000)
    assert hires.find_recordings(tmp_path) == [path]


def test_a_damaged_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF no sound at all")
    with pytest.raises(RtsrError, match=r"bad.wav' cannot be read"):
        hires.find_recordings(tmp_path)

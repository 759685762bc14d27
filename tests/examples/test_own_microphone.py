"""The example for whoever owns the microphone, run as its text says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from example_run import run_example

import rtsr

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_microphone.py"
DEMO = Path(rtsr.__file__).parent / "demo_data"


@pytest.mark.slow
def test_a_colour_is_learnt_from_one_recording_and_tried_on_another(tmp_path: Path) -> None:
    pytest.importorskip("visqol", reason="the package visqol-python is not installed")
    voice, rate = soundfile.read(DEMO / "speech_reference.flac", always_2d=True)
    yesterday, today, colour = (tmp_path / name for name in ("a.wav", "b.wav", "me.json"))
    soundfile.write(yesterday, np.resize(voice[:, 0], 11 * rate), rate)
    soundfile.write(today, voice[: 3 * rate, 0], rate)
    options = ["-o", str(colour), "--listen", str(tmp_path / "tried")]
    command = [sys.executable, str(EXAMPLE), str(yesterday), str(today), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    first, heads, without, coloured = result.stdout.splitlines()
    assert f"written to '{colour}'" in first
    assert heads.split() == ["visqol", "lsd", "level_bias_db"]
    # Tried on what it was learnt from, its levels must be nearer.
    assert float(coloured.split()[-1]) < float(without.split()[-1])
    assert soundfile.info(tmp_path / "tried" / "narrow.wav").samplerate == 8000
    assert soundfile.info(tmp_path / "tried" / "with-colour.wav").samplerate == 48000


def test_a_narrow_recording_is_refused_in_one_line(tmp_path: Path) -> None:
    narrow = DEMO / "speech_8k.wav"
    result = run_example(EXAMPLE.name, narrow, narrow, "-o", tmp_path / "me.json")
    assert result.returncode == 1
    assert result.stderr.startswith("own_microphone: ")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_no_recording_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "tried").mkdir()
    yesterday, today = tmp_path / "yesterday.flac", tmp_path / "tried" / "narrow.wav"
    for recording in (yesterday, today):
        shutil.copy(DEMO / "speech_reference.flac", recording)
    before = yesterday.read_bytes()
    for output, listen in ((yesterday, tmp_path), (today, tmp_path), ("me.json", today.parent)):
        result = run_example(
            EXAMPLE.name, yesterday, today, "-o", tmp_path / output, "--listen", listen
        )
        assert result.returncode == 1
        assert "are the same file" in result.stderr
        assert result.stderr.count("\n") == 1
    assert yesterday.read_bytes() == today.read_bytes() == before


def test_a_second_recording_that_is_not_there_is_said_before_learning(tmp_path: Path) -> None:
    yesterday = DEMO / "speech_reference.flac"  # too short, which learning would say
    result = run_example(
        EXAMPLE.name, yesterday, tmp_path / "today.wav", "-o", tmp_path / "me.json"
    )
    assert result.returncode == 1
    assert "There is no file" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())

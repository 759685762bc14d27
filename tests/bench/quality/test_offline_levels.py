"""Levels from several passes over a file: passes in line, steps that are what they say."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from rtsr_bench.corpus import Clip, list_clips, prepare_inputs, prepare_references
from rtsr_bench.quality.baseline import load_full_band

RATE, CUTOFF = 8000, 4000.0
EXAMPLES = Path(__file__).parents[3] / "examples"
DEMO = Path(str(resources.files("rtsr").joinpath("demo_data")))


@pytest.fixture(scope="module")
def offline() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield importlib.import_module("offline_levels")
    finally:
        sys.path.remove(str(EXAMPLES))


def burst(at_seconds: float) -> np.ndarray:
    """Half a second of silence with 20 ms of noise in it."""
    samples = np.zeros(RATE // 2, np.float32)
    start = round(at_seconds * RATE)
    samples[start : start + 160] = 0.1 * np.random.default_rng(1).normal(size=160)
    return samples


def centre_of_energy(wide: np.ndarray) -> float:
    power = np.square(wide)
    return float((np.arange(wide.size) * power).sum() / power.sum() / 48000)


def test_all_passes_are_in_line_with_the_input(offline: ModuleType) -> None:
    passes = offline.Passes(burst(0.3), RATE, "replicate", CUTOFF)
    before = np.zeros(60, np.float32)
    for wide in (passes.forward(), passes.backward, passes.behind(before)):
        assert wide.shape == (24000,)
        assert centre_of_energy(wide) == pytest.approx(0.31, abs=0.002)


@pytest.mark.parametrize("name", ["both directions", "louder direction", "two seeds"])
def test_silence_moves_nothing(name: str, offline: ModuleType) -> None:
    passes = offline.Passes(np.zeros(RATE // 2, np.float32), RATE, "replicate", CUTOFF)
    own = offline.levels_of(passes.forward(), CUTOFF)
    assert not offline.TRIALS[name](passes, own).any()


def test_steps_are_what_their_names_say(offline: ModuleType) -> None:
    passes = offline.Passes(burst(0.3), RATE, "replicate", CUTOFF)
    own = offline.levels_of(passes.forward(), CUTOFF)
    other = offline.levels_of(passes.backward, CUTOFF)
    steps = {name: trial(passes, own) for name, trial in offline.TRIALS.items()}
    np.testing.assert_allclose(own + steps["both directions"], 0.5 * (own + other))
    np.testing.assert_allclose(own + steps["louder direction"], np.maximum(own, other))
    # Replication is the model here, so that the third pass is the first.
    mean = (2.0 * own + other) / 3.0
    np.testing.assert_allclose(own + steps["both directions and replicate"], mean)
    centred = steps["the same, means as they were"]
    np.testing.assert_allclose(centred.mean(axis=0), 0.0, atol=1e-9)
    assert np.abs(centred).max() > 1.0
    for name in ("four phases of the hops", "two seeds", "levels over 100 ms"):
        assert 0.1 < np.abs(steps[name]).max() < 60.0


def test_clips_are_spread_evenly(offline: ModuleType) -> None:
    clips = [Clip(f"{d}/{i}", Path(), d) for d in ("speech", "music") for i in range(7)]
    assert [one.name for one in offline.spread_clips(clips, 3)] == [
        *("speech/0", "speech/3", "speech/6"),
        *("music/0", "music/3", "music/6"),
    ]
    assert offline.spread_clips(clips, None) == clips


def test_clips_of_the_same_names_are_scored_on_their_own_sound(
    tmp_path: Path, offline: ModuleType, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(offline, "METRICS", ("band_levels",))
    monkeypatch.setattr(offline, "SHOWN", ("level_bias_db",))
    (tmp_path / "manifest.csv").write_text("path,split,domain\none.flac,valid,speech\n")
    words = ["offline_levels", str(tmp_path), "--model", "replicate", "--cutoff", "4000"]
    words += ["--trial", "louder direction", "--seconds", "1"]

    def printed(domain: str, work: str) -> str:
        shutil.copy(DEMO / f"{domain}_reference.flac", tmp_path / "one.flac")
        monkeypatch.setattr(sys, "argv", [*words, "--work", str(tmp_path / work)])
        offline.main()
        return capsys.readouterr().out

    assert printed("speech", "first") != printed("music", "first") == printed("music", "second")


def test_a_trial_is_compared_with_the_plain_output(tmp_path: Path, offline: ModuleType) -> None:
    shutil.copy(DEMO / "speech_reference.flac", tmp_path / "one.flac")
    (tmp_path / "manifest.csv").write_text("path,split,domain\none.flac,valid,speech\n")
    clips = list_clips(tmp_path)
    references = prepare_references(clips, tmp_path / "references", 2.0)
    inputs = prepare_inputs(references, tmp_path / "inputs", CUTOFF)
    (name,) = inputs
    reference = load_full_band(references[name], 2.0)
    found = {
        name: offline.try_on_clip(
            inputs[name], reference, "replicate", CUTOFF, ["louder direction"]
        )
    }
    assert soundfile.info(inputs[name]).samplerate == RATE
    plain, louder = found[name][""], found[name]["louder direction"]
    assert louder["level_loud_db"] > plain["level_loud_db"]
    shown = offline.differences(clips, found, "louder direction", "level_loud_db")
    assert shown == f"{louder['level_loud_db'] - plain['level_loud_db']:+.2f} ± nan"

"""Pictures of a quality report: they are drawn, of the right clips, and appear whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from rtsr_bench.quality import pictures
from rtsr_bench.quality.pictures import choose_clips
from rtsr_bench.quality.systems import INPUT, System

RATE = 48000


def tones(*frequencies: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.1 * sum(np.sin(2 * np.pi * f * time) for f in frequencies)


def hiss(seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(0).normal(size=int(seconds * RATE))


@pytest.fixture
def references(tmp_path: Path) -> dict[str, Path]:
    sounds = {
        "speech/whisper": hiss(),
        "speech/vowel": tones(300.0),
        # More energy above the cutoff than the drum, and a smaller share of its own.
        "music/organ": tones(200.0) + hiss(level=0.05),
        "music/drum": hiss(level=0.02),
        "music/violin": tones(440.0),
        "effects/rumble": tones(100.0),
        "effects/splash": tones(100.0) + hiss(),
    }
    found = {}
    for name, samples in sounds.items():
        found[name] = tmp_path / f"{name}.flac"
        found[name].parent.mkdir(exist_ok=True)
        soundfile.write(found[name], 0.3 * samples, RATE)
    return found


def test_clips_are_chosen_for_what_there_is_to_see(references: dict[str, Path]) -> None:
    chosen = choose_clips(references, 4000.0)
    assert chosen == ["speech/whisper", "effects/splash", "music/drum"]


def test_the_loudest_moment_of_the_reference_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, np.ndarray]] = []
    save = pictures.save_spectrograms

    def watched(path: Path, panels: list[tuple[str, np.ndarray]], **rest: Any) -> None:
        drawn.extend(panels)
        save(path, panels, **rest)

    monkeypatch.setattr(pictures, "save_spectrograms", watched)
    loud = np.concatenate([hiss(3.0, 0.01), hiss(2.5), hiss(1.0, 0.01)]).astype(np.float32)
    files = [tmp_path / "reference.wav", tmp_path / "input.wav"]
    for file, gain in zip(files, (1.0, 0.5), strict=True):
        soundfile.write(file, gain * loud, RATE, subtype="FLOAT")
    reference, source = ({"speech/one": file} for file in files)
    (made,) = pictures.save_spectrograms_of_clips(
        tmp_path, [System("input", INPUT)], reference, source, 4e3
    )
    (_, shown), (_, whole) = drawn
    np.testing.assert_array_equal(whole, loud[3 * RATE : round(5.5 * RATE)])
    np.testing.assert_array_equal(shown, 0.5 * whole)
    assert np.asarray(imread(tmp_path / made["file"]))[..., :3].std() > 0.05


def test_short_clips_can_be_drawn(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", tones(500.0, seconds=0.1), RATE)
    clips = {"music/x": tmp_path / "x.wav"}
    (made,) = pictures.save_spectrograms_of_clips(
        tmp_path, [System("input", INPUT)], clips, clips, 8e3
    )
    assert np.asarray(imread(tmp_path / made["file"])).shape[0] > 300

"""Pictures of a quality report: they are drawn, of the right clips, and appear whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from rtsr.errors import ArgumentError
from rtsr_bench.quality import pictures
from rtsr_bench.quality.conditions import CONDITIONS
from rtsr_bench.quality.spectrograms import choose_clips

RATE = 48000


def tones(*frequencies: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.1 * sum(np.sin(2 * np.pi * f * time) for f in frequencies)


def hiss(seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(0).normal(size=int(seconds * RATE))


def pixels(path: Path) -> np.ndarray:
    assert not list(path.parent.glob(".partial*"))
    return np.asarray(imread(path))[..., :3]


def scores(**systems: float) -> dict[str, Any]:
    return {
        name: {"by_domain": {"speech": {"lsd": value, "visqol": None}, "music": {"lsd": 2 * value}}}
        for name, value in systems.items()
    }


def test_spectrograms_show_where_the_sound_is(tmp_path: Path) -> None:
    low = tones(1000.0)
    pictures.save_side_by_side(
        tmp_path / "x.png", [("input", low), ("reference", low + tones(9000.0))], "title", 4000.0
    )
    image = pixels(tmp_path / "x.png")
    middle = image.shape[1] // 2
    # the brightest thing of the right half has a second line above the first
    bright = (image.mean(axis=2) > 0.6) & (np.ptp(image, axis=2) > 0.1)
    left, right = bright[:, :middle].sum(), bright[:, middle : int(0.9 * image.shape[1])].sum()
    assert right > 1.5 * left > 0


def test_short_clips_can_be_drawn(tmp_path: Path) -> None:
    short = tones(500.0, seconds=0.1)
    pictures.save_side_by_side(
        tmp_path / "x.png", [("input", short), ("reference", short)], "t", 8e3
    )
    assert pixels(tmp_path / "x.png").shape[0] > 300


def test_metrics_are_drawn_with_holes_and_far_inputs(tmp_path: Path) -> None:
    systems = scores(input=50.0, replicate=1.2, small=1.0)
    assert pictures._range(systems, "lsd") == pytest.approx((1.0 - 0.168, 2.4 + 0.168))
    assert pictures._range(systems, "visqol") == (0.0, 1.0)
    assert pictures._range(scores(input=5.0), "lsd")[1] > 5.0
    pictures.save_metrics(tmp_path / "m.png", systems, ("lsd", "visqol", "hf_bias_db"), "title")
    assert pixels(tmp_path / "m.png").std() > 0.05


def test_conditions_are_drawn(tmp_path: Path) -> None:
    part = {
        "cutoff_hz": 4000.0,
        "titles": {one.key: one.title for one in CONDITIONS},
        "scores": {
            name: {one.key: row for one in CONDITIONS} for name, row in scores(a=1.0, b=2.0).items()
        },
    }
    pictures.save_conditions(tmp_path / "c.png", part, ("lsd", "visqol"))
    assert pixels(tmp_path / "c.png").std() > 0.05


def test_the_loudest_moment_is_found() -> None:
    signal = np.zeros(1000)
    signal[600:700] = 1.0
    assert pictures.loudest_start(signal, 100) == 600
    assert pictures.loudest_start(signal, 2000) == 0


def test_partials_are_tonal_and_noise_is_not() -> None:
    chord = tones(*np.arange(220.0, 4000.0, 220.0))
    assert pictures.tonality(chord, 200.0, 4000.0) > 0.95
    # the mean of the logarithm of noise power lies 2.5 dB below that of the mean
    assert pictures.tonality(hiss(), 200.0, 4000.0) == pytest.approx(1 - 10**-0.2507, abs=0.02)


@pytest.fixture
def references(tmp_path: Path) -> dict[str, Path]:
    strings = tones(*np.arange(300.0, 9000.0, 300.0))
    sounds = {
        "speech/whisper": hiss(),
        "speech/vowel": 0.3 * strings + hiss(level=1e-4),
        "music/drum": hiss(),
        "music/violin": 0.3 * strings,
        "music/organ": 0.3 * tones(*np.arange(200.0, 3000.0, 200.0)) + hiss(level=0.02),
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
    assert chosen[0] == "speech/vowel"
    assert chosen[1] == "music/violin"
    assert chosen[-1] == "effects/splash"
    assert len(chosen) == 4


def test_clips_are_chosen_by_name(references: dict[str, Path]) -> None:
    assert choose_clips(references, 4000.0, ["rumb", "music"]) == [
        *(name for name in references if name.startswith("music")),
        "effects/rumble",
    ]
    with pytest.raises(ArgumentError, match="'flute'"):
        choose_clips(references, 4000.0, ["violin", "flute"])

"""Probes must see what is wrong: a stream that depends on its blocks, a sound in silence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("onnxruntime")

from rtsr_bench.quality import probes

Sound = Callable[..., np.ndarray]


def passage(make_sound: Sound, seconds: float = 0.4) -> np.ndarray:
    return make_sound(8000, seconds)[:, 0]


@pytest.mark.parametrize("model", ["replicate", "network"])
def test_the_engine_streams_without_a_difference(
    model: str, stand_in: Path, make_sound: Sound
) -> None:
    chosen = str(stand_in) if model == "network" else model
    found = probes.streaming_differences(chosen, 8000, passage(make_sound))
    assert found == {1: 0.0, 37: 0.0, 480: 0.0, 4096: 0.0}


def test_a_stream_that_depends_on_its_blocks_is_seen(
    stand_in: Path, make_sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = probes.Upsampler.process

    def uneven(self: Any, block: np.ndarray) -> np.ndarray:
        return process(self, block) + np.float32(1e-4 * (len(block) == 37))

    monkeypatch.setattr(probes.Upsampler, "process", uneven)
    found = probes.streaming_differences(str(stand_in), 8000, passage(make_sound), (37, 480))
    assert found[37] == pytest.approx(1e-4, rel=1e-2)
    assert found[480] == 0.0


def test_a_missing_sample_is_an_infinite_difference() -> None:
    one = np.array([1.0, 0.5], np.float32)
    assert probes.largest_difference(one, one[:1]) == math.inf
    assert probes.largest_difference(one, one[::-1]) == 0.5
    assert probes.largest_difference(one[:0], one[:0]) == 0.0


def test_silence_is_judged_where_it_is(
    stand_in: Path, make_sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = passage(make_sound)
    assert probes.level_in_silence(str(stand_in), 8000, sound) < -90.0
    process = probes.Upsampler.process

    def hissing(self: Any, block: np.ndarray) -> np.ndarray:
        return process(self, block) + np.float32(1e-3)

    monkeypatch.setattr(probes.Upsampler, "process", hissing)
    # the loud parts are 40 dB above that and must not reach it
    assert probes.level_in_silence(str(stand_in), 8000, sound) == pytest.approx(-60.0, abs=0.1)


def test_the_worst_clip_counts(
    tmp_path: Path, make_sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for place, level in enumerate((0.05, 0.2)):
        files.append(tmp_path / f"{place}.wav")
        soundfile.write(files[-1], make_sound(8000, 0.2, level=level), 8000)
    answers = iter([{1: 0.0, 37: 0.3}, {1: 0.1, 37: 0.0}])
    monkeypatch.setattr(probes, "streaming_differences", lambda *_: next(answers))
    monkeypatch.setattr(probes, "level_in_silence", lambda m, r, x: 20 * np.log10(np.abs(x).max()))
    found = probes.probe("replicate", files)
    assert (found["block 1"], found["block 37"]) == (0.1, 0.3)
    loudest = np.abs(soundfile.read(files[1])[0]).max()
    assert found["silence_dbfs"] == pytest.approx(20 * np.log10(loudest), abs=1e-3)


def test_speed_is_sound_over_the_median_time(
    tmp_path: Path, make_sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, make_sound(8000, 0.5), 8000)
    # runs of 0.1, 0.2 and 5 s: a machine that was busy once is not a slow machine
    moments = iter([0.0, 0.1, 1.0, 1.2, 2.0, 7.0])
    clock = SimpleNamespace(perf_counter=lambda: next(moments))
    monkeypatch.setattr(probes, "time", clock)
    assert probes.real_time_factor("replicate", path, 3) == pytest.approx(0.5 / 0.2)

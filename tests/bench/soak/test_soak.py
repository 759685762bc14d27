"""The soak: what it makes of a recording, and one short run on a real server."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rtsr.cli.app import app
from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.timing import SAMPLE_RATE
from rtsr_bench.soak.run import COUNTERS, load_clip, since
from rtsr_bench.soak.sound import measure_latency, score_sound
from rtsr_bench.soak.usage import usage_of

FIRST = 123_457
LATENCY = 1032
NO_GAPS = np.zeros((0, 2), np.int64)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return load_clip("music")


@pytest.fixture
def recorded(clip: np.ndarray) -> np.ndarray:
    """Forty seconds as an engine would play them: later, and with something above the cutoff."""
    frames = FIRST + np.arange(40 * SAMPLE_RATE)
    sound = clip[(frames - LATENCY) % len(clip)]
    above = np.random.default_rng(1).standard_normal(len(sound))
    spectrum = np.fft.rfft(above)
    spectrum[: 4000 * len(sound) // SAMPLE_RATE] = 0.0
    return (sound + 0.01 * np.fft.irfft(spectrum, len(sound))).astype(np.float32)


def test_a_clip_can_go_round(clip: np.ndarray) -> None:
    assert clip.dtype == np.float32
    assert 5 * SAMPLE_RATE < len(clip) < 8 * SAMPLE_RATE
    assert clip[0] == clip[-1] == 0.0
    assert 0.1 < np.abs(clip).max() <= 1.0


@pytest.mark.parametrize("latency", [0, 1, LATENCY, 5 * SAMPLE_RATE])
def test_latency_is_found_to_the_frame(clip: np.ndarray, latency: int) -> None:
    frames = FIRST + np.arange(2 * len(clip) + 17)
    assert measure_latency(clip, 0.3 * clip[(frames - latency) % len(clip)], FIRST) == latency


def test_what_came_through_whole_is_whole(clip: np.ndarray, recorded: np.ndarray) -> None:
    result = score_sound(clip, recorded, FIRST, NO_GAPS, 4000.0)
    assert (result.latency_samples, result.latency_end_samples) == (LATENCY, LATENCY)
    # The clip has short pauses.
    assert 0.9 * 39 * 100 < result.windows <= 39 * 100
    assert (result.broken, result.longest_broken_ms, result.excused) == (0, 0.0, 0)


def test_pauses_are_judged_only_where_something_came(clip: np.ndarray) -> None:
    clip = clip.copy()
    clip[len(clip) // 2 :] = 0.0
    recorded = np.tile(clip, 3)
    quiet = score_sound(clip, recorded, 0, NO_GAPS, 4000.0)
    assert quiet.windows < 0.6 * (len(recorded) // 480 - 100)
    assert quiet.broken == 0
    start = len(clip) + len(clip) * 3 // 4
    recorded[start : start + 24000] = 0.1 * np.sin(np.arange(24000) * 2 * np.pi * 440 / 48000)
    loud = score_sound(clip, recorded, 0, NO_GAPS, 4000.0)
    assert 49 <= loud.broken <= 53
    assert loud.windows == quiet.windows + loud.broken


def test_what_is_too_short_to_judge_is_one_sentence(clip: np.ndarray) -> None:
    with pytest.raises(RtsrError, match=r"Only 2\.0 s of sound came back; \d\.\d s are needed"):
        score_sound(clip, np.zeros(2 * SAMPLE_RATE, np.float32), FIRST, NO_GAPS, 4000.0)


@pytest.mark.parametrize("frames", [64, 480, 4800])
@pytest.mark.parametrize("damage", ["silence", "repeated", "shifted"])
def test_what_is_missing_is_found(
    clip: np.ndarray, recorded: np.ndarray, damage: str, frames: int
) -> None:
    # In a loud place: a gap in a pause is none.
    loud = np.convolve(
        np.square(recorded[25 * SAMPLE_RATE : 30 * SAMPLE_RATE]), np.ones(frames), "valid"
    )
    start = 25 * SAMPLE_RATE + int(np.argmax(loud))
    end = start + frames
    before = recorded[start - frames : start].copy()
    if damage == "silence":
        recorded[start:end] = 0.0
    elif damage == "repeated":
        recorded[start:end] = before
    else:
        recorded[start:end] = recorded[start + 24 : end + 24]
    result = score_sound(clip, recorded, FIRST, NO_GAPS, 4000.0)
    if frames > 64:
        assert max(1, 0.7 * frames // 480) <= result.broken <= frames // 480 + 3
        assert result.longest_broken_ms >= 5.0 * frames // 480
    else:
        assert damage != "silence" or 1 <= result.broken <= 2
    # What the player itself did not play is nobody's fault.
    gaps = np.array([[FIRST + start - LATENCY, frames]])
    excused = score_sound(clip, recorded, FIRST, gaps, 4000.0)
    assert excused.broken == 0
    assert excused.excused <= (frames + LATENCY) // 480 + 7


def test_the_start_of_a_session_is_not_counted() -> None:
    changes = [{"time_s": time_s, "to": "dry"} for time_s in (0.5, 4.5)]
    levels = {"small": 4.0, "dry": 0.5}, {"small": 10.0, "dry": 1.5}
    begun = {**dict.fromkeys(COUNTERS, 4), "fallback_level_seconds": levels[0]}
    ended = {**dict.fromkeys(COUNTERS, 11.5), "fallback_level_seconds": levels[1]}
    found = since(begun, {**ended, "fallback_level_changes": changes, "cutoff_hz": 3900})
    assert [found[name] for name in COUNTERS] == [7.5] * len(COUNTERS)
    assert found["fallback_level_seconds"] == {"small": 6.0, "dry": 1.0}
    assert found["fallback_level_changes"] == changes[1:]
    assert found["cutoff_hz"] == 3900


def test_usage_of_a_program_and_its_children() -> None:
    work = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    own = work + "print(flush=True)\ninput()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {own!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        usage = usage_of(process.pid)
    finally:
        process.communicate(b"\n")
    assert usage.worker_s >= 0.25
    assert usage.memory_mb > 1.0
    assert usage.anonymous_mb > 1.0
    assert usage_of(os.getpid()).main_s > 0.0
    with pytest.raises(RtsrError, match="has ended"):
        usage_of(process.pid)


def test_without_psutil_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.delitem(sys.modules, "rtsr_bench.soak.usage")
    with pytest.raises(MissingDependencyError, match=r"rtsr\[dev\]"):
        importlib.import_module("rtsr_bench.soak.usage")


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rtsr", "bench", "soak", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--minutes", "0.01"], "--minutes must be at least"),
        (["--minutes", "nan"], "--minutes must be at least"),
        (["--clip", "birds"], "speech, music"),
        (["--load", "-1"], "0 or more"),
        (["--gil-hog", "--screen"], "without a screen"),
        (["--page", "--screen"], "--page is measured alone"),
        (["--colour", "--gil-hog"], "leave out --gil-hog"),
    ],
)
def test_wrong_use_ends_in_one_sentence(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["bench", "soak", *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith("rtsr: ")
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jackd") is None, reason="jackd is not installed (Debian: jackd2)")
def test_a_short_soak(tmp_path: Path) -> None:
    pytest.importorskip("jack", reason="the package JACK-Client is not installed")
    result = soak("--minutes", "0.17", "--gil-hog", "--load", "1", "--json", f"{tmp_path}/s.json")
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "s.json").read_text())
    figures, sound = results["figures"], results["sound"]
    assert figures["callbacks"] > 1000
    assert figures["seconds"] == pytest.approx(results["protocol"]["seconds"], abs=1.5)
    assert figures["latency"]["total_samples"] == LATENCY
    # A server that loses cycles of its own on a busy machine may hide it.
    if sound["windows"] > 600:
        assert sound["latency_samples"] == LATENCY
    assert results["usage"]["main_thread_percent"] > 5.0
    assert results["usage"]["worker_percent"] > 0.0
    stalls = results["stalls"]
    assert stalls["wake_ups"] > 100
    assert stalls["late"]["1"] >= stalls["late"]["5"] >= 0
    words = (
        "under-runs",
        "latency measured",
        "longest stall",
        "xruns of the server",
        "memory growth",
    )
    assert all(word in result.stdout for word in words)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(shutil.which("jackd") is None, reason="jackd is not installed (Debian: jackd2)")
def test_a_soak_with_the_screen_and_a_colour_that_is_learnt(tmp_path: Path) -> None:
    pytest.importorskip("jack", reason="the package JACK-Client is not installed")
    options = ("--minutes", "0.17", "--screen", "--colour")
    result = soak(*options, "--json", f"{tmp_path}/s.json")
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "s.json").read_text())
    assert results["protocol"]["screen"]
    assert results["protocol"]["colour"]
    figures = results["figures"]
    assert figures["callbacks"] > 1000
    # It hears full band, and so it learns.
    assert figures["cutoff_hz"] > 15000
    assert figures["colour"]["learnt_seconds"] > 1.0
    words = " ".join(result.stdout.split())
    assert "screen on" in words
    assert "colour learnt from" in words


@pytest.mark.clocked
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jackd") is None, reason="jackd is not installed (Debian: jackd2)")
def test_a_soak_with_the_page_open(tmp_path: Path) -> None:
    pytest.importorskip("jack", reason="the package JACK-Client is not installed")
    result = soak("--minutes", "0.17", "--page", "--json", f"{tmp_path}/s.json")
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "s.json").read_text())
    assert results["page_looks"] > 20
    assert results["figures"]["callbacks"] > 1000
    assert "page open" in " ".join(result.stdout.split())

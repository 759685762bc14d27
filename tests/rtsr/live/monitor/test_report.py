"""Figures, levels and spectra of a live session, and what it may be started with."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rtsr.errors import ArgumentError, RtsrError
from rtsr.live.loopback import click, find_clicks
from rtsr.live.monitor import figures
from rtsr.live.monitor import history as history_module
from rtsr.live.monitor.history import FallbackHistory
from rtsr.live.monitor.meters import Meters, levels_db, spectrum_db
from rtsr.live.monitor.report import (
    RESTART,
    FallbackChange,
    LiveSnapshot,
    cause_name,
    percentile,
    percentiles,
)
from rtsr.live.monitor.stats_file import StatsFile
from rtsr.live.monitor.summary import summary
from rtsr.live.session import LiveSession
from rtsr.live.settings import LiveSettings
from rtsr.live.shared.events import EventKind
from rtsr.live.shared.memory import LiveMemory
from rtsr.live.shared.priority import (
    _python_threads,
    describe,
    raise_worker,
    raised_for_new_threads,
)
from rtsr.live.worker import fallback_levels as fallback_levels
from rtsr.live.worker.fallback_levels import fallback_levels_of
from rtsr.live.worker.governor import Cause
from rtsr.runtime.models import bundled

RATE = 48000


@pytest.fixture
def memory() -> Iterator[LiveMemory]:
    with LiveMemory.create(2) as memory:
        yield memory


def test_a_percentile_is_never_better_than_what_was_measured() -> None:
    histogram = np.zeros(100, np.int64)
    histogram[[3, 10]] = 99, 1
    assert percentile(histogram, 50.0, 0.01) == pytest.approx(0.04)
    assert percentile(histogram, 99.0, 0.01) == pytest.approx(0.04)
    assert percentile(histogram, 99.9, 0.01) == pytest.approx(0.11)
    assert percentile(np.zeros(4, np.int64), 99.0, 0.01) == 0.0
    figures = percentiles(histogram, 0.01, 0.105)
    assert figures == {"p50": 0.04, "p95": 0.04, "p99": 0.04, "p99_9": 0.105, "max": 0.105}


def test_step_and_callback_figures_come_from_the_memory(memory: LiveMemory) -> None:
    memory.step_histogram[[100, 4095]] = 9, 1
    memory.worker["first_step_ns"] = 1_004_000
    memory.worker["max_step_ns"] = 123_456_789
    assert figures.step_ms(memory) == {
        "first": 1.004,
        "p50": 1.01,
        "p95": 40.96,
        "p99": 40.96,
        "p99_9": 40.96,
        "max": 123.4568,
    }
    memory.callback_histogram[7] = 5
    assert figures.callback_us(memory)["max"] == 8.0
    memory.callback["late_callbacks"] = 1
    memory.callback["capture_late_callbacks"] = 2
    memory.callback["input_overflows"] = 3
    memory.callback["output_underflows"] = 4
    counters = figures.counters(memory)
    assert (counters["late_callbacks"], counters["xruns"]) == (3, 7)
    json.dumps(counters)


def test_levels_are_followed_over_more_events_than_the_log_holds(memory: LiveMemory) -> None:
    fallback_levels = ("small", "replicate", "dry")
    start = 1_000_000_000
    history = FallbackHistory(memory.events, fallback_levels, start, fallback_levels[0])
    for turn in range(400):
        source, target = turn % 2, 1 - turn % 2
        time = start + (turn + 1) * 1_000_000_000
        memory.events.write(time, EventKind.FALLBACK_LEVEL_CHANGED, source, target, Cause.CALM, 5)
        if turn % 100 == 0:
            history.follow()
            memory.events.write(time, EventKind.HOPS_SKIPPED, value=3)
    history.follow()
    assert len(history.changes) == 400
    assert history.changes[1] == FallbackChange(2.0, "replicate", "small", "calm")
    assert history.changes[1].as_dict() == {
        "time_s": 2.0,
        "from": "replicate",
        "to": "small",
        "cause": "calm",
    }
    assert history.seconds(start + 401_000_000_000) == {
        "small": 201.0,
        "replicate": 200.0,
        "dry": 0.0,
    }
    assert history.level == "small"


def test_the_newest_changes_are_kept(memory: LiveMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "KEPT_CHANGES", 20)
    history = FallbackHistory(memory.events, ("small", "dry"), 0, "small")
    for turn in range(50):
        time = (turn + 1) * 1_000_000_000
        source, target = turn % 2, 1 - turn % 2
        memory.events.write(time, EventKind.FALLBACK_LEVEL_CHANGED, source, target, Cause.CALM, 5)
    history.follow()
    assert [change.time_s for change in history.changes] == [31.0 + turn for turn in range(20)]


def test_every_cause_has_words() -> None:
    assert {cause_name(cause) for cause in Cause} | {cause_name(RESTART)} == {
        "wanted",
        "step time",
        "ring low",
        "late",
        "calm",
        "restart",
    }


def sine(frequency: float, level: float, frames: int) -> np.ndarray:
    time = np.arange(frames) / RATE
    return (level * np.sin(2.0 * np.pi * frequency * time)).astype(np.float32)


def test_meters_show_what_was_captured_and_what_is_played(memory: LiveMemory) -> None:
    frames = 9600
    captured = np.stack([sine(1000.0, 0.5, frames), sine(1000.0, 0.05, frames)], axis=1)
    memory.capture.write(captured)
    memory.playback.write(np.ascontiguousarray(captured + sine(9000.0, 0.01, frames)[:, None]))
    memory.callback["played_position"] = 9000
    heard_in, heard_out = Meters(memory).newest()
    peak, rms = levels_db(heard_in)
    assert peak == pytest.approx((-6.02, -26.02), abs=0.05)
    assert rms == pytest.approx((-6.02, -26.02), abs=0.05)
    bands = spectrum_db(heard_in), spectrum_db(heard_out)
    assert bands[0].shape == bands[1].shape == (64,)
    at = int(64 * np.log(9000 / 60) / np.log(400))
    assert bands[0][at] < -90.0
    assert bands[1][at] == pytest.approx(-40.0, abs=2.0)
    assert bands[1].max() == pytest.approx(-6.0, abs=2.0)
    # The dry signal is played where the worker has left frames out.
    memory.playback.seek(20000)
    assert spectrum_db(Meters(memory).newest()[1])[at] < -90.0


def test_meters_reach_up_to_half_of_the_rate() -> None:
    with LiveMemory.create(1, 96000) as memory:
        time = np.arange(19200) / 96000
        tone = (0.25 * np.sin(2.0 * np.pi * 30000.0 * time)).astype(np.float32)[:, None]
        memory.capture.write(tone)
        captured, _ = Meters(memory).newest()
        bands = spectrum_db(captured, 96000)
    assert bands.shape == (64,)
    assert np.argmax(bands) == int(64 * np.log(30000 / 60) / np.log(800))
    assert bands.max() == pytest.approx(-12.0, abs=2.0)


def test_meters_show_silence_before_there_is_sound(memory: LiveMemory) -> None:
    for audio in Meters(memory).newest():
        assert levels_db(audio) == ((-120.0, -120.0), (-120.0, -120.0))
        assert np.all(spectrum_db(audio) == -120.0)


def test_the_worker_can_ask_for_more_and_is_told_what_it_got() -> None:
    granted: list[int] = []
    thread = threading.Thread(target=lambda: granted.append(raise_worker()))
    thread.start()
    thread.join()
    assert describe(granted[0]).split()[0] in ("real-time", "nice", "ordinary")
    assert describe(5) == "real-time 5"
    assert describe(-11) == "nice -11"
    assert describe(0) == "ordinary"


def test_new_threads_inherit_and_the_old_one_returns() -> None:
    import os

    if not hasattr(os, "sched_getscheduler"):
        pytest.skip("this system has no POSIX scheduler")
    before = (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
    inside: list[int] = []
    with raised_for_new_threads() as granted:
        thread = threading.Thread(target=lambda: inside.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
    assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == before
    assert inside == [os.SCHED_FIFO if granted > 0 else before[0]]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list threads")
def test_python_threads_of_others_stay_ordinary() -> None:
    import ctypes
    import os

    opens, begun, opened = (threading.Event() for _ in range(3))
    numbers: list[int] = []

    def learn() -> None:
        numbers.append(threading.get_native_id())
        begun.set()
        opened.wait(10.0)

    def other() -> None:
        opens.wait(10.0)
        threads = [threading.Thread(target=learn) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def native() -> None:
        """A thread that is not Python's, with an ordinary priority, as of JACK's library."""
        libc, number = ctypes.CDLL(None), ctypes.c_ulong()
        attributes = ctypes.create_string_buffer(128)
        libc.pthread_attr_init(attributes)
        libc.pthread_attr_setinheritsched(attributes, 1)
        assert libc.pthread_create(ctypes.byref(number), attributes, libc.sleep, 2) == 0

    before = threading.Thread(target=other)
    before.start()
    tasks = set(os.listdir("/proc/self/task"))
    with raised_for_new_threads() as granted:
        native()
        opens.set()
        assert begun.wait(10.0)
    try:
        if granted <= 0:
            pytest.skip("no real-time priority is granted here")
        ours = {str(thread.native_id) for thread in threading.enumerate()}
        natives = set(os.listdir("/proc/self/task")) - tasks - ours
        assert {os.sched_getscheduler(int(number)) for number in natives} == {os.SCHED_FIFO}
        assert {os.sched_getscheduler(number) for number in numbers} == {os.SCHED_OTHER}
    finally:
        opened.set()
        before.join()


def test_a_python_thread_that_is_just_starting_is_known_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Started, and by the system's count there, but not yet run.
    numbers = iter([None, None, 7])
    starting = SimpleNamespace(native_id=None)

    def enumerate() -> list[SimpleNamespace]:
        starting.native_id = next(numbers, 7)
        return [SimpleNamespace(native_id=5), starting]

    monkeypatch.setattr(threading, "enumerate", enumerate)
    assert _python_threads() == {5, 7}


def test_a_click_is_found_again_in_noise_and_at_any_level() -> None:
    heard = np.random.default_rng(1).normal(0.0, 1e-3, 20000).astype(np.float32)
    for place, level in ((1000, 0.5), (2160, -0.25)):
        heard[place : place + 192] += np.float32(level) * click()
    arrivals, levels = find_clicks(heard)
    assert arrivals == [1000, 2160]
    assert levels == pytest.approx([0.5, 0.25], rel=0.02)
    assert find_clicks(np.zeros(20000, np.float32)) == ([], [])
    assert (
        find_clicks(0.1 * np.random.default_rng(2).normal(size=20000).astype(np.float32))[0] == []
    )


def test_the_levels_begins_with_the_model_that_is_asked_for(stand_in: Path) -> None:
    assert fallback_levels_of("dry") == ("dry",)
    assert fallback_levels_of("replicate") == ("replicate", "dry")
    assert fallback_levels_of(str(stand_in)) == ("stand-in", "replicate", "dry")
    assert fallback_levels_of("small") == ("small", "replicate", "dry")
    assert fallback_levels_of("small-int8") == ("small-int8", "replicate", "dry")
    # Beyond 48 kHz the octaves are the first to be done without.
    assert fallback_levels_of("small", 2) == ("small+octave", "small", "replicate", "dry")
    assert fallback_levels_of("replicate", 4) == ("replicate+octaves", "replicate", "dry")
    assert fallback_levels_of("dry", 2) == ("dry",)
    with pytest.raises(RtsrError, match="unknown"):
        fallback_levels_of("enormous")


def test_the_levels_goes_down_by_size_and_keeps_int8_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = {"small": (2, "fp32"), "base": (11, "fp16"), "base-int8": (11, "int8")}

    def described(name: str) -> SimpleNamespace:
        parameters, precision = sizes[name]
        is_for_cpu = precision == "int8"
        return SimpleNamespace(
            metadata=SimpleNamespace(parameters=parameters, is_for_cpu=is_for_cpu)
        )

    monkeypatch.setattr(fallback_levels, "bundled", lambda: tuple(sizes))
    monkeypatch.setattr(fallback_levels, "find_model", described)
    assert fallback_levels_of("base") == ("base", "small", "replicate", "dry")
    assert fallback_levels_of("base-int8") == ("base-int8", "replicate", "dry")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"worker": "fibre"}, "process, thread"),
        ({"channels": 9}, "1 to 8"),
        ({"block": 7}, "16 to 8192"),
        ({"sample_format": "uint8"}, "float32"),
        ({"allowance_ms": -1.0}, "0 to 1000"),
        ({"cutoff_hz": 10.0}, "500"),
        ({"threads": 10_000}, "threads"),
        ({"model": "enormous"}, "unknown"),
        ({"channels": 1.5}, "number of channels must be an integer"),
        ({"rate": 48000.0}, "rate must be an integer"),
        ({"output_rate": "48000"}, "rate must be an integer"),
        ({"block": "128"}, "device block must be an integer"),
        ({"block": 128.5}, "device block must be an integer"),
        ({"sample_format": []}, "float32"),
        ({"allowance_ms": "5"}, "allowance for a step must be a number"),
        ({"input_device": 1.5}, "input device is given by its number or a part of its name"),
        ({"output_device": Path("x")}, "output device is given by its number"),
        ({"controls": ["wet"]}, "names with their values"),
        ({"controls": {"volume": 1.0}}, "volume"),
        ({"controls": {"wet": 2.0}}, "wet"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_opened(wrong: dict, words: str) -> None:
    with pytest.raises(RtsrError, match=words):
        LiveSession(LiveSettings(**wrong))


def test_settings_go_to_the_worker_whatever_kind_of_path_or_number_they_are() -> None:
    path = bundled()["small"]
    settings = LiveSettings(
        model=path, octave_model=path, channels=np.int64(2), threads=np.int64(1)
    )
    settings.check()
    worker = settings.for_worker(24000.0, np.int64(192), np.int64(2))
    assert json.loads(json.dumps(asdict(worker)))["model"] == str(path)
    LiveSession(settings)


def test_a_session_that_does_not_run_says_so() -> None:
    session = LiveSession(LiveSettings(model="dry"))
    for use in (
        session.snapshot,
        session.report,
        lambda: session.controls,
        lambda: session.latency,
    ):
        with pytest.raises(RtsrError, match=r"start\(\)"):
            use()
    session.stop()
    with pytest.raises(ArgumentError, match="thread"):
        LiveSession(LiveSettings(), on_hop=lambda hop, audio, out: None)


def test_a_snapshot_knows_its_newest_change() -> None:
    change = FallbackChange(1.0, "small", "dry", "late")
    assert LiveSnapshot(0.0).last_change is None
    assert LiveSnapshot(0.0, fallback_level_changes=(change,)).last_change is change


def test_figures_are_lines_that_can_be_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    with StatsFile(str(path)) as stats:
        stats.write({"callbacks": 1})
        assert json.loads(path.read_text()) == {"callbacks": 1}
        stats.write({"callbacks": 2})
    assert [json.loads(line)["callbacks"] for line in path.read_text().splitlines()] == [1, 2]
    with StatsFile(None) as stats:
        stats.write({})
    with pytest.raises(RtsrError, match="cannot be written"):
        StatsFile(str(tmp_path))


_QUIET_REPORT = {
    "seconds": 3725.4,
    "latency": {"total_ms": 29.26, "rate": 48000},
    "underrun_events": 0,
    "underrun_frames": 0,
    "overruns": 0,
    "late_callbacks": 0,
    "xruns": 0,
    "worker_restarts": 0,
    "device_restarts": 0,
}


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({}, "played 1:02:05 with 29.3 ms of latency; no under-runs."),
        (
            {"seconds": 0.6, "underrun_events": 1, "underrun_frames": 960, "device_restarts": 2},
            "played 0:00:01 with 29.3 ms of latency; 1 under-run (20 ms played dry), "
            "2 device restarts.",
        ),
    ],
    ids=["nothing happened", "troubles"],
)
def test_the_last_words_of_a_session(counts: dict[str, float], sentence: str) -> None:
    assert summary({**_QUIET_REPORT, **counts}) == sentence

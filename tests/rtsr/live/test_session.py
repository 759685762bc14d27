"""A live session inside a program, on a real sound server, and what `rtsr live` refuses."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from rtsr.cli.app import app
from rtsr.engine.sources import HighBandSource
from rtsr.errors import RtsrError
from rtsr.live import loopback as latency_test
from rtsr.live.loopback import measure_latency
from rtsr.live.monitor.screen import Picture
from rtsr.live.session import LiveSession
from rtsr.live.settings import LiveSettings
from rtsr.live.shared import memory as live_memory
from rtsr.live.worker import worker as worker_module
from rtsr.live.worker.fallback_levels import build_octave_source

RATE = 48000
CUTOFF = 4000.0

QUIET = LiveSettings(model="replicate", cutoff_hz=CUTOFF, raise_priority=False)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("worker", ["process", "thread"])
def test_a_session_runs_and_tells_about_itself(jack_server: Any, worker: str) -> None:
    session = LiveSession(LiveSettings(model="replicate", worker=worker, controls={"wet": 0.5}))
    with session:
        wait_for(lambda: session.report()["steps"] > 30)
        session.controls.set("model", "dry")
        wait_for(lambda: session.snapshot().fallback_level == "dry")
        snapshot = session.snapshot()
        # By now the history has followed, too.
        wait_for(lambda: bool(session.snapshot().fallback_level_changes))
    assert snapshot.state == "playing"
    assert snapshot.fallback_levels == ("replicate", "dry")
    assert snapshot.controls["wet"] == 0.5
    assert snapshot.latency_total_ms == pytest.approx(sum(snapshot.latency_ms.values()))
    assert 0.0 < snapshot.step_p50_ms <= snapshot.step_p99_ms <= snapshot.step_max_ms
    assert len(snapshot.in_db) == len(snapshot.out_db) == 1
    report = session.report()
    assert report["fallback_level"] == "dry"
    assert report["fallback_level_changes"][0]["cause"] == "wanted"
    assert report["callbacks"] > 50
    session.stop()
    assert session.report() is report


@pytest.mark.parametrize("jack_server", [{"rate": 96000, "period": 256}], indirect=True)
def test_a_session_runs_at_the_device_s_own_rate_beyond_48_khz(jack_server: Any) -> None:
    session = LiveSession(replace(QUIET, cutoff_hz=None, controls={"ceiling_hz": 40000.0}))
    with session:
        wait_for(lambda: session.report()["steps"] > 30)
        assert session.snapshot().fallback_level == "replicate+octave"
        session.controls.set("model", "replicate")
        wait_for(lambda: session.snapshot().fallback_level == "replicate")
        snapshot = session.snapshot()
        assert session.controls.get("ceiling_hz") == 40000.0
        assert session.controls.limits("ceiling_hz") == (8000.0, 48000.0)
    assert snapshot.fallback_levels == ("replicate+octave", "replicate", "dry")
    assert (snapshot.rate, snapshot.output_rate, snapshot.top_hz) == (96000, 96000, 48000.0)
    assert snapshot.latency_ms["octaves"] == pytest.approx(164 / 96)
    report = session.report()
    assert (report["rate"], report["output_rate"], report["latency"]["rate"]) == (96000,) * 3
    assert report["latency"]["total_samples"] == pytest.approx(
        report["latency"]["total_ms"] * 96, abs=0.1
    )


class SlowSource:
    """Another source of the octaves, each hop of which takes longer than there is time."""

    def __init__(self, source: HighBandSource) -> None:
        self._source = source
        self.name, self.channels = source.name, source.channels
        self.hops, self.overlap, self.seed = source.hops, source.overlap, source.seed
        self.reset, self.resume = source.reset, source.resume
        self.asked = 0

    def generate(self, audio: np.ndarray, f_prior: np.ndarray, f_target: float) -> np.ndarray:
        self.asked += 1
        # Two hops of an octave belong to 10 ms of sound.
        time.sleep(0.008)
        return self._source.generate(audio, f_prior, f_target)


@pytest.mark.parametrize("jack_server", [{"rate": 96000, "period": 512}], indirect=True)
def test_octaves_that_take_too_long_are_the_first_to_be_done_without(
    jack_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[SlowSource] = []

    def build(*arguments: Any) -> SlowSource:
        built.append(SlowSource(build_octave_source(*arguments)))
        return built[-1]

    monkeypatch.setattr(worker_module, "build_octave_source", build)
    session = LiveSession(replace(QUIET, worker="thread", cutoff_hz=None))
    with session:
        wait_for(lambda: bool(session.snapshot().fallback_level_changes))
        # By then it is faded out.
        steps = session.report()["steps"] + 20
        wait_for(lambda: session.report()["steps"] > steps)
        snapshot, report = session.snapshot(), session.report()
        asked = built[0].asked
        wait_for(lambda: session.report()["steps"] > steps + 50)
        # Nothing asks for it any more.
        assert built[0].asked == asked
    first = snapshot.fallback_level_changes[0]
    assert (first.from_level, first.to_level) == ("replicate+octave", "replicate")
    assert first.cause in ("step time", "late", "ring low")
    # Counted: the steps that took too long, and what was heard as the dry sound meanwhile.
    assert report["step_ms"]["max"] > 16.0
    assert report["late_steps"] > 0
    assert report["underruns"] > 0
    assert report["fallback_level_changes"][0]["to"] == "replicate"
    # Shown, and it plays on; the newest move on a busy machine may be a further one.
    newest = snapshot.fallback_level_changes[-1]
    shown = f"{newest.from_level} → {newest.to_level}: {newest.cause}"
    console = Console(width=100, height=60, record=True, file=io.StringIO())
    console.print(Picture(snapshot, None))
    assert shown in console.export_text()
    assert snapshot.state == "playing"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"output_rate": 96000}, "does not run at 96000 Hz, but at 48000 Hz"),
        ({"rate": 48000, "output_rate": 96000}, "on one clock, at one rate: give 48000 or 96000"),
        ({"octave_model": "octave"}, "plays at 48000 Hz, with no octave beyond 48 kHz"),
        ({"output_rate": 64000}, "The rate must be one of 8000, .* 192000 Hz, not 64000"),
        ({"octave_model": "huge"}, "Model 'huge' is unknown"),
        ({"controls": {"ceiling_hz": 30000.0}}, "'ceiling_hz' takes 8000 to 24000 Hz, not 30000"),
    ],
)
def test_an_output_rate_that_is_not_there_is_answered_with_what_is(
    jack_server: Any, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RtsrError, match=sentence):
        LiveSession(replace(QUIET, **settings)).start()


def test_a_session_can_be_started_again(jack_server: Any) -> None:
    session = LiveSession(QUIET)
    for _ in range(2):
        session.start()
        wait_for(lambda: session.report()["steps"] > 5)
        session.stop()


def test_a_cutoff_that_was_given_is_where_its_control_begins(jack_server: Any) -> None:
    with LiveSession(QUIET) as session:
        assert session.controls.get("cutoff_hz") == CUTOFF
        wait_for(lambda: session.snapshot().cutoff_hz == CUTOFF)
        session.controls.set("cutoff_hz", 6000.0)
        wait_for(lambda: session.snapshot().cutoff_hz == 6000.0)


def test_a_session_that_runs_is_not_started_twice(jack_server: Any) -> None:
    with LiveSession(QUIET) as session:
        with pytest.raises(RtsrError, match="runs already"):
            session.start()
        wait_for(lambda: session.report()["steps"] > 5)


def test_a_session_that_did_not_start_can_be_stopped(jack_server: Any) -> None:
    session = LiveSession(LiveSettings(model="replicate", input_device="no such device"))
    with pytest.raises(RtsrError, match="no such device"):
        session.start()
    session.stop()
    for tell in (session.report, session.snapshot):
        with pytest.raises(RtsrError, match="call start"):
            tell()


@pytest.mark.alone
@pytest.mark.parametrize(
    "jack_server",
    [{}, {"rate": 96000, "period": 256}, {"rate": 192000, "period": 1024, "synchronous": True}],
    indirect=True,
)
def test_a_click_measures_what_the_engine_states(jack_server: Any) -> None:
    stopped = threading.Event()

    def cable() -> None:
        """The output into the input, as soon as both are there."""
        while not stopped.wait(0.02):
            names = jack_server.run("jack_lsp").split()
            ends = [name for name in names if name.endswith((":in_0", ":out_0"))]
            if len(ends) == 2:
                ends.sort(key=lambda name: name.endswith(":in_0"))
                jack_server.run("jack_disconnect", "system:capture_1", ends[1], check=False)
                jack_server.run("jack_connect", *ends)
                return

    thread = threading.Thread(target=cable)
    thread.start()
    try:
        result = measure_latency(QUIET)
    finally:
        stopped.set()
        thread.join()
    # JACK itself is the cable, and a loop through JACK takes a period.
    assert result.measured_samples - result.engine_samples == jack_server.period
    assert result.rate == jack_server.rate
    assert result.engine_samples <= result.stated_samples
    # Beside three periods, which are 8 ms of the 30 at 48 kHz.
    assert result.stated_samples - 3 * jack_server.period <= 22 * result.rate // 1000
    assert result.loss_db == pytest.approx(0.0, abs=0.2)
    assert f"{result.measured_samples} samples" in result.sentence()
    assert result.as_dict()["measured_ms"] == pytest.approx(result.measured_ms, abs=1e-3)


def test_without_a_cable_the_test_says_what_to_connect(
    jack_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency_test, "TRIALS", 1)
    with pytest.raises(RtsrError, match="did not come back; connect the output to the input"):
        measure_latency(QUIET)


def test_nothing_is_left_when_the_worker_cannot_start(
    jack_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    create = live_memory.LiveMemory.create.__func__

    def remember(kind: type, channels: int, rate: int) -> Any:
        memory = create(kind, channels, rate)
        names.append(memory.name)
        return memory

    monkeypatch.setattr(live_memory.LiveMemory, "create", classmethod(remember))
    with pytest.raises(RtsrError, match="tensorrt"):
        LiveSession(LiveSettings(provider="tensorrt")).start()
    assert names
    with pytest.raises(RtsrError, match="no live session's memory"):
        live_memory.LiveMemory.attach(names[0])
    assert all(not thread.name.endswith("guard") for thread in threading.enumerate())


def test_a_program_needs_no_guard_around_its_session(jack_server: Any, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "from rtsr.live.session import LiveSession\n"
        "from rtsr.live.settings import LiveSettings\n"
        "print('once')\n"
        "with LiveSession(LiveSettings(model='replicate')) as session:\n"
        "    while session.report()['steps'] < 20: time.sleep(0.01)\n"
    )
    result = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stdout) == (0, "once\n"), result.stderr


@pytest.mark.alone
def test_a_busy_main_thread_does_not_hold_up_the_sound(
    jack_server: Any, jack_player: Any, make_sound: Callable[..., np.ndarray]
) -> None:
    sound = make_sound(RATE, 4.0, cutoff=CUTOFF)[:, 0]
    with LiveSession(LiveSettings(model="replicate", cutoff_hz=CUTOFF)) as session:
        wait_for(lambda: session.report()["steps"] > 5)
        names = jack_server.run("jack_lsp").split()
        jack_player.start(
            sound,
            into=next(name for name in names if name.endswith(":in_0")),
            out_of=next(name for name in names if name.endswith(":out_0")),
        )
        start = session.report()
        time.sleep(2.0)
        before = session.report()
        end = time.monotonic() + 2.0
        while time.monotonic() < end:  # holds the interpreter's lock throughout
            pass
        after = session.report()
        jack_player.wait()
    # A Python callback would get the lock every 5 ms at best, which is half as often as needed. The
    # rest is for a server that a busy machine makes late.
    assert after["callbacks"] - before["callbacks"] > 0.7 * 2.0 * RATE / jack_server.period
    # What other work on the machine costs, it costs without the busy thread, too.
    others = before["underrun_events"] - start["underrun_events"]
    assert after["underrun_events"] - before["underrun_events"] <= 2 + 2 * others
    assert after["worker_restarts"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--every"], "--json-stats"),
        (["--seconds", "0"], "more than 0"),
        (["--channels", "0"], "1 to 8"),
        (["--frames", "5"], "16 to 8192"),
        (["--format", "uint8"], "float32, int24, int16"),
        (["--wet", "7"], "wet"),
        (["--model", "nonsense"], "unknown"),
        (["--learn", "volume"], "no control 'volume'"),
        (["--midi-map", "nowhere.toml"], "nowhere.toml"),
        (["--worker", "fibre"], "process, thread"),
        (["--json-stats", "/"], "cannot be written"),
    ],
)
def test_wrong_use_ends_in_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = CliRunner().invoke(app, ["live", "--quiet", *arguments])
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rtsr: ")
    assert words in lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "no such device"], "No device's name contains 'no such device'"),
        (["--output", "99"], "There is no device 99"),
        (["--rate", "44100"], "44100 Hz"),
        (["--channels", "6"], "--channels"),
    ],
)
def test_a_device_that_cannot_be_had_is_explained(
    jack_server: Any, arguments: list[str], words: str
) -> None:
    result = CliRunner().invoke(app, ["live", "--quiet", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_meters_fall_silent_while_the_device_is_away(jack_server: Any) -> None:
    def loud(hop: int, audio: np.ndarray, out: np.ndarray) -> None:
        out[:] = 0.5

    with LiveSession(LiveSettings(model="dry", worker="thread"), on_hop=loud) as session:
        wait_for(lambda: session.snapshot().out_db[0] > -10.0)
        jack_server.kill()
        wait_for(lambda: session.snapshot().state == "waiting for the device")
        assert session.snapshot().out_db == (-120.0,)
        assert session.snapshot().out_spectrum.max() == -120.0
        jack_server.start()
        wait_for(lambda: session.snapshot().out_db[0] > -10.0)

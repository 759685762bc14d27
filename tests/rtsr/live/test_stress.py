"""What a live session meets: busy interpreters, busy machines, servers that come and go.

The server waits for its clients (`synchronous`), so that what is lost is lost by the session.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RATE = 48000
CUTOFF = 4000.0
# After the first hop, and before what only the recorder's end cuts off.
ENDS = 20

synchronous = pytest.mark.parametrize("jack_server", [{"synchronous": True}], indirect=True)

# Embeds a session; `--spin` keeps the interpreter's lock busy throughout, `--meek` asks for no
# more processor time than an ordinary program gets.
PROGRAM = f"""
import json, signal, sys, time
from rtsr.live.session import LiveSession
from rtsr.live.settings import LiveSettings

path, *options = sys.argv[1:]
stopped = []
signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))
settings = LiveSettings(cutoff_hz={CUTOFF}, raise_priority="--meek" not in options)
with open(path, "w") as file:
    def tell(session):
        file.write(json.dumps(session.report()) + "\\n")
        file.flush()
    with LiveSession(settings) as session:
        turns = 0
        due = 0.0
        while not stopped:
            turns += 1
            if "--spin" not in options:
                time.sleep(0.02)
            if time.monotonic() >= due:
                due = time.monotonic() + 1.0
                tell(session)
    tell(session)
    print(turns, file=open(path + ".turns", "w"))
"""


@pytest.fixture
def embedded(live: Any, tmp_path: Path) -> Callable[..., None]:
    """`embedded(*options)`: start a program that embeds a session."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return lambda *options: live.run(str(program), str(live.file), *options)


@pytest.fixture
def sound(make_sound: Callable[..., np.ndarray]) -> np.ndarray:
    """Four seconds of narrow-band noise, mono."""
    return make_sound(RATE, 4.0, cutoff=CUTOFF)[:, 0]


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """A program on every core that does nothing but work, of ordinary priority."""
    # Also where the tests themselves were given more.
    work = "import os\nos.nice(max(0, -os.nice(0)))\nwhile True: pass"
    command = [sys.executable, "-c", work]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def heard_and_played(
    recording: Any, sound: np.ndarray, figures: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Both from the first frame played on, once the stated latency is taken out."""
    latency = round(figures["latency"]["algorithmic_samples"])
    heard = recording.sound[latency:]
    return heard, sound[: len(heard)]


def assert_whole(result: Any, recording: Any) -> None:
    """Nothing is missing but what the server itself lost, a cycle and its surroundings each."""
    assert result.broken[ENDS:-ENDS].sum() <= 6 * len(recording.gaps)


def assert_counted(result: Any, figures: dict[str, Any]) -> None:
    """What was played without a high band is known to the session, to the hop."""
    plain = result.plain[ENDS:-ENDS]
    dry_level = figures["fallback_level_seconds"]["dry"] * 100.0
    # A window belongs to two hops, and each change fades.
    fades = 3 * (figures["underrun_events"] + len(figures["fallback_level_changes"]))
    assert plain.sum() <= figures["dry_frames"] / 480.0 + dry_level + fades
    if plain.any():
        assert figures["underrun_events"] + len(figures["fallback_level_changes"]) > 0
    for change in figures["fallback_level_changes"]:
        assert change["cause"]
    total = figures["enhanced_frames"] + figures["dry_frames"] + figures["silent_frames"]
    assert total == figures["frames"]


@pytest.mark.alone
@synchronous
def test_a_spinning_main_thread_leaves_the_sound_whole(
    live: Any,
    embedded: Callable[..., None],
    jack_player: Any,
    sound: np.ndarray,
    compare_sound: Callable[..., Any],
) -> None:
    embedded("--spin")
    recording = jack_player.run(sound)
    figures = live.stop()
    assert int((live.file.parent / "stats.json.turns").read_text()) > 100_000
    result = compare_sound(*heard_and_played(recording, sound, figures))
    assert_whole(result, recording)
    assert_counted(result, figures)
    assert figures["worker_restarts"] == figures["device_restarts"] == 0


@pytest.mark.alone
@synchronous
@pytest.mark.parametrize("options", [(), ("--meek",)], ids=["raised", "last in line"])
def test_on_a_machine_without_time_the_sound_is_plainer_but_whole(
    options: tuple[str, ...],
    live: Any,
    embedded: Callable[..., None],
    jack_player: Any,
    sound: np.ndarray,
    compare_sound: Callable[..., Any],
) -> None:
    embedded(*options)
    if options:
        os.setpriority(os.PRIO_PROCESS, live.figures()[-1]["worker_pid"], 19)
    jack_player.start(sound)
    time.sleep(1.5)
    with busy_cores():
        # A scheduler may find time even for the last in line; four stalls leave no doubt.
        for _ in range(4):
            if options:
                os.kill(live.figures()[-1]["worker_pid"], signal.SIGSTOP)
                time.sleep(0.15)
                os.kill(live.figures()[-1]["worker_pid"], signal.SIGCONT)
            time.sleep(0.35)
    recording = jack_player.wait()
    figures = live.stop()
    result = compare_sound(*heard_and_played(recording, sound, figures))
    assert_whole(result, recording)
    assert_counted(result, figures)
    assert result.plain[ENDS:-ENDS].any() or not options


@pytest.mark.alone
@synchronous
@pytest.mark.parametrize("period", [128, 256])
def test_the_sound_goes_on_with_a_server_that_was_restarted(
    period: int,
    jack_server: Any,
    live: Any,
    jack_player: Any,
    sound: np.ndarray,
    compare_sound: Callable[..., Any],
) -> None:
    live.start("--cutoff", str(CUTOFF))
    process = live.process
    worker = live.figures()[-1]["worker_pid"]
    jack_server.kill()
    jack_server.period = period
    jack_server.start()
    live.wait_for(lambda figures: figures["device_restarts"] == 1)
    recording = jack_player.run(sound[: 2 * RATE])
    figures = live.stop()
    assert live.process is process
    # Another block needs a worker that keeps other reserves.
    assert figures["worker_pid"] == worker or period != 128
    assert figures["device_restarts"] == 1
    assert figures["block"] == period
    result = compare_sound(*heard_and_played(recording, sound[: 2 * RATE], figures))
    assert_whole(result, recording)
    assert not result.plain[ENDS:-ENDS].all()


def refusal(*arguments: str) -> str:
    """The one sentence with which `rtsr live` says no."""
    command = [sys.executable, "-m", "rtsr", "live", "--quiet", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("rtsr: ")
    assert lines[0].endswith(".")
    return lines[0]


@pytest.mark.parametrize("jack_server", [{"rate": 64000}], indirect=True)
def test_a_server_at_a_rate_that_is_not_converted(jack_server: Any) -> None:
    sentence = refusal("--input", "system")
    assert "'system' (JACK Audio Connection Kit) runs at no rate that rtsr converts" in sentence
    assert "rtsr devices" in sentence


def devices() -> list[str]:
    """Names of all devices that a program started now would find."""
    command = [sys.executable, "-m", "rtsr", "devices", "--json"]
    listed = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    return [device["name"] for device in json.loads(listed)["devices"]]


def test_without_a_server_or_a_sound_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    monkeypatch.setenv("JACK_DEFAULT_SERVER", "rtsr-test-nowhere")
    if devices():
        pytest.skip("this machine has a sound card")
    sentence = refusal()
    assert "There is no device to capture with; connect one or start a sound server" in sentence
    assert "ALSA" in sentence


def test_a_server_that_is_gone_by_the_time_of_the_start(jack_server: Any, live: Any) -> None:
    before = devices()
    assert "system" in before
    jack_server.kill()
    sentence = refusal("--input", "system")
    if before == ["system"]:
        assert "There is no device to capture with" in sentence
    else:
        assert "No device's name contains 'system'; there are" in sentence


def test_too_many_channels_and_a_wrong_name_say_what_there_is(jack_server: Any) -> None:
    assert "has 2 output channel(s), not 3" not in (sentence := refusal("--channels", "3"))
    assert "has 2 input channel(s), not 3; use --channels 2 or another device" in sentence
    assert "there are 0 'system'" in refusal("--output", "Studio 24")

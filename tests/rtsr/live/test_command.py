"""`rtsr live` and `rtsr devices` as commands: wrong use, files of figures, stop requests."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rtsr.cli import app as application
from rtsr.cli.knobs import Knobs
from rtsr.cli.live_run import play, until_signal
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour, read_colour
from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.live.controls.midi import ports as midi_ports
from rtsr.live.monitor.stats_file import StatsFile
from rtsr.live.session import LiveSession
from rtsr.live.settings import LiveSettings
from rtsr.runtime.models import find_model

LIVE = [sys.executable, "-m", "rtsr", "live", "--model", "dry", "--quiet"]
# A server that waits for its clients drops none on a busy machine.
on_jack = pytest.mark.parametrize("jack_server", [{"synchronous": True}], indirect=True)
posix = pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")


def live(*arguments: str) -> Any:
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"})
    return runner.invoke(application.app, ["live", *arguments])


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that get as far as their devices, which are not there."""

    def start(session: LiveSession) -> None:
        raise RtsrError("There is no device to capture with.")

    monkeypatch.setattr(LiveSession, "start", start)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rate", "47999"], "192000 Hz, not 47999."),
        (["--listen", "127.0.0.1:9000"], "--listen says where the page is; give --page, too."),
        (["--page", "--listen", "nowhere"], "write HOST:PORT"),
        (["--page", "--test"], "leave out --page"),
        (["--colour", "auto", "--test"], "leave out --colour auto."),
        (["--model", "dry", "--octave-model", "small"], "'dry' has no octave"),
        (["--page", "--listen", "203.0.113.9:80"], "Cannot listen on 203.0.113.9:80"),
        (["--channels", "0"], "A live session has 1 to 8 channels, not 0."),
        (["--channels", "9"], "A live session has 1 to 8 channels, not 9."),
        (["--format", "s16"], "must be one of float32, int24, int16, not 's16'."),
        (["--frames", "-1"], "The device block must be 16 to 8192 frames"),
        (["--provider", "rocket"], "Provider 'rocket' is unknown; choose one of auto, cpu"),
        (["--threads", "0"], "threads on this machine, not 0."),
        (["--cutoff", "nan"], "The cutoff must lie between 500 and 24000 Hz"),
        (["--worker", "robot"], "The worker must be one of process, thread"),
        (["--allowance-ms", "nan"], "The allowance for a step must be 0 to 1000 ms"),
        (["--model", "none"], "Model 'none' is unknown; bundled: "),
        (["--wet", "2"], "Control 'wet' takes 0 to 1"),
        (["--seed", "-1"], "Control 'seed' takes whole numbers"),
        (["--seconds", "nan"], "--seconds must be more than 0, not nan."),
        (["--test", "--seconds", "9", "--learn", "wet"], "leave out --seconds, --learn."),
        (["--test", "--worker", "process"], "leave out --worker process."),
        (["--every"], "--every adds lines to the file of --json-stats"),
        (["--json-stats", "none/a.json"], "Stats file 'none/a.json' cannot be written: No such"),
        (["--midi-map", "none.toml"], "Cannot read the MIDI map 'none.toml'"),
        (["--learn", "volume"], "There is no control 'volume'; there are wet,"),
        (["--json-stats", "a.json"], "There is no device to capture with."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = live(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("rtsr: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_device")
def test_a_session_that_does_not_start_leaves_the_last_figures(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text("of yesterday")
    assert live("--json-stats", str(path)).exit_code == 2
    assert path.read_text() == "of yesterday"


def test_figures_replace_those_that_were_there(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text("of yesterday\n" * 100)
    with StatsFile(str(path)) as stats:
        stats.write({"callbacks": 1})
        stats.write({"callbacks": 2})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"callbacks": 1},
        {"callbacks": 2},
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_named() -> None:
    reason = os.strerror(errno.ENOSPC)
    with (
        StatsFile("/dev/full") as stats,
        pytest.raises(RtsrError, match=f"^Stats file '/dev/full' cannot be written: {reason}.$"),
    ):
        stats.write({"callbacks": 1})


def test_figures_for_a_closed_stdout_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(RtsrError, match="stdout is closed"):
        StatsFile("-")


def test_without_midi_the_knobs_are_refused_before_the_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> dict[str, int]:
        raise MissingDependencyError("MIDI control", "live")

    monkeypatch.setattr(midi_ports, "midi_systems", missing)
    with pytest.raises(MissingDependencyError, match=r"rtsr\[live\]"):
        Knobs("desk", None, None)
    Knobs(None, None, None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--midi", "fader"], "There is no MIDI port whose name contains 'fader'; there are: "),
        (["--midi", "7"], "There is no MIDI port number 7; there are: "),
        (["--learn", "wet"], "There are several MIDI devices; choose one of: "),
    ],
    ids=["name", "number", "none named"],
)
def test_an_unknown_midi_port_is_refused_before_worker_and_sound(
    options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [midi_ports.MidiPort("jack", "left:knobs"), midi_ports.MidiPort("alsa", "right 20:0")]
    monkeypatch.setattr(midi_ports, "list_ports", lambda system: there)
    monkeypatch.setattr(LiveSession, "start", lambda session: pytest.fail("it starts"))
    map_file = tmp_path / "map.toml"
    map_file.write_text('[[control]]\nname = "wet"\ncc = 21\n')
    done = live("--model", "dry", *options, "--midi-map", str(map_file))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr == f"rtsr: {sentence}0 'left:knobs' (jack), 1 'right 20:0' (alsa).\n"


@posix
def test_a_stop_while_it_loads_lets_no_sound_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveSession, "start", lambda session: pytest.fail("it starts"))
    path = tmp_path / "stats.json"
    settings = LiveSettings(model="dry")
    with until_signal() as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            play(settings, stopped, None, True, str(path), True, Knobs(None, None, None))
    assert not path.exists()


@posix
@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_the_end_of_the_terminal_stops_it_unless_under_nohup(before: Any) -> None:
    kept = signal.signal(signal.SIGHUP, before)
    try:
        with until_signal() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stopped.is_set() is (before is signal.SIG_DFL)
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, kept)


@posix
def test_an_interrupt_while_modules_load_is_quiet() -> None:
    program = """
import sys
class Interrupts:
    def find_spec(self, name, *rest):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from rtsr.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@posix
@pytest.mark.parametrize(
    ("options", "waited_for"),
    [
        ([], "loading the model, opening devices"),
        (["--test"], "sending a click from the output to the input"),
        (["--quiet"], ""),
    ],
    ids=["playing", "measuring", "quiet"],
)
def test_a_terminal_says_what_is_waited_for_until_there_is_more(
    options: list[str], waited_for: str
) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [*LIVE[:-1], "--input", "no device", *options]
    server = {"TERM": "xterm", "JACK_DEFAULT_SERVER": "none", "JACK_NO_START_SERVER": "1"}
    with subprocess.Popen(
        command, stderr=theirs, stdout=subprocess.DEVNULL, env={**os.environ, **server}
    ) as process:
        assert process.wait(60) == 2
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    meanwhile, _, sentence = said.rpartition("\x1b[2K")
    assert waited_for in meanwhile
    assert bool(meanwhile) == bool(waited_for)
    assert re.fullmatch(r"rtsr: (There is no|No) device.*\r\n", sentence)


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_code_remains_where_a_sentence_cannot_be_written() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*LIVE, "--channels", "9"], stderr=full, check=False)
    assert done.returncode == 2


@posix
@pytest.mark.usefixtures("jack_server")
@on_jack
@pytest.mark.parametrize(
    ("options", "number", "code"),
    [
        (["--json-stats", "stats.json", "--every"], signal.SIGINT, 0),
        (["--json-stats", "stats.json", "--every"], signal.SIGTERM, 0),
        (["--json-stats", "stats.json", "--every"], signal.SIGHUP, 0),
        (["--test"], signal.SIGHUP, 129),
    ],
    ids=["interrupted", "terminated", "hung up", "hung up while it measures"],
)
def test_a_stop_leaves_nothing_behind(
    options: list[str], number: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [*LIVE, *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # ignored under nohup
    )
    stats = tmp_path / "stats.json"
    wait_for(process, lambda: (stats.exists() and stats.read_text()) or "--test" in options)
    if "--test" in options:
        wait_for(process, lambda: shared_memory_of(process.pid))
    memory = shared_memory_of(process.pid)
    assert memory
    process.send_signal(number)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (code, b"", b""), errors.decode()
    assert not any(os.path.exists(path) for path in memory)
    if "--test" not in options:
        assert json.loads(stats.read_text().splitlines()[-1])["callbacks"] > 0


@posix
@pytest.mark.usefixtures("jack_server")
@on_jack
def test_the_last_words_say_how_it_went() -> None:
    loud = [option for option in LIVE if option != "--quiet"]
    done = subprocess.run(
        [*loud, "--seconds", "1.2"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
    first, last = done.stderr.splitlines()
    assert first.startswith("rtsr: from 'system' to 'system' with dry")
    assert re.fullmatch(
        r"rtsr: played 0:00:01 with \d+\.\d ms of latency; .* ?under-runs?.*\.", last
    )


@pytest.mark.usefixtures("jack_server")
@on_jack
def test_on_jack_the_period_of_the_server_is_the_block(tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    command = [*LIVE, "--frames", "64", "--seconds", "0.2", "--json-stats", str(stats)]
    subprocess.run(command, check=True, timeout=60)
    assert json.loads(stats.read_text())["block"] == 128


@pytest.mark.usefixtures("jack_server")
@on_jack
def test_both_sides_of_a_stereo_device_are_taken(tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    command = [*LIVE, "--seconds", "0.5", "--json-stats", str(stats)]
    subprocess.run(command, check=True, timeout=60)
    assert json.loads(stats.read_text())["channels"] == 2


@posix
@pytest.mark.usefixtures("jack_server")
@on_jack
def test_a_full_disk_does_not_end_the_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()
    lines: list[dict[str, Any]] = []

    def write(self: StatsFile, figures: dict[str, Any]) -> None:
        lines.append(figures)
        if len(lines) < 3:
            raise RtsrError("Stats file cannot be written.")
        written.set()

    monkeypatch.setattr(StatsFile, "write", write)
    settings = LiveSettings(model="dry", worker="thread")
    path = str(tmp_path / "stats.json")
    play(settings, written, 20.0, True, path, True, Knobs(None, None, None))
    assert len(lines) == 4


@posix
@pytest.mark.usefixtures("jack_server")
@on_jack
def test_what_was_learnt_is_kept_also_where_the_figures_cannot_be_written(tmp_path: Path) -> None:
    facts = find_model("small").metadata
    auto = AutoColour(Colour(facts.name, facts.weights_sha256, 12.0, ((2.0,) * 24,) * 4))
    auto.learnt_hops = 100
    settings = LiveSettings(model="small", worker="thread", colour=auto)
    kept = tmp_path / "me.json"
    with pytest.raises(RtsrError, match="Stats file"):
        play(
            settings,
            threading.Event(),
            0.1,
            True,
            "/dev/full",
            False,
            Knobs(None, None, None),
            kept_colour=kept,
        )
    assert read_colour(kept) == auto.learnt


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90.0
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def shared_memory_of(pid: int) -> set[str]:
    """Paths of the sessions' memory that a process has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {line.split(maxsplit=5)[5] for line in lines if "/rtsr-live-" in line}

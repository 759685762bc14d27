"""MIDI controls on real ports: JACK MIDI over JACK's dummy driver."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, Server, midi_server

from rtsr.errors import ArgumentError, MissingDependencyError, RtsrError
from rtsr.live.controls.board import ControlBoard
from rtsr.live.controls.midi.listener import MidiControls
from rtsr.live.controls.midi.map import MidiMap, load_map, parse_map
from rtsr.live.controls.midi.ports import MidiPort, choose_port, list_ports

rtmidi = pytest.importorskip("rtmidi", reason="python-rtmidi is not installed")

pytestmark = pytest.mark.clocked

MAP = """\
# kept
[[control]]
name = "wet"
cc = 21

[[control]]
name = "level_db"
cc = 22
channel = 2
"""


@pytest.fixture
def server() -> Iterator[Server]:
    if shutil.which("jackd") is None:
        pytest.skip("jackd is not installed (Debian: jackd2)")
    with midi_server() as server:
        yield server


@pytest.fixture
def plug(server: Server) -> Iterator[Callable[[str], Desk]]:
    desks: list[Desk] = []

    def plug_in(name: str) -> Desk:
        desks.append(Desk(name))
        return desks[-1]

    yield plug_in
    for desk in desks:
        desk.put_away()


@pytest.fixture
def listening() -> Iterator[Callable[..., MidiControls]]:
    opened: list[MidiControls] = []

    def listen(board: ControlBoard, text: str = MAP, port: Any = "desk") -> MidiControls:
        opened.append(MidiControls(board, parse_map(text, "map"), port, poll_seconds=0.1))
        return opened[-1]

    yield listen
    for controls in opened:
        controls.close()


def _until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def _moves(desk: Desk, board: ControlBoard, value: int) -> bool:
    """Whether a knob's messages arrive; JACK needs some cycles to make a new connection."""

    def arrived() -> bool:
        desk.send(0xB0, 21, value)
        return board.get("wet") == value / 127

    return _until(arrived)


def test_knobs_move_controls(
    plug: Callable[[str], Desk], listening: Callable[..., MidiControls]
) -> None:
    desk, board = plug("desk"), ControlBoard()
    controls = listening(board)
    assert controls.connected
    assert controls.port_name == "desk:knobs"
    assert _moves(desk, board, 127)
    desk.send(0xB0, 21, 64)
    assert _until(lambda: board.get("wet") == 0.5)
    # Another channel, a note, and a knob that is not in the map move nothing.
    for message in [(0xB0, 22, 0), (0x91, 22, 0), (0xB1, 23, 0), (0xB1, 123, 0)]:
        desk.send(*message)
    desk.send(0xB1, 22, 127)
    assert _until(lambda: board.get("level_db") == 12.0)
    assert board.get("wet") == 0.5


def test_a_message_that_cannot_be_followed_is_logged_and_left_out(
    plug: Callable[[str], Desk], caplog: pytest.LogCaptureFixture
) -> None:
    class FailingBoard(ControlBoard):
        def from_unit(self, name: str, *place: float) -> float:
            if name == "level_db":
                raise ValueError("not foreseen")
            return super().from_unit(name, *place)

    desk, board = plug("desk"), FailingBoard()
    with MidiControls(board, parse_map(MAP, "map")):
        assert _moves(desk, board, 127)
        desk.send(0xB1, 22, 127)
        assert _moves(desk, board, 0)
    assert "[177, 22, 127]" in caplog.text
    assert "not foreseen" in caplog.text


def test_a_whole_sweep_arrives_in_order(plug: Callable[[str], Desk]) -> None:
    heard: list[tuple[str, float]] = []

    class ListeningBoard(ControlBoard):
        def from_unit(self, name: str, *place: float) -> float:
            heard.append((name, super().from_unit(name, *place)))
            return heard[-1][1]

    desk = plug("desk")
    with MidiControls(ListeningBoard(), parse_map(MAP, "map")):
        for value in range(128):
            desk.send(0xB5, 21, value)
        assert _until(lambda: len(heard) == 128)
    assert heard[0] == ("wet", 0.0)
    assert heard[-1] == ("wet", 1.0)
    assert heard == sorted(heard)


def test_a_device_that_was_away_is_taken_up_again(
    plug: Callable[[str], Desk], listening: Callable[..., MidiControls]
) -> None:
    desk, board = plug("desk"), ControlBoard()
    plug("other")
    controls = listening(board)
    desk.send(0xB0, 21, 0)
    assert _until(lambda: board.get("wet") == 0.0)
    desk.unplug()
    assert _until(lambda: not controls.connected)
    assert board.get("wet") == 0.0
    again = plug("desk")
    assert _until(lambda: controls.connected)
    assert _moves(again, board, 127)


def test_a_device_that_is_away_for_a_moment_is_noticed(plug: Callable[[str], Desk]) -> None:
    desk = plug("desk")
    plug("other")
    with MidiControls(ControlBoard(), parse_map(MAP, "map"), "desk", poll_seconds=60.0) as controls:
        time.sleep(0.2)
        assert controls.connected
        desk.unplug()
        assert _until(lambda: not controls.connected)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_midi_system_that_was_away_is_taken_up_again(
    how: str,
    server: Server,
    plug: Callable[[str], Desk],
    listening: Callable[..., MidiControls],
    capfd: pytest.CaptureFixture[str],
) -> None:
    plug("desk")
    board = ControlBoard()
    controls = listening(board)
    getattr(server, how)()
    assert _until(lambda: not controls.connected)
    time.sleep(0.5)
    # The screen is on this terminal: nothing may be printed into it.
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""
    server.start()
    again = plug("desk")
    assert _until(lambda: controls.connected)
    assert _moves(again, board, 0)


def test_learning(
    plug: Callable[[str], Desk], listening: Callable[..., MidiControls], tmp_path: Path
) -> None:
    desk, board = plug("desk"), ControlBoard()
    path = tmp_path / "map.toml"
    path.write_text(MAP)
    controls = listening(board)
    # Another page learns a knob meanwhile.
    with path.open("a") as file:
        file.write('\n[[control]]\nname = "gate_dbfs"\ncc = 33\n')

    def turn() -> None:
        time.sleep(0.2)
        desk.send(0x90, 60, 127)
        desk.send(0xB3, 21, 99)

    turning = threading.Thread(target=turn)
    turning.start()
    binding = controls.learn("tilt_db", path, timeout=10)
    turning.join()
    assert (binding.name, binding.channel, binding.cc) == ("tilt_db", 4, 21)
    # The knob moved `wet` before: it rested while learning, and no longer does so now.
    assert board.get("wet") == 1.0
    desk.send(0xB3, 21, 127)
    assert _until(lambda: board.get("tilt_db") == 6.0)
    assert board.get("wet") == 1.0
    assert load_map(path) == controls.midi_map
    assert path.read_text().startswith("# kept\n")


def test_learning_gives_up(
    plug: Callable[[str], Desk], listening: Callable[..., MidiControls], tmp_path: Path
) -> None:
    desk, board = plug("desk"), ControlBoard()
    controls = listening(board)
    with pytest.raises(RtsrError, match=r"No knob of 'desk:knobs' was moved in 0\.2 s"):
        controls.learn("wet", tmp_path / "map.toml", timeout=0.2)
    with pytest.raises(ArgumentError, match="no control 'volume'"):
        controls.learn("volume", tmp_path / "map.toml")
    assert not (tmp_path / "map.toml").exists()
    desk.send(0xB0, 21, 0)
    assert _until(lambda: board.get("wet") == 0.0)


def test_learning_is_given_up_from_another_thread(
    plug: Callable[[str], Desk], listening: Callable[..., MidiControls], tmp_path: Path
) -> None:
    plug("desk")
    controls = listening(ControlBoard())
    said: list[str] = []

    def learn() -> None:
        with pytest.raises(RtsrError) as ended:
            controls.learn("wet", tmp_path / "map.toml", timeout=60)
        said.append(str(ended.value))

    learning = threading.Thread(target=learn)
    learning.start()
    assert _until(lambda: controls._learning is not None)
    with pytest.raises(RtsrError, match="Another knob is being learnt"):
        controls.learn("tilt_db", tmp_path / "map.toml", timeout=60)
    controls.give_up_learning()
    learning.join(10)
    assert said == ["Learning a knob for wet was given up."]
    assert not (tmp_path / "map.toml").exists()


def test_the_sound_goes_on_while_a_knob_is_awaited(
    jack_server: Any, live: Any, tmp_path: Path
) -> None:
    desk, path = Desk("desk"), tmp_path / "map.toml"
    path.write_text(MAP)
    try:
        live.start(
            *("--model", "dry", "--midi", "desk", "--midi-map", str(path), "--learn", "tilt_db")
        )
        live.wait_for(lambda figures: len(live.figures()) >= 3)
        assert load_map(path) == parse_map(MAP, "map")

        def is_learnt() -> bool:
            # Whoever turns a knob sends more than one message.
            desk.send(0xB3, 21, 99)
            return "tilt_db" in path.read_text()

        assert _until(is_learnt)
        assert live.stop()["callbacks"] > 0
    finally:
        desk.put_away()


def test_choosing_a_port(plug: Callable[[str], Desk]) -> None:
    with pytest.raises(RtsrError, match="There is no MIDI device here"):
        choose_port(None)
    plug("desk left")
    assert choose_port(None) == MidiPort("jack", "desk left:knobs")
    plug("desk right")
    assert choose_port("RIGHT").name == "desk right:knobs"
    assert choose_port("desk left:knobs").name == "desk left:knobs"
    assert choose_port("1", "jack") == choose_port(1) == list_ports("jack")[1]
    listed = "0 'desk left:knobs' (jack), 1 'desk right:knobs' (jack)"
    for wanted, problem in [
        ("fader", "There is no MIDI port whose name contains 'fader'; there are: "),
        ("desk", "'desk' could be any of these MIDI ports: "),
        ("7", "There is no MIDI port number 7; there are: "),
        (None, "There are several MIDI devices; choose one of: "),
    ]:
        with pytest.raises(RtsrError) as caught:
            choose_port(wanted)
        assert str(caught.value) == problem + listed + "."


def test_the_program_refuses_an_unknown_port_before_it_looks_for_sound(
    plug: Callable[[str], Desk],
) -> None:
    plug("desk")
    command = [sys.executable, "-m", "rtsr", "live", "--quiet", "--model", "dry"]
    # The devices come after the worker, and these are not there either.
    devices = ["--input", "no such device", "--output", "no such device"]
    done = subprocess.run(
        [*command, *devices, "--midi", "fader"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("rtsr: There is no MIDI port whose name contains 'fader'; ")
    assert "'desk:knobs' (jack)" in done.stderr


def test_no_midi_system(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("JACK_DEFAULT_SERVER", "rtsr-there-is-none")
    with pytest.raises(RtsrError, match="No MIDI system answers here"):
        MidiControls(ControlBoard(), MidiMap(), "desk", system="jack")
    with pytest.raises(
        ArgumentError, match="no MIDI system 'oss' here; choose auto or alsa or jack"
    ):
        list_ports("oss")
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_rtmidi_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rtmidi", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "rtsr\[live\]"'):
        MidiControls(ControlBoard(), MidiMap())


@pytest.mark.parametrize(
    ("name", "device"),
    [
        (
            "nanoKONTROL2:nanoKONTROL2 nanoKONTROL2 _ CTR 24:0",
            "nanoKONTROL2:nanoKONTROL2 nanoKONTROL2 _ CTR",
        ),
        ("desk:knobs", "desk:knobs"),
        ("Launch Control XL 0", "Launch Control XL 0"),
    ],
)
def test_what_stays_of_a_name(name: str, device: str) -> None:
    assert MidiPort("alsa", name).device == device

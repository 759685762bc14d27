"""Keys: what each does, and a real (pseudo-)terminal that is left as it was."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from rtsr.live.controls.board import CONTROLS, ControlBoard
from rtsr.live.controls.keyboard import KEYS, Keyboard, KeyControls, round_step, turned
from rtsr.live.controls.terminal import decode_keys

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
termios = pytest.importorskip("termios")


@pytest.fixture
def board() -> ControlBoard:
    return ControlBoard(fallback_levels=("small", "replicate", "dry"))


@pytest.fixture
def keys(board: ControlBoard) -> KeyControls:
    return KeyControls(board, on_quit=lambda: None)


@pytest.mark.parametrize(
    ("pressed", "name", "value"),
    [
        (" ", "bypass", 1.0),
        ("b b", "bypass", 0.0),
        ("w", "wet", 0.95),
        ("w w W", "wet", 0.95),
        ("W", "wet", 1.0),
        ("L L l", "level_db", 1.0),
        ("t", "tilt_db", -0.5),
        ("c", "ceiling_hz", 22653.0),
        ("c C C", "ceiling_hz", 24000.0),
        ("G", "gate_dbfs", -98.0),
        ("g", "gate_dbfs", -100.0),
        ("m", "model", 1.0),
        ("m m m", "model", 0.0),
        ("M", "model", 2.0),
        ("o o", "colour", 0.9),
        ("O", "colour", 1.0),
        ("s s", "seed", 2.0),
        ("left left", "wet", 0.9),
        ("page-down", "wet", 0.75),
        ("home", "wet", 0.0),
        ("down right", "level_db", 1.0),
        ("down end", "level_db", 12.0),
        ("down end d", "level_db", 0.0),
        ("f", "cutoff_hz", 22653.0),
        ("up home", "cutoff_hz", 500.0),
        ("up up left", "seed", 0.0),
        ("up up up end", "model", 2.0),
        ("down right r", "level_db", 0.0),
        ("x 5 F11", "wet", 1.0),
    ],
)
def test_what_keys_do(
    pressed: str, name: str, value: float, board: ControlBoard, keys: KeyControls
) -> None:
    for key in [pressed] if pressed == " " else pressed.split():
        keys.press(key)
    assert board.get(name) == value


@pytest.mark.parametrize("key", ["d", "r"])
def test_beyond_48_khz_a_default_leaves_the_octaves_on(key: str) -> None:
    board = ControlBoard(top_hz=96000.0)
    keys = KeyControls(board, on_quit=lambda: None)
    while keys.chosen != "ceiling_hz":
        keys.press("down")
    keys.press("left")
    assert board.get("ceiling_hz") < 96000.0
    keys.press(key)
    assert board.get("ceiling_hz") == 96000.0


def test_every_documented_key_means_something(board: ControlBoard) -> None:
    quits: list[bool] = []
    keys = KeyControls(board, on_quit=lambda: quits.append(True))
    for names, _ in KEYS:
        for name in names.split():
            assert keys.press(" " if name == "space" else name), name
    assert quits == [True]
    assert keys.show_keys
    assert not keys.press("z")


def test_every_control_has_a_place_among_the_chosen(keys: KeyControls) -> None:
    chosen = []
    for _ in CONTROLS:
        chosen.append(keys.chosen)
        keys.press("down")
    assert chosen == [control.name for control in CONTROLS]
    assert keys.chosen == CONTROLS[0].name


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_steps_stay_in_range_and_reach_both_ends(control: object) -> None:
    kind, low, high = control.kind, control.low, control.high  # type: ignore[attr-defined]
    if kind in ("switch", "choice", "integer"):
        assert turned(kind, low, 1, low, high) == low + 1
        return
    seen = [high]
    while seen[-1] > low:
        seen.append(turned(kind, seen[-1], -1, low, high))
        assert low <= seen[-1] < seen[-2]
    assert 10 <= len(seen) <= 70
    while (value := turned(kind, seen[-1], 1, low, high)) > seen[-1]:
        seen.append(value)
    assert seen[-1] == high


def test_a_value_between_two_steps_moves_to_the_next() -> None:
    assert turned("linear", 0.512, 1, 0.0, 1.0) == 0.55
    assert turned("linear", 0.512, -1, 0.0, 1.0) == 0.5
    assert [round_step(step) for step in (0.04, 0.4, 1.2, 2.3, 8.0)] == [0.05, 0.5, 1, 2, 10]


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"wW ?", ["w", "W", " ", "?"]),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1bOA\x1bOHq", ["up", "home", "q"]),
        (b"\x1b[5~\x1b[6~\x1b[1~\x1b[4~", ["page-up", "page-down", "home", "end"]),
        (b"\x1b[1;5Cq", ["q"]),
        (b"\x1bq", []),
        (b"\x1b", []),
        (b"\x1b\x1b[A", ["up"]),
        (b"\x1b[15~b", ["b"]),
        ("ü".encode(), ["ü"]),
        (b"\xc3", []),
        (b"", []),
    ],
)
def test_decoding(data: bytes, keys: list[str]) -> None:
    assert decode_keys(data) == keys


PROGRAM = """
import sys, threading
from rtsr.live.controls.board import ControlBoard
from rtsr.live.controls.keyboard import KeyControls, Keyboard
board, stop = ControlBoard(), threading.Event()
with Keyboard(KeyControls(board, stop.set)) as keyboard:
    print("active" if keyboard.active else "no terminal", flush=True)
    stop.wait(20)
print("wet", board.get("wet"), flush=True)
"""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    controller, user = pty.openpty()
    yield controller, user
    os.close(controller)
    os.close(user)


def _start(user: int, program: str, before: Callable[[], None]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=user,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def _in_front(user: int) -> Callable[[], None]:
    def before() -> None:
        import fcntl

        os.setsid()
        fcntl.ioctl(user, termios.TIOCSCTTY, 0)

    return before


def _line(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def _until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _waits_for_lines(user: int) -> bool:
    return bool(termios.tcgetattr(user)[3] & termios.ICANON)


@pytest.mark.parametrize("how", ["key", "interrupt"])
def test_keys_from_a_terminal_that_is_left_as_it_was(how: str, terminal: tuple[int, int]) -> None:
    controller, user = terminal
    before = termios.tcgetattr(user)
    program = _start(user, PROGRAM, _in_front(user))
    assert _line(program) == "active"
    assert _until(lambda: not _waits_for_lines(user))
    # Two steps down, the second as an escape sequence in two parts.
    os.write(controller, b"w\x1b[")
    time.sleep(0.01)
    os.write(controller, b"D")
    if how == "key":
        time.sleep(0.1)
        os.write(controller, b"q")
        assert _line(program) == "wet 0.9"
    else:
        os.write(controller, b"\x03")
    program.communicate(timeout=10)
    assert (program.returncode == 0) == (how == "key")
    assert termios.tcgetattr(user) == before
    # Keys are not printed.
    assert b"w" not in _printed(controller)


def _printed(controller: int) -> bytes:
    ready, _, _ = select.select([controller], [], [], 0.1)
    return os.read(controller, 1000) if ready else b""


def test_a_program_in_the_background_is_not_stopped(terminal: tuple[int, int]) -> None:
    _, user = terminal
    before = termios.tcgetattr(user)
    shell = (
        "import os, subprocess, sys\n"
        f"program = subprocess.Popen([sys.executable, '-c', {PROGRAM!r}],"
        " preexec_fn=lambda: os.setpgid(0, 0))\n"
        "print(program.pid, flush=True)\n"
        "sys.exit(program.wait())\n"
    )
    front = _start(user, shell, _in_front(user))
    background = int(_line(front))
    assert _line(front) == "active"
    time.sleep(0.7)
    with open(f"/proc/{background}/stat") as stat:
        assert stat.read().rpartition(")")[2].split()[0] == "S"
    assert termios.tcgetattr(user) == before
    os.kill(background, signal.SIGTERM)
    front.communicate(timeout=10)


def test_no_terminal(board: ControlBoard) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("stop.wait(20)", "pass")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "no terminal\nwet 1.0\n"
    assert result.stderr == ""


def test_closing_twice(keys: KeyControls) -> None:
    keyboard = Keyboard(keys)
    keyboard.close()
    keyboard.close()
    assert not keyboard.active

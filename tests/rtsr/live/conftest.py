"""A real sound server for the live tests: JACK with its dummy driver, which needs no sound card."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsr.errors import RtsrError


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names for parameters that pytest would only number."""
    if isinstance(val, dict):
        return ", ".join(f"{name}={value}" for name, value in val.items()) or "nothing"
    if isinstance(val, (list, tuple)):
        return " ".join(map(str, val)) or "nothing"
    if isinstance(val, np.ndarray):
        return f"{val.dtype} {val.shape}"
    if isinstance(val, Exception):
        return type(val).__name__
    if is_dataclass(val) and not isinstance(val, type):
        given = {entry.name: getattr(val, entry.name) for entry in fields(val)}
        defaults = {entry.name: entry.default for entry in fields(val)}
        return " ".join(f"{name}={given[name]}" for name in given if given[name] != defaults[name])
    return None


@dataclass
class JackServer:
    """One running `jackd` of a name that nothing else has.

    Attributes:
        name: of the server; also in `JACK_DEFAULT_SERVER` while it is in use.
        rate: Hz.
        period: frames per cycle.
        synchronous: whether every cycle waits for all clients. Then none is lost on a busy machine,
            only late.
        was_ended: whether a test has ended it, so that the next one wants another.
    """

    log: Path
    rate: int = 48000
    period: int = 128
    channels: int = 2
    synchronous: bool = False
    name: str = field(default_factory=lambda: f"rtsr-test-{uuid.uuid4().hex[:8]}")
    process: subprocess.Popen[bytes] | None = None
    holds_name: bool = False
    was_ended: bool = False

    def start(self) -> None:
        """Start, and wait until clients can connect."""
        command = ["jackd", "-n", self.name, "--no-realtime"]
        # A cycle that a client left in the middle lasts ten times as long.
        command += ["--sync", "--timeout", "200"] if self.synchronous else []
        command += ["-d", "dummy"]
        command += ["-r", str(self.rate), "-p", str(self.period)]
        command += ["-C", str(self.channels), "-P", str(self.channels)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            if "system:playback_1" in self.run("jack_lsp", check=False):
                return
            time.sleep(0.05)
        self.kill()
        pytest.fail(f"jackd does not start: {self.log.read_text()[-500:]}")

    def set_period(self, frames: int) -> None:
        """Change the period while the server runs; the next test gets another server."""
        self.was_ended = True
        environment = {**os.environ, "JACK_DEFAULT_SERVER": self.name}
        command = ["jack_bufsize", str(frames)]
        subprocess.run(command, env=environment, capture_output=True, check=True, timeout=10)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self.was_ended = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.holds_name = True

    def stop(self) -> None:
        """End the server in order."""
        self.was_ended = True
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(5.0)
                self.holds_name = False
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def give_name_back(self) -> None:
        """JACK keeps one of its eight names for a killed server until one of it ends in order."""
        if self.holds_name and self.process is None:
            self.synchronous = False
            self.start()
            self.stop()

    def run(self, *command: str, check: bool = True) -> str:
        """Output of one of JACK's tools, such as `jack_lsp` or `jack_connect`."""
        result = subprocess.run(
            [*command[:1], "-s", self.name, *command[1:]],
            capture_output=True,
            text=True,
            check=check,
            timeout=10,
        )
        return result.stdout


@dataclass
class Recording:
    """What came back while a sound was played: `sound[i]` arrived with frame `i` of it.

    Attributes:
        sound: float32 `(frames,)`.
        gaps: frames at which the player or the recorder itself missed a cycle.
    """

    sound: np.ndarray
    gaps: np.ndarray


class JackPlayer:
    """Plays into one JACK port and records another, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def start(self, sound: np.ndarray, into: str = "rtsr:in_0", out_of: str = "rtsr:out_0") -> None:
        """Play `sound` `(frames,)` as soon as both ports are there."""
        np.save(self._folder / "played.npy", sound)
        program = Path(__file__).with_name("jack_player.py")
        arguments = [self._folder / "played.npy", self._folder / "recorded.npz", into, out_of]
        self._process = subprocess.Popen(
            [sys.executable, program, *arguments], stderr=subprocess.PIPE, text=True
        )

    def wait(self, seconds: float = 60.0) -> Recording:
        """What was recorded, when all has been played."""
        assert self._process is not None
        try:
            _, errors = self._process.communicate(timeout=seconds)
        finally:
            self.stop()
        assert self._process.returncode == 0, errors
        result = np.load(self._folder / "recorded.npz")
        return Recording(result["recorded"], result["gaps"])

    def run(self, sound: np.ndarray, **ports: str) -> Recording:
        """`start` and `wait`."""
        self.start(sound, **ports)
        return self.wait(20.0 + len(sound) / 48000)

    def stop(self) -> None:
        """End it, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class LiveProgram:
    """`rtsr live`, or a program that keeps its figures likewise, in a process of its own.

    Attributes:
        ends_silently: whether `stop` accepts no word on its stderr.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "stats.json"
        self.process: subprocess.Popen[str] | None = None
        self.ends_silently = False

    def start(self, *options: str) -> None:
        """Start `rtsr live --quiet`, mono unless told otherwise, and wait for its first figures."""
        command = ["-m", "rtsr", "live", "--quiet", "--every", "--channels", "1"]
        self.run(*command, "--json-stats", str(self.file), *options)

    def run(self, *arguments: str) -> None:
        """Start a Python program that writes figures to `file`, and wait for the first."""
        self.file.unlink(missing_ok=True)
        command = [sys.executable, "-X", "faulthandler", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 90.0
        while not self.figures():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, f"it does not start:\n{self.stacks()}"
            time.sleep(0.02)

    def stacks(self) -> str:
        """End it; where each of its threads was, and what else it said."""
        assert self.process is not None
        self.process.send_signal(signal.SIGABRT)
        return self.process.communicate(timeout=15.0)[1]

    def figures(self) -> list[dict[str, Any]]:
        """What it has written so far, oldest first."""
        if not self.file.exists():
            return []
        lines = self.file.read_text().splitlines(True)
        return [json.loads(line) for line in lines if line[-1:] == "\n"]

    def wait_for(
        self, condition: Callable[[dict[str, Any]], bool], seconds: float = 30.0
    ) -> dict[str, Any]:
        """The first figures that fulfil a condition."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while not condition(self.figures()[-1]):
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, self.figures()[-1]
            time.sleep(0.05)
        return self.figures()[-1]

    def stop(self, number: int = signal.SIGINT) -> dict[str, Any]:
        """End it as a user would; its last word."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            _, errors = self.process.communicate(timeout=15.0)
        finally:
            self.kill()
        assert self.process.returncode == 0, errors
        assert errors == "" or not self.ends_silently
        return self.figures()[-1]

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def live_program(tmp_path: Path) -> Iterator[LiveProgram]:
    """A program that can be started on whatever sound server the environment names."""
    program = LiveProgram(tmp_path)
    yield program
    program.kill()


@pytest.fixture
def live(jack_server: JackServer, live_program: LiveProgram) -> Iterator[LiveProgram]:
    """A program on the `jack_server`, which may be killed: this process is no client of it."""
    from rtsr.live.device import portaudio

    sounddevice = portaudio.load()
    # JACK leaves signals blocked, also for programs that are started afterwards.
    with portaudio.undisturbed():
        sounddevice._terminate()
    yield live_program
    live_program.kill()
    with portaudio.undisturbed():
        sounddevice._initialize()


@dataclass
class Comparison:
    """How the band that every level leaves alone came through, in windows of 10 ms.

    Attributes:
        likeness: of each window with what was played: 1 is the same but for its level.
        level_db: of each window against what was played.
        high_db: level above 5 kHz of each window against that of the whole window.
    """

    likeness: np.ndarray
    level_db: np.ndarray
    high_db: np.ndarray

    @property
    def broken(self) -> np.ndarray:
        """Windows in which something is missing, or that came at another time, as booleans."""
        return (self.likeness < 0.98) | (np.abs(self.level_db) > 1.0)

    @property
    def plain(self) -> np.ndarray:
        """Windows without a high band: played dry."""
        return self.high_db < -55.0


@pytest.fixture
def compare_sound() -> Callable[..., Comparison]:
    """`compare_sound(heard, played, slack=0)`: arrays `(frames,)` at 48 kHz, aligned.

    With `slack`, each window may be that many frames earlier or later: two clocks.
    """
    from scipy.signal import butter, sosfiltfilt

    def compare(heard: np.ndarray, played: np.ndarray, slack: int = 0) -> Comparison:
        hop = 480
        # What the crossover lets through of a generated band ends well above.
        sos = butter(8, 2500.0, fs=48000, output="sos")
        count = (min(len(heard), len(played)) - 2 * slack) // hop
        low = sosfiltfilt(sos, heard[: count * hop + 2 * slack].astype(np.float64))
        original = sosfiltfilt(sos, played[: count * hop + 2 * slack].astype(np.float64))
        reference = original[slack : slack + count * hop].reshape(count, hop)
        energy = np.square(reference).sum(axis=1) + 1e-12
        likeness = np.full(count, -1.0)
        level = np.zeros(count)
        for shift in range(2 * slack + 1):
            windows = low[shift : shift + count * hop].reshape(count, hop)
            power = np.square(windows).sum(axis=1) + 1e-12
            found = (windows * reference).sum(axis=1) / np.sqrt(power * energy)
            better = found > likeness
            likeness[better] = found[better]
            level[better] = (10.0 * np.log10(power / energy))[better]
        windows = heard[slack : slack + count * hop].reshape(count, hop)
        spectra = np.square(np.abs(np.fft.rfft(windows * np.hanning(hop), axis=1)))
        high = spectra[:, 5000 * hop // 48000 :].sum(axis=1)
        high_db = 10.0 * np.log10(high / (spectra.sum(axis=1) + 1e-20) + 1e-20)
        return Comparison(likeness, level, high_db)

    return compare


@pytest.fixture
def jack_player(jack_server: JackServer, tmp_path: Path) -> Iterator[JackPlayer]:
    """A player and recorder on the `jack_server`."""
    pytest.importorskip("jack", reason="the package JACK-Client is not installed")
    player = JackPlayer(tmp_path)
    yield player
    player.stop()


class SharedJack:
    """The server that the tests of a module use one after the other.

    One that a test has ended, or that has other fields than the next test wants, is replaced.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._environment = pytest.MonkeyPatch()
        self._fields: dict[str, Any] = {}
        self._server: JackServer | None = None

    def get(self, wanted: dict[str, Any]) -> JackServer:
        """A running server with these fields, which this process and its children use."""
        if self._server is not None and self._fields == wanted:
            # It counts the ports that it has ever opened, and names them so.
            _restart_portaudio()
            return self._server
        self.close()
        self._fields = wanted
        self._server = server = JackServer(self._log, **wanted)
        self._environment.setenv("JACK_DEFAULT_SERVER", server.name)
        self._environment.setenv("JACK_NO_START_SERVER", "1")
        server.start()
        _restart_portaudio()
        return server

    def give_back(self) -> None:
        """Keep the server for the next test, unless this one has ended it at some time."""
        if self._server is not None and self._server.was_ended:
            self.close()

    def close(self) -> None:
        """End the server, and leave nothing of it."""
        server, self._server = self._server, None
        if server is None:
            return
        # While the server still lives: PortAudio aborts a program that outlives it.
        _restart_portaudio(end=True)
        server.stop()
        server.give_name_back()
        self._environment.undo()
        _restart_portaudio()
        for left in Path("/dev/shm").glob(f"jack*{server.name}*"):
            left.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def shared_jack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedJack]:
    """See `jack_server`."""
    shared = SharedJack(tmp_path_factory.mktemp("jack") / "jackd.log")
    yield shared
    shared.close()


@pytest.fixture
def jack_server(shared_jack: SharedJack, request: pytest.FixtureRequest) -> Iterator[JackServer]:
    """A JACK server that this process and its children use by default.

    `@pytest.mark.parametrize("jack_server", [{"period": 256}], indirect=True)` changes its fields.
    """
    if shutil.which("jackd") is None:
        pytest.skip("jackd is not installed (Debian: jackd2)")
    yield shared_jack.get(getattr(request, "param", {}))
    shared_jack.give_back()


def _restart_portaudio(end: bool = False) -> None:
    """PortAudio keeps its connection to a server for as long as it runs."""
    from rtsr.live.device import portaudio

    try:
        sounddevice = portaudio.load()
    except RtsrError:
        pytest.skip("PortAudio is not installed (Debian: libportaudio2)")
    with portaudio.undisturbed():
        if not end:
            portaudio.restart()
        elif not portaudio.server_is_lost():
            sounddevice._terminate()

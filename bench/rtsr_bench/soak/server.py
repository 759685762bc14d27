"""The programs that a soak runs: a JACK server, the engine, and programs that only take time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr.timing import SAMPLE_RATE
from rtsr_bench.processes import environment
from rtsr_bench.soak.protocol import Protocol

_START_SECONDS = 10.0
_ENGINE_SECONDS = 60.0
_PAGE = re.compile(r"http://\S+")


@contextlib.contextmanager
def jack_server(period: int, realtime: bool, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a JACK server on a clock of its own, the default of this program and its children.

    Raises:
        RtsrError: there is no ``jackd``, or it does not start.
    """
    if shutil.which("jackd") is None:
        raise RtsrError("jackd is not installed; on Debian it is the package jackd2.")
    name = f"rtsr-soak-{uuid.uuid4().hex[:8]}"
    command = ["jackd", "-n", name, "--realtime" if realtime else "--no-realtime"]
    command += ["-d", "dummy", "-r", str(SAMPLE_RATE), "-p", str(period), "-C", "1", "-P", "1"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        with environment({"JACK_DEFAULT_SERVER": name, "JACK_NO_START_SERVER": "1"}):
            _wait_for_server(process, log)
            yield process
    finally:
        process.terminate()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_server(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        listed = subprocess.run(["jack_lsp"], capture_output=True, check=False)
        if b"system:playback_1" in listed.stdout:
            return
        time.sleep(0.1)
    words = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise RtsrError(f"The JACK server does not start ({' '.join(words)}).")


@contextlib.contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """So many programs of ordinary priority that do nothing but work."""
    # Also where this program itself was given more.
    work = "import os\nos.nice(max(0, -os.nice(0)))\nwhile True: pass"
    programs = [subprocess.Popen([sys.executable, "-c", work]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    """Make a terminal of 100 x 40 characters that is read to the end."""
    try:
        import fcntl
        import pty
        import termios
    except ImportError as error:
        raise RtsrError("This system has no pseudo-terminals; leave out --screen.") from error
    reader, user = pty.openpty()
    fcntl.ioctl(user, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))

    def fetch() -> None:
        # The last program that holds the other end ends this with an error.
        with contextlib.suppress(OSError):
            while os.read(reader, 1 << 16):
                pass
        os.close(reader)

    threading.Thread(target=fetch, name="rtsr-soak-terminal", daemon=True).start()
    try:
        yield user
    finally:
        os.close(user)


@contextlib.contextmanager
def page_reader(address: str) -> Iterator[Callable[[], int]]:
    """Have the page of a session open, at the address that ``rtsr live`` prints.

    Yields a function that closes it and returns how often it was shown something.
    """
    program = [sys.executable, "-m", "rtsr_bench.soak.page_reader", address]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)

    def count_looks() -> int:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        words, _ = process.communicate(timeout=30.0)
        if not words.strip().isdecimal():
            raise RtsrError("The page could not be looked at.")
        return int(words)

    with process:
        try:
            yield count_looks
        finally:
            process.kill()


class Engine:
    """``rtsr live``, or a program around it that spins, and its figures.

    Raises:
        RtsrError: it ended, with its own words.
    """

    def __init__(self, folder: Path, asked: Protocol) -> None:
        self._file = folder / "figures.json"
        if asked.gil_hog:
            command = ["-m", "rtsr_bench.soak.hog", str(self._file), asked.model]
        else:
            command = ["-m", "rtsr", "live", "--every", "--channels", "1", "--model", asked.model]
            command += [] if asked.screen else ["--quiet"]
            command += ["--colour", "auto"] if asked.colour else []
            command += ["--page", "--listen", "127.0.0.1:0"] if asked.page else []
            command += ["--json-stats", str(self._file)]
        self._errors = folder / "engine.log"
        on_screen = _terminal() if asked.screen else contextlib.nullcontext()
        with self._errors.open("wb") as errors, on_screen as terminal:
            self._process = subprocess.Popen(
                [sys.executable, *command], stdin=terminal, stdout=terminal, stderr=errors
            )

    @property
    def pid(self) -> int:
        """Of the session's program."""
        return self._process.pid

    def first_figures(self) -> dict[str, Any]:
        """Return what it says as soon as it plays."""
        lines: list[dict[str, Any]] = self._wait_for(self._lines, "does not start")
        return lines[0]

    def next_figures(self) -> dict[str, Any]:
        """Return what it says within the next second."""
        seen = len(self._lines())
        lines: list[dict[str, Any]] = self._wait_for(lambda: self._lines()[seen:], "says no more")
        return lines[0]

    def page_address(self) -> str:
        """Return where its page is, as it has said."""
        found: re.Match[str] = self._wait_for(
            lambda: _PAGE.search(self._errors.read_text(errors="replace")),
            "does not say where its page is",
        )
        return found[0]

    def _wait_for(self, look: Callable[[], Any], failure: str) -> Any:
        deadline = time.monotonic() + _ENGINE_SECONDS
        while not (found := look()):
            self.check()
            if time.monotonic() > deadline:
                raise RtsrError(f"The engine {failure}.")
            time.sleep(0.1)
        return found

    def check(self) -> None:
        """Whether it still runs."""
        if self._process.poll() is not None:
            words = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
            raise RtsrError(f"The engine has ended ({' '.join(words) or 'without a word'}).")

    def stop(self) -> dict[str, Any]:
        """End it as a user would; its last figures."""
        self.check()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30.0)
        return self._lines()[-1]

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _lines(self) -> list[dict[str, Any]]:
        if not self._file.exists():
            return []
        lines = self._file.read_text().splitlines(True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

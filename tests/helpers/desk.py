"""MIDI without hardware: a JACK server for it alone, and a device with knobs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from unittest import mock


class Server:
    """A JACK server without hardware, for MIDI only: PortAudio, which may not survive its server's
    end, never hears of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["jackd", "-n", self.name, "--no-realtime", "-d", "dummy", "-r", "48000"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        subprocess.run(["jack_wait", "-w", "-t", "10"], check=True, capture_output=True)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def kill(self) -> None:
        """As a crash. JACK has room for eight servers, and one that crashed keeps its place until
        the next of that name: so every test ends with ``stop``."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def midi_server() -> Iterator[Server]:
    """A server that this program and its children use."""
    name = f"rtsr-midi-{uuid.uuid4().hex[:8]}"
    own = {"JACK_DEFAULT_SERVER": name, "JACK_NO_START_SERVER": "1"}
    with mock.patch.dict(os.environ, own):
        server = Server(name)
        try:
            yield server
        finally:
            server.stop()


class Desk:
    """A MIDI device with knobs: another program that opens a virtual port."""

    def __init__(self, name: str) -> None:
        code = (
            "import rtmidi, sys\n"
            f"out = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, name={name!r})\n"
            "out.open_virtual_port('knobs')\n"
            "print('there', flush=True)\n"
            "for line in sys.stdin: out.send_message([int(word) for word in line.split()])\n"
            "out.close_port()\n"
            "out.delete()\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "there\n"

    def send(self, *message: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, message)) + "\n")
        self.process.stdin.flush()

    def unplug(self) -> None:
        self.process.kill()
        self.process.communicate()

    def put_away(self) -> None:
        """Leave in order; JACK waits seconds for one that does not when it ends itself."""
        self.process.communicate()

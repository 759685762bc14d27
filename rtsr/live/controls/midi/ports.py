"""MIDI inputs of this system: what there is, and a reader that follows its device.

python-rtmidi knows several MIDI systems (ALSA and JACK on Linux, Core MIDI on macOS, Windows
Multimedia); a device may be on any of them, so all are searched.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtsr.ending import held_back
from rtsr.errors import ArgumentError, MissingDependencyError, RtsrError
from rtsr.live.controls.midi.alsa_clients import alsa_clients
from rtsr.live.shared.native_messages import silence_alsa_and_jack

CLIENT_NAME = "rtsr"
PORT_NAME = "controls"
# A reader is emptied a hundred times a second; a fast desk sends about a thousand in that time.
_QUEUE = 1024
_PATIENCE_SECONDS = 1.0
# The flag of a listening socket in /proc/net/unix.
_LISTENING = "00010000"
# ALSA appends "client:port" numbers, which change when a device is plugged in again.
_NUMBERS = re.compile(r"\s+(\d+:\d+)$")


@dataclass(frozen=True)
class MidiPort:
    """One MIDI input: its name, and the MIDI system (``alsa``, ``jack``, ...) that has it."""

    system: str
    name: str

    @property
    def device(self) -> str:
        """The part of the name that stays when the device comes back."""
        return _NUMBERS.sub("", self.name)

    @property
    def address(self) -> str:
        """ALSA's "client:port" numbers; empty on other systems."""
        numbers = _NUMBERS.search(self.name)
        return numbers[1] if self.system == "alsa" and numbers else ""


def midi_systems() -> dict[str, int]:
    """Names and numbers of the MIDI systems that python-rtmidi was built for.

    Raises:
        MissingDependencyError: python-rtmidi is not installed.
    """
    rtmidi = _rtmidi()
    names = {
        rtmidi.API_LINUX_ALSA: "alsa",
        rtmidi.API_UNIX_JACK: "jack",
        rtmidi.API_MACOSX_CORE: "coremidi",
        rtmidi.API_WINDOWS_MM: "winmm",
    }
    return {names[api]: api for api in rtmidi.get_compiled_api() if api in names}


def list_ports(system: str = "auto") -> list[MidiPort]:
    """Every MIDI input there is, on one MIDI system or (``auto``) on all that answer.

    Raises:
        MissingDependencyError: python-rtmidi is not installed.
        ArgumentError: there is no such MIDI system.
        RtsrError: none answers.
    """
    systems = midi_systems()
    if system != "auto" and system not in systems:
        raise ArgumentError(
            f"There is no MIDI system {system!r} here; choose auto or {' or '.join(systems)}."
        )
    wanted = list(systems) if system == "auto" else [system]
    ports: list[MidiPort] = []
    answered = False
    for name in wanted:
        client = _client(name)
        if client is None:
            continue
        answered = True
        ports += [MidiPort(name, port) for port in client.get_ports()]
        _leave(client)
    if not answered:
        raise RtsrError(
            f"No MIDI system answers here (tried {' and '.join(wanted)}); connect a MIDI device, "
            "or start JACK."
        )
    return ports


def choose_port(wanted: str | int | None, system: str = "auto") -> MidiPort:
    """Return the port that is meant by a number, a part of its name, or (``None``) the only one.

    Raises:
        MissingDependencyError: python-rtmidi is not installed.
        RtsrError: no port, or more than one, is meant; names those there are.
    """
    ports = list_ports(system)
    # ALSA's own loop-back is on every Linux system and never the knobs that are meant.
    real = [port for port in ports if not port.name.startswith("Midi Through")]
    there = "; there are: " + _listed(ports, ports) if ports else ", and no other either"
    if wanted is None:
        if len(real) == 1:
            return real[0]
        if not real:
            raise RtsrError("There is no MIDI device here; connect one and try again.")
        raise RtsrError(f"There are several MIDI devices; choose one of: {_listed(real, ports)}.")
    if isinstance(wanted, int) or wanted.isdecimal():
        if 0 <= int(wanted) < len(ports):
            return ports[int(wanted)]
        raise RtsrError(f"There is no MIDI port number {wanted}{there}.")
    matches = [port for port in ports if wanted in (port.name, port.device)]
    matches = matches or [port for port in ports if wanted.lower() in port.name.lower()]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise RtsrError(f"There is no MIDI port whose name contains {wanted!r}{there}.")
    raise RtsrError(f"{wanted!r} could be any of these MIDI ports: {_listed(matches, ports)}.")


class PortReader:
    """Reads one port, and finds it again after its device, or its MIDI system, was away.

    Messages wait in the queue of python-rtmidi until they are fetched. Its callback would be
    simpler, but JACK calls it within the audio graph's own cycle, where waiting for Python's lock
    holds up every audio program of the machine.

    Raises:
        RtsrError: the port is there but cannot be opened.
    """

    def __init__(self, port: MidiPort) -> None:
        self.port = port
        self.connected = False
        self._client: Any = None
        # Of the client among ALSA's, where the system tells.
        self._number: int | None = None
        # What is read, and all that was there beside it.
        self._opened = port
        self._listed: list[str] = []
        self._server: set[str] = set()
        # JACK may refuse a client for a moment while others come and go.
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._connect():
            if time.monotonic() > deadline:
                raise RtsrError(
                    f"The MIDI port '{port.name}' cannot be opened; is another program using it?"
                )
            time.sleep(0.1)

    def read(self) -> list[list[int]]:
        """All messages that have come since the last call, oldest first; never waits."""
        messages = []
        if self._client is not None:
            while (event := self._client.get_message()) is not None:
                messages.append(event[0])
        return messages

    def check(self) -> bool:
        """Check whether the device is there, and take it up again if it has come back.

        To be called often while it is connected, and about once a second while it is not. Returns
        whether the device is connected.
        """
        if self._server and self._server - _jack_sockets():
            # A client of a server that has ended goes on seeing the ports that were there.
            self.close()
        names = self._names()
        # Others like it that have gone may come back as any of them.
        self._listed = [name for name in self._listed if name in names]
        if self.connected and (self._opened.name not in names or self._is_cut_off()):
            self.connected = False
            self._client.close_port()
            if self._find(names) is None:
                return False
        if not self.connected:
            if not names:
                # The MIDI system itself may have gone, and its client would never hear of the next.
                self.close()
            self._connect()
        return self.connected

    def close(self) -> None:
        """Let go of the port; ``check`` would take it up again."""
        self.connected = False
        if self._client is not None:
            self._client.close_port()
            _leave(self._client)
            self._client = None

    def _connect(self) -> bool:
        if self._client is None:
            self._server = _jack_sockets() if self.port.system == "jack" else set()
            before = alsa_clients() if self.port.system == "alsa" else {}
            self._client = _client(self.port.system)
            self._number = _new_client(before) if before else None
        if self._client is None:
            return False
        names = self._names()
        index = self._find(names)
        if index is not None:
            try:
                self._client.open_port(index, PORT_NAME)
            except (OSError, ValueError):
                # It went between being listed and being opened, or is in use.
                self.close()
                return False
            self.connected = True
            self._opened = MidiPort(self.port.system, names[index])
            self._listed = names
        return self.connected

    def _is_cut_off(self) -> bool:
        """Whether ALSA no longer connects the port: its device was away since the last look.

        A device that comes back soon has the same name and numbers as before.
        """
        if self._number is None or not self._opened.address:
            return False
        own = alsa_clients().get(self._number)
        return own is not None and self._opened.address not in own.senders

    def _names(self) -> list[str]:
        try:
            return list(self._client.get_ports()) if self._client is not None else []
        except OSError:
            return []

    def _find(self, names: list[str]) -> int | None:
        for name in (self._opened.name, self.port.name):
            if name in names:
                return names.index(name)
        # What was there beside it is another one like it, and of several none can be told.
        alike = [
            index
            for index, name in enumerate(names)
            if name not in self._listed
            and MidiPort(self.port.system, name).device == self.port.device
        ]
        return alike[0] if len(alike) == 1 else None


def _listed(ports: list[MidiPort], numbered: list[MidiPort]) -> str:
    return ", ".join(f"{numbered.index(port)} '{port.name}' ({port.system})" for port in ports)


def _rtmidi() -> Any:
    try:
        import rtmidi  # type: ignore[import-untyped]
    except ImportError:
        raise MissingDependencyError("MIDI control", "live") from None
    return rtmidi


def _client(system: str) -> Any:
    """Return a new client of a MIDI system, or ``None`` if that does not answer."""
    rtmidi = _rtmidi()
    silence_alsa_and_jack()
    system_number = midi_systems()[system]
    try:
        # JACK's library may leave signals blocked, see `rtsr.live.device.jack`.
        with held_back():
            return rtmidi.MidiIn(system_number, name=CLIENT_NAME, queue_size_limit=_QUEUE)
    except rtmidi.RtMidiError:
        return None


def _leave(client: Any) -> None:
    with held_back():
        client.delete()


def _new_client(before: Container[int]) -> int | None:
    """Return the number of the ALSA client that has come since; ``None`` if it may be another's."""
    new = [
        number
        for number, client in alsa_clients().items()
        if number not in before and client.name == CLIENT_NAME
    ]
    return new[0] if len(new) == 1 else None


def _jack_sockets() -> set[str]:
    """Inodes of the sockets where the JACK server listens: they tell it from the next one.

    Empty where the system does not say; then only a server that ended in order is noticed.
    """
    server = os.environ.get("JACK_DEFAULT_SERVER") or "default"
    try:
        lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {
        fields[6]
        for fields in (line.split(maxsplit=7) for line in lines)
        if len(fields) == 8 and fields[3] == _LISTENING and f"/jack_{server}_" in fields[7]
    }

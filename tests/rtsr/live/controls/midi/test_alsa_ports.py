"""Following a device on ALSA, on a stand-in for its sequencer, which few containers have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtsr.live.controls.midi import alsa_clients as kernel
from rtsr.live.controls.midi import ports as midi_ports
from rtsr.live.controls.midi.alsa_clients import alsa_clients
from rtsr.live.controls.midi.ports import MidiPort, PortReader


class Sequencer:
    """What the kernel does: a device that goes takes its connections with it.

    Attributes:
        clients: connections of each client of python-rtmidi, by number.
        opened: ports that were opened, one after the other.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._devices: dict[str, str] = {}
        self.clients: dict[int, set[str]] = {}
        self.opened: list[str] = []
        # Another rtsr hears the same device, and never loses it.
        self.others = ["24:0"]
        self.plug("Midi Through:Midi Through Port-0", "14:0")

    def plug(self, name: str, address: str) -> None:
        self._devices[address] = name
        self.tell()

    def unplug(self, address: str) -> None:
        del self._devices[address]
        for senders in self.clients.values():
            senders.discard(address)
        self.tell()

    def ports(self) -> list[str]:
        return [f"{name} {address}" for address, name in self._devices.items()]

    def join(self) -> int:
        number = 128 + len(self.clients)
        self.clients[number] = set()
        self.tell()
        return number

    def connect(self, number: int, port: str) -> None:
        self.opened.append(port)
        self.clients[number].add(port.rpartition(" ")[2])
        self.tell()

    def leave(self, number: int) -> None:
        self.clients[number].clear()
        self.tell()

    def tell(self) -> None:
        """Write the list as snd_seq_info_clients_read of Linux does."""
        if self._file is None:
            return
        lines = [
            "Client info",
            "  cur  clients : 4",
            "  peak clients : 5",
            "  max  clients : 192",
            "",
        ]
        lines += ['Client   0 : "System" [Kernel Legacy]', '  Port   0 : "Timer" (Rwe-)']
        lines += ['  Port   1 : "Announce" (R-e-)', "    Connecting To: 120:0"]
        for address, name in self._devices.items():
            client, _, port = address.partition(":")
            lines += [f'Client {client:>3} : "{name.partition(":")[0]}" [Kernel Legacy]']
            lines += [f'  Port {port:>3} : "{name.partition(":")[2]}" (RWeX)']
        for number, senders in {120: set(self.others), **self.clients}.items():
            lines += [f'Client {number} : "rtsr" [User Legacy]', '  Port   0 : "controls" (-We-)']
            if senders:
                lines.append("    Connected From: " + ", ".join(f"{one}[r:0]" for one in senders))
        self._file.write_text("\n".join(lines) + "\n")


class MidiIn:
    """As python-rtmidi's, which hears nothing when its connection has gone."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer
        self._number = sequencer.join()
        self._is_open = False

    def get_ports(self) -> list[str]:
        return self._sequencer.ports()

    def open_port(self, index: int, name: str) -> None:
        assert not self._is_open
        self._is_open = True
        self._sequencer.connect(self._number, self.get_ports()[index])

    def close_port(self) -> None:
        self._is_open = False
        self._sequencer.leave(self._number)

    def delete(self) -> None:
        pass


@pytest.fixture(params=[True, False], ids=["listed by the kernel", "not listed"])
def sequencer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sequencer]:
    file = tmp_path / "clients"
    sequencer = Sequencer(file if request.param else None)
    monkeypatch.setattr(kernel, "_LIST", file)

    def client(system: str) -> Any:
        assert system == "alsa"
        return MidiIn(sequencer)

    monkeypatch.setattr(midi_ports, "_client", client)
    return sequencer


@pytest.fixture
def reader(sequencer: Sequencer) -> PortReader:
    sequencer.plug("Desk:Desk MIDI 1", "24:0")
    return PortReader(MidiPort("alsa", "Desk:Desk MIDI 1 24:0"))


@pytest.mark.parametrize("sequencer", [True], indirect=True)
def test_what_the_kernel_tells(sequencer: Sequencer, reader: PortReader) -> None:
    names = {number: client.name for number, client in alsa_clients().items()}
    assert names == {0: "System", 14: "Midi Through", 24: "Desk", 120: "rtsr", 128: "rtsr"}
    senders = {number: client.senders for number, client in alsa_clients().items()}
    assert senders == {0: set(), 14: set(), 24: set(), 120: {"24:0"}, 128: {"24:0"}}


@pytest.mark.parametrize("sequencer", [True], indirect=True)
def test_a_device_that_was_away_between_two_looks_is_taken_up_again(
    sequencer: Sequencer, reader: PortReader
) -> None:
    assert reader.check()
    assert sequencer.clients == {128: {"24:0"}}
    sequencer.unplug("24:0")
    sequencer.plug("Desk:Desk MIDI 1", "24:0")
    assert sequencer.clients == {128: set()}
    assert reader.check()
    assert sequencer.clients == {128: {"24:0"}}
    for _ in range(3):
        assert reader.check()
    assert sequencer.opened == ["Desk:Desk MIDI 1 24:0"] * 2


def test_a_port_whose_number_changed_is_the_same_device(
    sequencer: Sequencer, reader: PortReader
) -> None:
    sequencer.unplug("24:0")
    sequencer.plug("Desk:Desk MIDI 2", "20:1")
    sequencer.plug("Desk:Desk MIDI 1", "28:0")
    assert reader.check()
    assert sequencer.opened[1:] == ["Desk:Desk MIDI 1 28:0"]
    sequencer.unplug("28:0")
    assert not reader.check()
    assert not reader.check()
    sequencer.plug("Desk:Desk MIDI 1", "24:0")
    assert reader.check()
    assert sequencer.opened[2:] == ["Desk:Desk MIDI 1 24:0"]


def test_of_two_equal_devices_none_is_mistaken_for_the_other(
    sequencer: Sequencer, reader: PortReader
) -> None:
    sequencer.plug("Desk:Desk MIDI 1", "28:0")
    reader.close()
    assert reader.check()
    sequencer.unplug("24:0")
    for _ in range(2):
        assert not reader.check()
    sequencer.plug("Desk:Desk MIDI 1", "32:0")
    assert reader.check()
    assert sequencer.opened[1:] == ["Desk:Desk MIDI 1 24:0", "Desk:Desk MIDI 1 32:0"]
    sequencer.unplug("32:0")
    sequencer.unplug("28:0")
    assert not reader.check()
    for address in ("36:0", "40:0"):
        sequencer.plug("Desk:Desk MIDI 1", address)
    assert not reader.check()
    sequencer.unplug("36:0")
    assert reader.check()
    # Both are away, and the first to come back has the number of the other.
    sequencer.plug("Desk:Desk MIDI 1", "28:0")
    reader.close()
    assert reader.check()
    for address in ("40:0", "28:0"):
        sequencer.unplug(address)
    assert not reader.check()
    sequencer.plug("Desk:Desk MIDI 1", "28:0")
    assert reader.check()


@pytest.mark.parametrize("sequencer", [True], indirect=True)
def test_of_two_clients_that_come_at_once_none_is_judged_by_the_other(
    sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequencer.plug("Desk:Desk MIDI 1", "24:0")
    monkeypatch.setattr(
        midi_ports, "_client", lambda system: (sequencer.join(), MidiIn(sequencer))[1]
    )
    reader = PortReader(MidiPort("alsa", "Desk:Desk MIDI 1 24:0"))
    for _ in range(3):
        assert reader.check()
    assert len(sequencer.opened) == 1

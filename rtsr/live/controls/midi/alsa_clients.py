"""What the kernel tells of ALSA's MIDI clients and python-rtmidi does not: who is connected."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LIST = Path("/proc/asound/seq/clients")
_CLIENT = re.compile(r'Client\s+(\d+) : "(.*)" \[')
_FROM = re.compile(r"\s+Connected From: ")
# "24:0", or "24:0[r:0]" where its messages get time stamps.
_ADDRESS = re.compile(r"\d+:\d+")


@dataclass
class AlsaClient:
    """One client of ALSA's sequencer.

    Attributes:
        name: that it has given itself.
        senders: addresses of the ports, as ``24:0``, that its own ports hear.
    """

    name: str
    senders: set[str]


def alsa_clients() -> dict[int, AlsaClient]:
    """Return all clients by their numbers; none where the system does not tell."""
    try:
        lines = _LIST.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    clients: dict[int, AlsaClient] = {}
    newest = AlsaClient("", set())
    for line in lines:
        client = _CLIENT.match(line)
        if client is not None:
            newest = clients[int(client[1])] = AlsaClient(client[2], set())
        elif _FROM.match(line):
            newest.senders.update(_ADDRESS.findall(line))
    return clients

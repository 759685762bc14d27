"""Keeps the connections that a user has made between rtsr's JACK ports and other programs."""

from __future__ import annotations

import time

from rtsr.live.device import jack

# A server that ends takes its ports away one by one while the stream still seems to run. What has
# not been so for this long is not what the user made.
_SETTLED_SECONDS = 1.5


class JackConnections:
    """Remembers a stream's connections while it runs, and makes them again for its successor.

    Args:
        reader: of the server.
        client_name: what the server calls this program.
        ports: of the stream.
    """

    def __init__(self, reader: jack.ServerReader, client_name: str, ports: jack.Ports) -> None:
        self._reader = reader
        self._client_name = client_name
        self._ports = ports
        self._newest: jack.Connections | None = None
        self._since = 0.0
        self._settled: jack.Connections | None = None

    def remember(self) -> None:
        """Read the connections; to be called often, while the stream runs."""
        connections = self._reader.connections(self._client_name, self._ports.all)
        if connections is None:
            return
        if connections != self._newest:
            self._newest = connections
            self._since = time.monotonic()
        elif time.monotonic() - self._since > _SETTLED_SECONDS:
            self._settled = connections

    def restore(self, client_name: str, ports: jack.Ports) -> None:
        """Connect a successor's ports as these were; as PortAudio has done it if never read."""
        before, settled = self._ports, self._settled
        self._client_name, self._ports = client_name, ports
        self._newest = None
        if settled is None:
            return
        # A stream beside another one of this program gets ports of other names each time.
        successors = {
            **dict(zip(before.inputs, ports.inputs, strict=False)),
            **dict(zip(before.outputs, ports.outputs, strict=False)),
        }
        self._settled = {
            successors[old]: others for old, others in settled.items() if old in successors
        }
        jack.restore_connections(client_name, self._settled)

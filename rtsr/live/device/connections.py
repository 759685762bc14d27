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
        inputs: channels of the stream, whose ports are `in_0` and so on.
        outputs: likewise `out_0`.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self._ports = (
            *(f"in_{channel}" for channel in range(inputs)),
            *(f"out_{channel}" for channel in range(outputs)),
        )
        self._reader = jack.ConnectionReader()
        self._newest: jack.Connections | None = None
        self._since = 0.0
        self._settled: jack.Connections | None = None

    def remember(self, client_name: str) -> None:
        """Read the connections; to be called often, while the stream runs."""
        connections = self._reader.read(client_name, self._ports)
        if connections is None:
            return
        if connections != self._newest:
            self._newest = connections
            self._since = time.monotonic()
        elif time.monotonic() - self._since > _SETTLED_SECONDS:
            self._settled = connections

    def restore(self, client_name: str) -> None:
        """Connect the ports as they were; as PortAudio has done it if they were never read."""
        self._newest = None
        if self._settled is not None:
            jack.restore_connections(client_name, self._settled)

    def close(self, server_is_lost: bool) -> None:
        """Leave the server, if it is still there."""
        self._reader.close(server_is_lost)

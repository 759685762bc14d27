"""A stream's recent latency, without asking the sound server more often than it pays."""

from __future__ import annotations

import time
from typing import Protocol

from rtsr.live.device.latency import StreamLatency

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 64.0


class LatencySource(Protocol):
    """The part of a device stream that knows its latency."""

    @property
    def latency(self) -> StreamLatency:
        """As it was when the server was asked last."""

    def refresh_latency(self) -> StreamLatency:
        """As it is; may ask a server."""


class LatencyPolling:
    """Polls a stream's latency in pauses that double, from one second to about a minute.

    A JACK server takes in a client for every poll, and about one poll in fifty cost another client
    its cycle (jackd2 on two cores, 128 frames). Connections are made at the beginning, and seldom
    change later.

    Args:
        stream: whose latency to poll.
    """

    def __init__(self, stream: LatencySource) -> None:
        self._stream = stream
        self.restart()

    def restart(self) -> None:
        """Begin with short pauses again: the stream has been opened anew."""
        self._pause = _FIRST_PAUSE_SECONDS
        self._due = time.monotonic() + self._pause

    def recent(self) -> StreamLatency:
        """Return the latency, polled now if that is due."""
        if time.monotonic() < self._due:
            return self._stream.latency
        self._pause = min(2.0 * self._pause, _LONGEST_PAUSE_SECONDS)
        self._due = time.monotonic() + self._pause
        return self._stream.refresh_latency()

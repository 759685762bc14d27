"""Ports of a range for sound, each of which rests after a call."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

__all__ = ["REST_SECONDS", "PortRange"]

#: What is on its way to the end of a call that is over finds no other call there for so long.
REST_SECONDS = 30.0


class PortRange:
    """Gives the ports of a range in turn, and keeps those that were in use a moment ago for last.

    Args:
        ports: the range.
    """

    def __init__(self, ports: range) -> None:
        self._ports = ports
        self._next = 0
        self._left_at: dict[int, float] = {}

    def __contains__(self, port: int) -> bool:
        return port in self._ports

    def in_order(self) -> Iterator[int]:
        """Return the ports in the order in which a leg is to try them.

        A port rests, too, while the one behind it does, where that leg takes its reports. Of those
        that rest the one that has done so for longest comes first.
        """
        oldest = time.monotonic() - REST_SECONDS
        self._left_at = {port: at for port, at in self._left_at.items() if at > oldest}
        resting = []
        for port in itertools.chain(self._ports[self._next :], self._ports[: self._next]):
            if self._rests_since(port):
                resting.append(port)
            else:
                yield port
        yield from sorted(resting, key=self._rests_since)

    def _rests_since(self, port: int) -> float:
        return max(self._left_at.get(port, 0.0), self._left_at.get(port + 1, 0.0))

    def take(self, *ports: int) -> None:
        """Note which ports a leg has found."""
        self._next = (self._ports.index(max(ports)) + 1) % len(self._ports)

    def leave(self, *ports: int) -> None:
        """Note that a leg has left its ports."""
        self._left_at.update(dict.fromkeys(ports, time.monotonic()))

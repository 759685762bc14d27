"""Packets in the order in which they were sent, whatever the network made of it."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from rtsr.call.formats import Packet

__all__ = ["PacketQueue", "QueuedPacket", "nearest_step"]

#: More than a second of packets of 10 ms waits for nothing.
_MOST_PACKETS = 128
_SEQUENCE, _TIMESTAMP = 1 << 16, 1 << 32
#: A sequence number that is further off belongs to a sender that has started again.
LARGEST_SEQUENCE_JUMP = 3000


@dataclass(frozen=True, slots=True)
class QueuedPacket:
    """A packet whose counters no longer wrap around.

    Attributes:
        number: of the packet.
        time: its timestamp.
        packet: as it came.
    """

    number: int
    time: int
    packet: Packet


class PacketQueue:
    """Sorts packets of one sender; drops those that came twice.

    How many wait is up to whoever takes them.

    Attributes:
        duplicates: packets that had been there already.
        restarts: how often the sender began to count anew.
    """

    def __init__(self) -> None:
        self.duplicates = 0
        self.restarts = 0
        self._packets: list[QueuedPacket] = []
        self._newest: QueuedPacket | None = None
        self._ssrc: int | None = None
        self._recent: set[int] = set()

    def __len__(self) -> int:
        return len(self._packets)

    @property
    def is_too_long(self) -> bool:
        """Whether more packets wait than anybody has a use for."""
        return len(self._packets) > _MOST_PACKETS

    def first(self) -> QueuedPacket | None:
        """Return the packet that was sent first, without removing it."""
        return self._packets[0] if self._packets else None

    def pop(self) -> QueuedPacket:
        """Take the packet that was sent first."""
        return self._packets.pop(0)

    def put(self, packet: Packet) -> QueuedPacket | None:
        """Add a packet; returns it with its counters unwrapped, or ``None`` if it was there."""
        queued = self._unwrapped(packet)
        if queued.number in self._recent:
            self.duplicates += 1
            return None
        self._recent.add(queued.number)
        if len(self._recent) > 4 * _MOST_PACKETS:
            self._recent = {n for n in self._recent if n > queued.number - 2 * _MOST_PACKETS}
        bisect.insort(self._packets, queued, key=lambda other: other.number)
        if self._newest is None or queued.number > self._newest.number:
            self._newest = queued
        return queued

    def _unwrapped(self, packet: Packet) -> QueuedPacket:
        newest = self._newest
        if newest is not None and packet.ssrc == self._ssrc:
            step = nearest_step(packet.sequence_number - newest.number, _SEQUENCE)
            if abs(step) <= LARGEST_SEQUENCE_JUMP:
                ticks = nearest_step(packet.timestamp - newest.time, _TIMESTAMP)
                return QueuedPacket(newest.number + step, newest.time + ticks, packet)
        if newest is not None:
            self.restarts += 1
            self._packets.clear()
            self._recent.clear()
            self._newest = None
        self._ssrc = packet.ssrc
        return QueuedPacket(packet.sequence_number, packet.timestamp, packet)


def nearest_step(difference: int, period: int) -> int:
    """Return the smallest step that is ``difference`` on a counter that wraps; may be negative."""
    return (difference + period // 2) % period - period // 2

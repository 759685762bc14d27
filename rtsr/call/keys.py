"""Keys of a telephone, as told apart in the packets that carry them (RFC 4733)."""

from __future__ import annotations

import enum
from typing import NamedTuple

from rtsr.call.formats import Packet

__all__ = ["LONGEST_EVENT", "KeyReader", "KeyReading", "Part"]

_KEYS = "0123456789*#ABCD"
_END = 0x80
# Units of the packets' clock by which a late copy may lie behind: 10 s at 48 kHz. One that lies
# further behind is of a sender who counts anew.
_LONGEST_BEHIND = 480_000
#: The most that an event's duration can say, in units of its clock.
LONGEST_EVENT = 0xFFFF


class Part(enum.Enum):
    """What a packet is of the presses that came before it."""

    #: The first one of a press.
    BEGINS = "begins"
    #: Another one of the newest press.
    SAME = "same"
    #: The first one of a later segment of the newest press.
    GOES_ON = "goes on"
    #: Of an older press, or of an older segment.
    LATE = "late"


class KeyReading(NamedTuple):
    """What a packet with an event says of the presses.

    Attributes:
        part: of which press it is.
        elapsed: units of the clock from the beginning of the newest press to the time of the newest
            packet of it; its duration is not in it.
        key: whose press begins with this packet; ``None`` if none does.
    """

    part: Part
    elapsed: int
    key: str | None


class KeyReader:
    """Finds the presses in a stream of telephone events.

    Every packet of a press carries the time of its beginning, and the last one comes three times. A
    press that is too long for the counter goes on under another time, without a marker (2.5.1.3).
    A packet of an older press that comes after one of a newer is late, and no press.
    """

    def __init__(self) -> None:
        self._elapsed = 0
        self._event: int | None = None
        self._time = 0
        self._ssrc: int | None = None
        self._has_ended = False

    def read(self, packet: Packet) -> KeyReading | None:
        """Take a packet with an event, of any kind; ``None`` where it is too short to hold one."""
        if len(packet.payload) < 4:
            return None
        part, event = self._part(packet), packet.payload[0]
        begins = part is Part.BEGINS and event < len(_KEYS)
        return KeyReading(part, self._elapsed, _KEYS[event] if begins else None)

    def _part(self, packet: Packet) -> Part:
        behind = (self._time - packet.timestamp) % (1 << 32)
        is_known = packet.ssrc == self._ssrc
        if is_known and 0 < behind <= _LONGEST_BEHIND:
            return Part.LATE
        self._ssrc = packet.ssrc
        event, has_ended = packet.payload[0], bool(packet.payload[1] & _END)
        ahead = (packet.timestamp - self._time) % (1 << 32)
        part = Part.BEGINS
        if is_known and event == self._event:
            if not ahead:
                part = Part.SAME
            elif not self._has_ended and not packet.marker and ahead <= LONGEST_EVENT:
                part = Part.GOES_ON
        self._elapsed = 0 if part is Part.BEGINS else self._elapsed + ahead
        self._event, self._time = event, packet.timestamp
        self._has_ended = has_ended or (part is Part.SAME and self._has_ended)
        return part

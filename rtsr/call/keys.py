"""Keys of a telephone, as told apart in the packets that carry them (RFC 4733)."""

from __future__ import annotations

from rtsr.call.formats import Packet

__all__ = ["KeyReader"]

_KEYS = "0123456789*#ABCD"
_END = 0x80
# Units of the packets' clock by which a late copy may lie behind: 10 s at 48 kHz. One that lies
# further behind is of a sender who counts anew.
_LONGEST_BEHIND = 480_000


class KeyReader:
    """Finds the presses in a stream of telephone events.

    Every packet of a press carries the time of its beginning, and the last one comes three times. A
    press that is too long for the counter goes on under another time, without a marker (2.5.1.3).
    A packet of an older press that comes after one of a newer is late, and no press.
    """

    def __init__(self) -> None:
        self._event: int | None = None
        self._time = 0
        self._ssrc: int | None = None
        self._has_ended = False

    def read(self, packet: Packet) -> str | None:
        """Return the key whose press begins with this packet; ``None`` if none does."""
        if len(packet.payload) < 4:
            return None
        behind = (self._time - packet.timestamp) % (1 << 32)
        if packet.ssrc == self._ssrc and 0 < behind <= _LONGEST_BEHIND:
            return None
        self._ssrc = packet.ssrc
        event, has_ended = packet.payload[0], bool(packet.payload[1] & _END)
        is_same = packet.timestamp == self._time and event == self._event
        goes_on = event == self._event and not self._has_ended and not packet.marker
        self._event, self._time = event, packet.timestamp
        self._has_ended = has_ended or (is_same and self._has_ended)
        if is_same or goes_on or event >= len(_KEYS):
            return None
        return _KEYS[event]

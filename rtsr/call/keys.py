"""Keys of a telephone, as told apart in the packets that carry them (RFC 4733)."""

from __future__ import annotations

from rtsr.call.formats import Packet

__all__ = ["KeyReader"]

_KEYS = "0123456789*#ABCD"
_END = 0x80


class KeyReader:
    """Finds the presses in a stream of telephone events.

    Every packet of a press carries the time of its beginning, and the last one comes three times. A
    press that is too long for the counter goes on under another time, without a marker (2.5.1.3).
    """

    def __init__(self) -> None:
        self._event: int | None = None
        self._time = 0
        self._has_ended = False

    def read(self, packet: Packet) -> str | None:
        """Return the key whose press begins with this packet; ``None`` if none does."""
        if len(packet.payload) < 4:
            return None
        event, has_ended = packet.payload[0], bool(packet.payload[1] & _END)
        is_same = packet.timestamp == self._time and event == self._event
        goes_on = event == self._event and not self._has_ended and not packet.marker
        self._event, self._time = event, packet.timestamp
        self._has_ended = has_ended or (is_same and self._has_ended)
        if is_same or goes_on or event >= len(_KEYS):
            return None
        return _KEYS[event]

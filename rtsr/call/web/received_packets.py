"""RTP packets as they reach an aiortc receiver, before its own jitter buffer.

That buffer holds everything back until four later packets of the same order have come, and drops
sixteen at a time when one is missing. There is no public way around it, so this module replaces it
in one receiver. It is pinned to one version of aiortc, and a test checks what it relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.jitterbuffer import JitterBuffer

from rtsr.call.formats import Packet

__all__ = ["take_packets"]

_ATTRIBUTE = "_RTCRtpReceiver__jitter_buffer"


class _Tap(JitterBuffer):
    """Passes every packet on at once; the receiver never gets a complete frame from it."""

    def __init__(self, take: Callable[[Packet], None]) -> None:
        super().__init__(capacity=16)
        self._take = take

    def add(self, packet: Any) -> tuple[bool, None]:
        self._take(
            Packet(
                packet.payload_type,
                packet.sequence_number,
                packet.timestamp,
                packet.payload,
                bool(packet.marker),
                packet.ssrc,
            )
        )
        return False, None


def take_packets(receiver: RTCRtpReceiver, take: Callable[[Packet], None]) -> None:
    """Have ``take`` called with every packet; the receiver's own track stays silent from now on.

    RTCP goes on as before. ``take`` is called on the event loop.

    Raises:
        RuntimeError: this is not the version of aiortc that rtsr knows.
    """
    if not isinstance(getattr(receiver, _ATTRIBUTE, None), JitterBuffer):
        raise RuntimeError("This version of aiortc keeps its jitter buffer elsewhere.")
    setattr(receiver, _ATTRIBUTE, _Tap(take))

"""Reports (RTCP) of a browser on what an aiortc sender sends.

aiortc keeps the newest of them for itself. There is no public way to see each, so this module
listens in one sender. It is pinned to one version of aiortc, and a test checks what it relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpSender
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket, RtcpSrPacket

__all__ = ["take_reports"]

_ATTRIBUTE = "_handle_rtcp_packet"


def take_reports(sender: RTCRtpSender, take: Callable[[RtcpReceiverInfo], None]) -> None:
    """Have ``take`` called on the event loop with every report on the sender's stream.

    What aiortc itself does with them goes on as before.

    Raises:
        RuntimeError: this is not the version of aiortc that rtsr knows.
    """
    handle = getattr(sender, _ATTRIBUTE, None)
    if handle is None:
        raise RuntimeError("This version of aiortc takes reports elsewhere.")

    async def listen(packet: Any) -> None:
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == sender._ssrc:
                    take(report)
        await handle(packet)

    setattr(sender, _ATTRIBUTE, listen)

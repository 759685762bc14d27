"""Telephone events (RFC 4733) in what an aiortc connection answers, which itself has none.

A browser sends the keys of ``RTCDTMFSender.insertDTMF`` so, in place of its sound, if they were
agreed on. aiortc's list of codecs is the process's own and has a decoder for each, so that this
module adds events to one transceiver alone, behind its codecs: the first is what aiortc sends. Its
receiver then hands their packets to what :mod:`rtsr.call.web.received_packets` has put in the place
of its jitter buffer. It is pinned to one version of aiortc, and a test checks what it relies on.
"""

from __future__ import annotations

from aiortc import RTCRtpTransceiver
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.sdp import MediaDescription

from rtsr.call.formats import OPUS, TELEPHONE_EVENT

__all__ = ["accept_events"]


def accept_events(transceiver: RTCRtpTransceiver, offered: MediaDescription) -> None:
    """Accept the telephone events of an offer, between setting it and making the answer.

    Those with a clock of 8000 Hz are, and beside Opus those with its clock.

    Raises:
        RuntimeError: this is not the version of aiortc that rtsr knows.
    """
    accepted = getattr(transceiver, "_codecs", None)
    if not isinstance(accepted, list):
        raise RuntimeError("This version of aiortc keeps its codecs elsewhere.")
    rates = {TELEPHONE_EVENT.clock_rate}
    if any(codec.name.lower() == OPUS.name for codec in accepted):
        rates.add(OPUS.clock_rate)
    taken = {codec.payloadType for codec in accepted}
    for codec in offered.rtp.codecs:
        is_event = codec.name.lower() == TELEPHONE_EVENT.name
        if is_event and codec.clockRate in rates and codec.payloadType not in taken:
            taken.add(codec.payloadType)
            accepted.append(
                RTCRtpCodecParameters(
                    mimeType=f"audio/{TELEPHONE_EVENT.name}",
                    clockRate=codec.clockRate,
                    payloadType=codec.payloadType,
                )
            )

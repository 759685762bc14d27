"""What an RTP payload type can mean, and what a packet is once it has left its socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: No codec here packs more than Opus's 120 ms into one packet.
LONGEST_PACKET_MS = 120


@dataclass(frozen=True)
class PayloadFormat:
    """A codec as SDP names it.

    Attributes:
        name: the encoding name, in SDP's spelling.
        clock_rate: Hz of RTP timestamps.
        sample_rate: Hz of the sound; G.722 has 16000 and a clock of 8000 (RFC 3551, 4.5.2).
        channels: as SDP writes them; Opus always has 2 there (RFC 7587, 7).
    """

    name: str
    clock_rate: int
    sample_rate: int
    channels: int = 1

    @property
    def rtpmap(self) -> str:
        """The value of ``a=rtpmap`` behind the payload type."""
        channels = "" if self.channels == 1 else f"/{self.channels}"
        return f"{self.name}/{self.clock_rate}{channels}"


PCMU = PayloadFormat("PCMU", 8000, 8000)
PCMA = PayloadFormat("PCMA", 8000, 8000)
G722 = PayloadFormat("G722", 8000, 16000)
OPUS = PayloadFormat("opus", 48000, 48000, 2)
#: Comfort noise (RFC 3389); it has no sound of its own and takes the rate of its neighbours.
COMFORT_NOISE = PayloadFormat("CN", 8000, 8000)
#: Keys that were pressed (RFC 4733).
TELEPHONE_EVENT = PayloadFormat("telephone-event", 8000, 8000)

FORMATS = (PCMU, PCMA, G722, OPUS, COMFORT_NOISE, TELEPHONE_EVENT)
STATIC_PAYLOAD_TYPES = {0: PCMU, 8: PCMA, 9: G722, 13: COMFORT_NOISE}

PayloadMap = Mapping[int, PayloadFormat]


@dataclass(frozen=True, slots=True)
class Packet:
    """One RTP packet.

    Attributes:
        payload_type: 0 to 127.
        sequence_number: 16 bits.
        timestamp: 32 bits, in units of the format's clock.
        payload: without padding.
        marker: the first one after silence.
        ssrc: who sent it.
    """

    payload_type: int
    sequence_number: int
    timestamp: int
    payload: bytes
    marker: bool = False
    ssrc: int = 0

"""Reports between the ends of a leg (RTCP, RFC 3550): written every five seconds, and read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from aiortc.clock import current_ntp_time
from aiortc.rtp import (
    RtcpPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    RtpPacket,
    clamp_packets_lost,
)

from rtsr.call.formats import TELEPHONE_EVENT, PayloadFormat
from rtsr.call.packet_queue import LARGEST_SEQUENCE_JUMP, nearest_step
from rtsr.call.receiver_reports import take_report
from rtsr.call.reports import FarReports

__all__ = ["ReportWriter"]

_CNAME = 1
# Seconds; timestamps that are further apart say nothing of how evenly packets come.
_LARGEST_TIME_JUMP = 10.0


class ReportWriter:
    """Counts the packets of both directions of a leg, and exchanges reports on them.

    Args:
        far: gets what the other end says of the packets that it was sent.

    Attributes:
        formats: of the packets of both directions, by payload type; jitter is counted by their
            clocks.
    """

    def __init__(self, far: FarReports) -> None:
        self.formats: Mapping[int, PayloadFormat] = {}
        self._far = far
        self._name = secrets.token_hex(8).encode()
        self._own_ssrc = secrets.randbits(32)
        self._clock_rate = 8000
        # All packets, and those of sound, by which reports go.
        self._sent = self._packets = self._octets = 0
        self._newest: tuple[int, float] | None = None
        self._had_sent = 0
        self._reception: _Reception | None = None
        self._last_report: tuple[int, float] | None = None

    def sent(self, packet: RtpPacket) -> None:
        """Count a packet that goes out."""
        self._sent += 1
        form = self.formats.get(packet.payload_type)
        if form is None or form is TELEPHONE_EVENT:
            return
        self._own_ssrc = packet.ssrc
        self._clock_rate = form.clock_rate
        self._packets += 1
        self._octets += len(packet.payload)
        self._newest = (packet.timestamp, time.monotonic())

    def received(self, packet: RtpPacket) -> None:
        """Count a packet that came."""
        form = self.formats.get(packet.payload_type)
        if form is None:
            return
        if self._reception is None or not self._reception.continues(packet):
            self._reception = _Reception(packet)
        # The timestamp of a key that is held down stands still.
        clock_rate = None if form is TELEPHONE_EVENT else form.clock_rate
        self._reception.add(packet, time.monotonic(), clock_rate)

    def write(self) -> bytes:
        """Return a report: of a sender if anything was sent since the last one."""
        reports = [] if self._reception is None else [self._reception.report(self._last_report)]
        packet: RtcpSrPacket | RtcpRrPacket
        if self._newest is not None and self._packets != self._had_sent:
            self._had_sent = self._packets
            stamp, moment = self._newest
            passed = round((time.monotonic() - moment) * self._clock_rate)
            packet = RtcpSrPacket(
                self._own_ssrc,
                RtcpSenderInfo(
                    current_ntp_time(),
                    (stamp + passed) % 2**32,
                    self._packets % 2**32,
                    self._octets % 2**32,
                ),
                reports,
            )
        else:
            packet = RtcpRrPacket(self._own_ssrc, reports)
        name = RtcpSdesPacket([RtcpSourceInfo(self._own_ssrc, [(_CNAME, self._name)])])
        return bytes(packet) + bytes(name)

    def read(self, data: bytes) -> None:
        """Take a report.

        Raises:
            ValueError, struct.error: it is none.
        """
        for packet in RtcpPacket.parse(data):
            if isinstance(packet, RtcpSrPacket):
                # The middle 32 bits come back in ours, with the time that passed (RFC 3550, 6.4.1).
                middle = packet.sender_info.ntp_timestamp >> 16 & 0xFFFFFFFF
                self._last_report = (middle, time.monotonic())
            if isinstance(packet, RtcpSrPacket | RtcpRrPacket):
                for report in packet.reports:
                    if report.ssrc == self._own_ssrc:
                        take_report(self._far, report, self._sent, self._clock_rate)


class _Reception:
    """What has come of one sender's packets (RFC 3550, A.1, A.3 and A.8)."""

    def __init__(self, first: RtpPacket) -> None:
        self.ssrc = first.ssrc
        self._base = self._highest = first.sequence_number
        self._count = 0
        self._before = (0, 0)
        self._jitter = 0.0
        self._newest: tuple[int, float] | None = None

    def continues(self, packet: RtpPacket) -> bool:
        """Whether a packet belongs to the same count: same sender, no new start of its numbers."""
        return packet.ssrc == self.ssrc and abs(self._step(packet)) <= LARGEST_SEQUENCE_JUMP

    def add(self, packet: RtpPacket, now: float, clock_rate: int | None) -> None:
        """Count a packet; its timestamp, if ``clock_rate`` is given, counts for the jitter."""
        self._count += 1
        step = self._step(packet)
        if self._count > 1 and step <= 0:
            return
        self._highest += step
        if clock_rate is None:
            self._newest = None
            return
        if self._newest is not None:
            stamp, moment = self._newest
            ticks = nearest_step(packet.timestamp - stamp, 2**32)
            if abs(ticks) <= _LARGEST_TIME_JUMP * clock_rate:
                deviation = abs((now - moment) * clock_rate - ticks)
                self._jitter += (deviation - self._jitter) / 16.0
        self._newest = (packet.timestamp, now)

    def _step(self, packet: RtpPacket) -> int:
        return nearest_step(packet.sequence_number - self._highest, 2**16)

    def report(self, last: tuple[int, float] | None) -> RtcpReceiverInfo:
        """Report what came since the last time; ``last`` is the sender's newest report."""
        expected = self._highest - self._base + 1
        missing = max(0, expected - self._before[0] - (self._count - self._before[1]))
        share = 256 * missing // max(1, expected - self._before[0])
        self._before = (expected, self._count)
        stamp, moment = last or (0, 0.0)
        since = round((time.monotonic() - moment) * 65536) if last else 0
        return RtcpReceiverInfo(
            ssrc=self.ssrc,
            fraction_lost=min(255, share),
            packets_lost=clamp_packets_lost(expected - self._count),
            highest_sequence=self._highest % 2**32,
            jitter=round(self._jitter) % 2**32,
            lsr=stamp,
            dlsr=min(2**32 - 1, since),
        )

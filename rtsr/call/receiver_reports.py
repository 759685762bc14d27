"""What a report (RTCP, RFC 3550, 6.4.1) says of a stream of ours."""

from __future__ import annotations

from aiortc.clock import current_ntp_time
from aiortc.rtp import RtcpReceiverInfo

from rtsr.call.reports import FarReports

__all__ = ["take_report"]


def take_report(far: FarReports, report: RtcpReceiverInfo, sent: int, clock_rate: int) -> None:
    """Add what a far end reports of our stream.

    Args:
        far: gets it.
        report: of our stream.
        sent: packets of the stream so far.
        clock_rate: Hz of its timestamps.
    """
    round_trip = None
    if report.lsr:
        now = current_ntp_time() >> 16 & 0xFFFFFFFF
        round_trip = ((now - report.lsr - report.dlsr) % 2**32) / 65536
    far.add(
        report.packets_lost,
        sent,
        report.fraction_lost / 256.0,
        report.jitter / clock_rate,
        round_trip,
    )

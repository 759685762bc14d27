"""Which reports of far ends count, and what of a packet's times does."""

from __future__ import annotations

import asyncio
import socket

import pytest

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from aiortc.clock import current_ntp_time
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket, RtpPacket

from rtsr.call.formats import PCMU
from rtsr.call.reports import FarReports
from rtsr.call.sip.control import ReportWriter
from rtsr.call.sip.media_socket import MediaSocket

OURS = 9


def writer(far):
    """What has sent four packets of a stream of ours."""
    made = ReportWriter(far)
    made.formats = {0: PCMU}
    for number in range(1, 5):
        made.sent(RtpPacket(0, 0, number, 160 * number, OURS, bytes(160)))
    return made


def report(ssrc=OURS, lost=3, since=0.0, jitter=80):
    """A report that says that it answers one of ours that was written so many seconds ago."""
    stamp = (current_ntp_time() - round(since * 2**32)) >> 16 & 0xFFFFFFFF if since else 0
    return bytes(RtcpRrPacket(5, [RtcpReceiverInfo(ssrc, 64, lost, 100, jitter, stamp, 0)]))


def test_reports_on_streams_of_others_do_not_count():
    far = FarReports()
    ours = writer(far)
    ours.read(report(ssrc=OURS + 1, lost=500))
    assert far == FarReports()
    ours.read(report())
    assert (far.count, far.lost) == (1, 3)


@pytest.mark.parametrize(("seconds", "counted"), [(9.0, 1), (11.0, 0), (4000.0, 0)])
def test_a_way_that_is_too_long_is_another_clock(seconds, counted):
    far = FarReports()
    writer(far).read(report(since=seconds))
    assert (far.count, far.round_trips) == (1, counted)
    assert far.round_trip_seconds == pytest.approx(seconds * counted, abs=0.5)


def test_what_cannot_be_true_of_our_packets_spoils_no_sums():
    far = FarReports()
    ours = writer(far)
    ours.read(report(lost=2**23 - 1))
    assert (far.count, far.lost) == (1, 4)
    # 10 s at 8000 Hz are the most.
    ours.read(report(jitter=2**32 - 1))
    ours.read(report(jitter=80_001))
    assert (far.count, far.jitter_seconds) == (1, 0.01)
    ours.read(report(jitter=80_000))
    assert (far.count, far.jitter_seconds) == (2, 10.01)


@pytest.mark.parametrize("seconds", [11, 100_000])
def test_timestamps_that_jump_are_no_jitter(monkeypatch, seconds):
    now = [100.0]
    monkeypatch.setattr("rtsr.call.sip.control.time.monotonic", lambda: now[0])
    seen = FarReports()
    sender, receiver = writer(seen), ReportWriter(FarReports())
    receiver.formats = sender.formats
    for number in range(60):
        # From the thirtieth on, as of a sender whose clock was set; its numbers go on.
        jump = 8000 * seconds if number >= 30 else 0
        packet = RtpPacket(0, 0, number, (160 * number + jump) % 2**32, OURS, bytes(160))
        sender.sent(packet)
        receiver.received(packet)
        now[0] += 0.02
    sender.read(receiver.write())
    assert seen.count == 1
    assert seen.newest_jitter < 0.001


def test_only_reports_from_the_ends_own_host_count():
    async def run():
        far = FarReports()
        ours = await MediaSocket.open("127.0.0.1", lambda packet: None, writer(far))
        heard = []
        ours.on_report = lambda: heard.append(far.count)
        other, there = ("192.0.2.1", 4000), ("192.0.2.1", 4001)
        to_both = (ours.address, ("127.0.0.1", ours.control_port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.bind(("127.0.0.1", 0))
            ours.set_peer(other, there, None, None)
            for address in to_both:
                end.sendto(report(), address)
            while ours.unusable < 2:
                await asyncio.sleep(0.01)
            assert heard == []
            assert ours._control_peer == there
            # Reports of the same host may come from any port.
            ours.set_peer(("127.0.0.1", 9), ("127.0.0.1", 10), None, None)
            for address in to_both:
                end.sendto(report(), address)
            while len(heard) < 2:
                await asyncio.sleep(0.01)
            assert ours._control_peer == end.getsockname()
        assert ours.unusable == 2
        ours.close()

    asyncio.run(asyncio.wait_for(run(), 20.0))

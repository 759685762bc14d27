"""The UDP sockets of a leg: RTP or SRTP in and out, and RTCP beside it or on the same port."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pylibsrtp
from aiortc.rtp import RtpPacket, is_rtcp

from rtsr.call.formats import Packet
from rtsr.call.sip.control import ReportWriter
from rtsr.call.sip.ports import PortRange
from rtsr.call.sip.source import Address, Source

__all__ = ["MediaSocket"]

# RFC 3550, 6.2: so often, and not all at once.
REPORT_SECONDS = 5.0
_TRIES = 8


class MediaSocket(asyncio.DatagramProtocol):
    """Sends packets to one peer and hands its packets on.

    The peer is where its description says, or where its packets show it to be (:class:`Source`).

    Args:
        take: called with every packet that came from the peer.
        reports: writes and reads the reports on the packets.

    Attributes:
        address: where packets are taken.
        control_port: where reports are taken, if not on the same port.
        unusable: datagrams that were no packets of the peer's.
        on_report: called when the peer has sent a report, ``on_unusable`` with every datagram that
            was no packet of the peer's.
    """

    def __init__(self, take: Callable[[Packet], None], reports: ReportWriter) -> None:
        self.address = ("", 0)
        self.control_port: int | None = None
        self.unusable = 0
        self.on_report: Callable[[], None] | None = None
        self.on_unusable: Callable[[], None] | None = None
        self._take = take
        self._reports = reports
        self._transport: asyncio.DatagramTransport | None = None
        self._control: asyncio.DatagramTransport | None = None
        self._source = Source()
        self._control_peer: Address | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._range: PortRange | None = None
        self._incoming: pylibsrtp.Session | None = None
        self._outgoing: pylibsrtp.Session | None = None
        self._our_key: bytes | None = None
        self._their_key: bytes | None = None
        self._is_secure = False

    @classmethod
    async def open(
        cls,
        host: str,
        take: Callable[[Packet], None],
        reports: ReportWriter,
        ports: PortRange | None = None,
    ) -> MediaSocket:
        """Bind a socket and, on the next port, one for reports; of ``ports``, or anywhere.

        Where no two ports in a row are left there is none for reports. They then come and go on
        the socket's own port, with those who can do that.

        Raises:
            OSError: there is no port left.
        """
        loop = asyncio.get_running_loop()
        alone: MediaSocket | None = None
        for port in (0,) * _TRIES if ports is None else ports.in_order():
            try:
                _, socket = await loop.create_datagram_endpoint(
                    lambda: cls(take, reports), local_addr=(host, port)
                )
            except OSError:
                continue
            if await socket._open_control(host, ports):
                if alone is not None:
                    alone.close()
                return socket._taking_from(ports)
            if alone is None:
                alone = socket
            else:
                socket.close()
        if alone is None:
            raise OSError("no port for sound is left")
        return alone._taking_from(ports)

    def _taking_from(self, ports: PortRange | None) -> MediaSocket:
        """Return this socket, which leaves its ports to others of the range when it is closed."""
        self._range = ports
        if ports is not None:
            ports.take(*self._ports)
        return self

    @property
    def _ports(self) -> list[int]:
        return [port for port in (self.address[1], self.control_port) if port is not None]

    async def _open_control(self, host: str, ports: PortRange | None) -> bool:
        port = self.address[1] + 1
        if port > 65535 or (ports is not None and port not in ports):
            return False
        try:
            self._control, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _ControlSocket(self._take_control), local_addr=(host, port)
            )
        except OSError:
            return False
        self.control_port = port
        return True

    def set_peer(
        self, address: Address, control: Address | None, ours: bytes | None, theirs: bytes | None
    ) -> None:
        """Where packets go, and the SRTP keys, if any (key and salt, RFC 4568, 6.1).

        Args:
            address: of the packets.
            control: of the reports; ``None`` if that is the same.
            ours: key of what goes out.
            theirs: key of what comes in.
        """
        self._source.describe(address)
        self._control_peer = control
        self._is_secure = ours is not None
        # A session that began anew under the same key would count its packets from the beginning:
        # the other end could not follow, and the key's stream would be used twice (RFC 3711, 9.1).
        if ours is not None and ours != self._our_key:
            self._our_key = ours
            self._outgoing = _session(ours, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        if theirs is not None and theirs != self._their_key:
            self._their_key = theirs
            self._incoming = _session(theirs, pylibsrtp.Policy.SSRC_ANY_INBOUND)
        if self._timer is None:
            self._report_later()

    def connection_made(self, transport: Any) -> None:
        """Take note of where the socket is; called by asyncio."""
        self._transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self.address = (str(host), int(port))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take a datagram, whatever it holds; called by asyncio."""
        source = (str(addr[0]), int(addr[1]))
        if not self._source.may_be(source):
            self._pass_over()
            return
        try:
            if is_rtcp(data):
                self._take_report(data, source)
                return
            if len(data) < 12:
                return
            if self._is_secure:
                if self._incoming is None:
                    return
                data = self._incoming.unprotect(data)
            rtp = RtpPacket.parse(data)
        except Exception:
            # A malformed packet must not disturb anything else.
            self._pass_over()
            return
        if not self._source.takes(source, rtp.ssrc):
            self._pass_over()
            return
        self._reports.received(rtp)
        self._take(
            Packet(
                rtp.payload_type,
                rtp.sequence_number,
                rtp.timestamp,
                rtp.payload,
                bool(rtp.marker),
                rtp.ssrc,
            )
        )

    def error_received(self, exc: Exception) -> None:
        """Ignore errors: a peer that is gone is detected by its silence; called by asyncio."""

    def send(self, packet: Packet) -> None:
        """Send a packet to the peer, if it is known."""
        peer = self._source.address
        if self._transport is None or peer is None or self._transport.is_closing():
            return
        rtp = RtpPacket(
            payload_type=packet.payload_type,
            marker=int(packet.marker),
            sequence_number=packet.sequence_number,
            timestamp=packet.timestamp,
            ssrc=packet.ssrc,
            payload=packet.payload,
        )
        self._reports.sent(rtp)
        data = rtp.serialize()
        if self._is_secure:
            if self._outgoing is None:
                return
            data = self._outgoing.protect(data)
        self._transport.sendto(data, peer)

    def close(self) -> None:
        """Close the sockets. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
        for transport in (self._transport, self._control):
            if transport is not None:
                transport.close()
        if self._range is not None:
            self._range.leave(*self._ports)
            self._range = None

    def _take_control(self, data: bytes, source: Address) -> None:
        """Read a report that came to the port for reports; the next ones of ours go there."""
        if self._take_report(data, source):
            # Behind an address translator that is another port than was announced.
            self._control_peer = source

    def _take_report(self, data: bytes, source: Address) -> bool:
        """Read a report, whatever it holds, only from the peer's host; return if it was one."""
        peer = self._source.address
        if peer is None or source[0] != peer[0]:
            self._pass_over()
            return False
        try:
            if self._is_secure:
                if self._incoming is None:
                    return False
                data = self._incoming.unprotect_rtcp(data)
            self._reports.read(data)
        except Exception:
            self._pass_over()
            return False
        if self.on_report is not None:
            self.on_report()
        return True

    def _pass_over(self) -> None:
        self.unusable += 1
        if self.on_unusable is not None:
            self.on_unusable()

    def _report_later(self) -> None:
        wait = REPORT_SECONDS * random.uniform(0.5, 1.5)
        self._timer = asyncio.get_running_loop().call_later(wait, self._report)

    def _report(self) -> None:
        self._report_later()
        transport = self._transport if self._control_peer is None else self._control
        peer = self._source.address if self._control_peer is None else self._control_peer
        if transport is None or peer is None or transport.is_closing():
            return
        data = self._reports.write()
        if self._is_secure:
            if self._outgoing is None:
                return
            data = self._outgoing.protect_rtcp(data)
        transport.sendto(data, peer)


class _ControlSocket(asyncio.DatagramProtocol):
    """Hands on what comes to the port for reports."""

    def __init__(self, take: Callable[[bytes, Address], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, (str(addr[0]), int(addr[1])))


def _session(key: bytes, direction: int) -> pylibsrtp.Session:
    policy = pylibsrtp.Policy(
        key=key, ssrc_type=direction, srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80
    )
    policy.allow_repeat_tx = True
    return pylibsrtp.Session(policy)

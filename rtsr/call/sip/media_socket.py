"""The UDP socket of a leg: RTP or SRTP in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pylibsrtp
from aiortc.rtp import RtpPacket, is_rtcp

from rtsr.call.formats import Packet

__all__ = ["MediaSocket"]


class MediaSocket(asyncio.DatagramProtocol):
    """Sends packets to one peer and hands its packets on.

    The peer is where its description says; as telephones behind address translators do not know
    what others see of them, the first source of a usable packet is taken instead, once.

    Args:
        take: called with every packet that came from the peer.

    Attributes:
        address: where packets are taken.
        unusable: datagrams that were no packets of the peer's.
    """

    def __init__(self, take: Callable[[Packet], None]) -> None:
        self.address = ("", 0)
        self.unusable = 0
        self._take = take
        self._transport: asyncio.DatagramTransport | None = None
        self._peer: tuple[str, int] | None = None
        self._is_fixed = False
        self._incoming: pylibsrtp.Session | None = None
        self._outgoing: pylibsrtp.Session | None = None
        self._keys: tuple[bytes, bytes] | None = None
        self._is_secure = False

    @classmethod
    async def open(
        cls, host: str, take: Callable[[Packet], None], ports: range | None = None
    ) -> MediaSocket:
        """Bind a socket; of ``ports``, or wherever there is room.

        Raises:
            OSError: there is no port left.
        """
        loop = asyncio.get_running_loop()
        for port in ports or (0,):
            try:
                _, socket = await loop.create_datagram_endpoint(
                    lambda: cls(take), local_addr=(host, port)
                )
            except OSError:
                continue
            return socket
        raise OSError("no port for sound is left")

    def set_peer(self, address: tuple[str, int], ours: bytes | None, theirs: bytes | None) -> None:
        """Where packets go, and the SRTP keys, if any (key and salt, RFC 4568, 6.1)."""
        if address != self._peer:
            self._peer, self._is_fixed = address, False
        self._is_secure = ours is not None
        if ours is not None and theirs is not None and (ours, theirs) != self._keys:
            self._keys = (ours, theirs)
            self._outgoing = _session(ours, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
            self._incoming = _session(theirs, pylibsrtp.Policy.SSRC_ANY_INBOUND)

    def connection_made(self, transport: Any) -> None:
        """Take note of where the socket is; called by asyncio."""
        self._transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self.address = (str(host), int(port))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take a datagram, whatever it holds; called by asyncio."""
        source = (str(addr[0]), int(addr[1]))
        if self._is_fixed and source != self._peer:
            self.unusable += 1
            return
        try:
            if len(data) < 12 or is_rtcp(data):
                return
            if self._is_secure:
                if self._incoming is None:
                    return
                data = self._incoming.unprotect(data)
            rtp = RtpPacket.parse(data)
        except Exception:
            # A malformed packet must not disturb anything else.
            self.unusable += 1
            return
        if not self._is_fixed:
            self._peer, self._is_fixed = source, True
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
        if self._transport is None or self._peer is None or self._transport.is_closing():
            return
        rtp = RtpPacket(
            payload_type=packet.payload_type,
            marker=int(packet.marker),
            sequence_number=packet.sequence_number,
            timestamp=packet.timestamp,
            ssrc=packet.ssrc,
            payload=packet.payload,
        )
        data = rtp.serialize()
        if self._is_secure:
            if self._outgoing is None:
                return
            data = self._outgoing.protect(data)
        self._transport.sendto(data, self._peer)

    def close(self) -> None:
        """Close the socket. May be called twice."""
        if self._transport is not None:
            self._transport.close()


def _session(key: bytes, direction: int) -> pylibsrtp.Session:
    policy = pylibsrtp.Policy(
        key=key, ssrc_type=direction, srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80
    )
    policy.allow_repeat_tx = True
    return pylibsrtp.Session(policy)

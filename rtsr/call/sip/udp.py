"""SIP over UDP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiosipua import SipRequest, SipResponse
from aiosipua.transport import UdpSipTransport

from rtsr.call.sip.destinations import (
    datagram_hop,
    follow_strict_route,
    is_numeric,
    is_within_call,
)
from rtsr.call.sip.transactions import Transactions, receive

__all__ = ["UdpTransport"]

_log = logging.getLogger(__name__)

_LONGEST_DATAGRAM = 65_507


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, owner: UdpTransport) -> None:
        self._owner = owner

    def datagram_received(self, data: bytes, addr: Any) -> None:
        receive(self._owner, data, (str(addr[0]), int(addr[1])))

    def error_received(self, exc: Exception) -> None:
        _log.info("a SIP message was not delivered", extra={"reason": type(exc).__name__})


@dataclass
class UdpTransport(UdpSipTransport):
    """aiosipua's transport, which refuses to start under CPython 3.11, with transactions.

    Attributes:
        has_made: tells whether we have made the call of that name; else it came.
    """

    has_made: Callable[[str], bool] = field(default=lambda name: False)
    transactions: Transactions = field(init=False, repr=False)

    async def start(self) -> None:
        """Bind the socket; ``local_addr`` then has the port that was found."""
        self.transactions = Transactions(self)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=self.local_addr
        )
        self._udp_transport = transport
        self.local_addr = (self.local_addr[0], transport.get_extra_info("sockname")[1])

    def send(self, message: SipRequest | SipResponse, addr: tuple[str, int]) -> None:
        """Send a message, and a request again until it is answered.

        A request within a call goes to the far Contact, or the first proxy before it, and to
        ``addr`` where those cannot be reached from here.
        """
        if isinstance(message, SipRequest):
            if is_within_call(message):
                has_come = not self.has_made(message.call_id or "")
                addr = datagram_hop(message, addr, has_come=has_come)
                follow_strict_route(message)
            self.transactions.ask(message, addr, repeat=True)
        else:
            self.transactions.answer(message, addr)
        self.write(bytes(message), addr)

    def write(self, data: bytes, addr: tuple[str, int]) -> None:
        """Send bytes to a numeric address; for others they are lost, as a datagram may be.

        asyncio would look a name up while all calls wait, and close the socket over a wrong port.
        """
        if self._udp_transport is None:
            raise RuntimeError("the transport is closed")
        if not is_numeric(addr):
            _log.info("a SIP message has no address to go to")
            return
        self._udp_transport.sendto(data[:_LONGEST_DATAGRAM], addr)

    async def stop(self) -> None:
        """Close the socket; nothing is repeated any more."""
        self.transactions.close()
        await super().stop()

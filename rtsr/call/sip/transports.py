"""aiosipua's transports, with the transactions that it leaves out.

aiosipua 0.7 sends a request once and hands every copy of one on. Over UDP both must be seen to (RFC
3261, 17): requests are repeated until something answers, repeated requests get the same answer
again, refusals of an INVITE are acknowledged, and what cannot be read is answered with 400. Its UDP
transport also refuses to start under CPython 3.11, whose transports are of another class, and its
requests say UDP whatever carries them. Over TCP it sends nothing where the connection is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiosipua import SipMessage, SipRequest, SipResponse
from aiosipua.headers import CSeq, parse_via, stringify_cseq, stringify_via
from aiosipua.transport import (
    SipTransport,
    TcpSipTransport,
    UdpSipTransport,
    _read_sip_message,
    _stamp_via_received,
)

from rtsr.call.sip.destinations import datagram_hop, is_within_call, next_hop, sent_by

__all__ = ["EXTENSIONS", "METHODS", "TcpTransport", "UdpTransport", "resolved", "transaction_key"]

_log = logging.getLogger(__name__)

#: What may be asked of us, as headers name it.
METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "PRACK", "UPDATE")
#: What calls may require of us (RFC 3261, 8.2.2.3): session timers, and answers that are
#: acknowledged, which need not be used where nothing is said before the final one.
EXTENSIONS = ("100rel", "timer")

# RFC 3261, 17.1.1.1.
_T1, _T2, _TIMEOUT = 0.5, 4.0, 32.0
_MOST_REMEMBERED = 4096

#: Connections at a time; where they are all taken, the one that has been idle for longest goes.
MOST_CONNECTIONS = 512
#: A connection that carries no call and brings no whole message for so long is closed.
IDLE_SECONDS = 600.0
#: How long a new one may take for its first message.
FIRST_MESSAGE_SECONDS = 30.0
_SWEEP_SECONDS = 5.0
# Who asks and does not read the answers.
_MOST_UNREAD_BYTES = 1 << 20
_LONGEST_DATAGRAM = 65_507
_CONNECT_SECONDS = 10.0


@dataclass
class _Answered:
    """A request that came: from where, through which proxies, and its answer so far."""

    at: float
    source: tuple[str, int]
    proxies: list[str]
    data: bytes | None = None
    to: tuple[str, int] = ("", 0)


class _Transactions:
    """Recent requests and responses of one transport."""

    def __init__(self, transport: SipTransport) -> None:
        self._transport = transport
        self._asked: dict[tuple[str, str], tuple[SipRequest, tuple[str, int]]] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._answered: dict[tuple[str, str], _Answered] = {}

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def ask(self, request: SipRequest, to: tuple[str, int], repeat: bool) -> None:
        """Watch over a request that is sent."""
        key = transaction_key(request)
        if request.method == "ACK" or key is None:
            return
        self._asked[key] = (request, to)
        self._forget_old()
        deadline = time.monotonic() + _TIMEOUT
        self._set_timer(key, _T1, deadline, repeat)

    def _set_timer(self, key: tuple[str, str], wait: float, deadline: float, repeat: bool) -> None:
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(wait, self._on_timer, key, wait, deadline, repeat)

    def _on_timer(self, key: tuple[str, str], waited: float, deadline: float, repeat: bool) -> None:
        self._timers.pop(key, None)
        known = self._asked.get(key)
        if known is None:
            return
        request, to = known
        if time.monotonic() >= deadline:
            if self._transport.on_message is not None:
                self._transport.on_message(_timed_out(request), to)
            return
        if repeat:
            self._write(bytes(request), to)
        longest = 2.0 * waited if request.method == "INVITE" else min(2.0 * waited, _T2)
        left = max(0.1, deadline - time.monotonic())
        self._set_timer(key, min(longest, left), deadline, repeat)

    def hear_answer(self, response: SipResponse, source: tuple[str, int]) -> None:
        """Stop repeating the request of a response that came, and acknowledge a refusal."""
        key = transaction_key(response)
        if key is None:
            return
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        known = self._asked.get(key)
        if known is not None and key[1] == "INVITE" and response.status_code >= 300:
            request, to = known
            # A connection over which something came lives.
            to = source if self._transport.reliable else to
            self._write(bytes(_acknowledgement(request, response)), to)

    def hear_request(self, request: SipRequest, source: tuple[str, int]) -> bool:
        """Whether a request is new; one that was answered gets the same answer again."""
        key = transaction_key(request)
        if key is None or request.method == "ACK":
            return True
        known = self._answered.get(key)
        if known is None:
            self._answered[key] = _Answered(
                time.monotonic(), source, request.headers.get("record-route")
            )
            self._forget_old()
            return True
        known.source = source
        if known.data is not None:
            self._write(known.data, source if self._transport.reliable else known.to)
        return False

    def source_of(self, response: SipResponse) -> tuple[str, int] | None:
        """From where the newest copy of a response's request came, if that is remembered."""
        key = transaction_key(response)
        known = None if key is None else self._answered.get(key)
        return None if known is None else known.source

    def answer(self, response: SipResponse, to: tuple[str, int]) -> None:
        """Remember a response that is sent: it answers every copy of its request."""
        _keep_one_tag(response)
        _name_abilities(response)
        key = transaction_key(response)
        known = None if key is None else self._answered.get(key)
        if known is not None:
            if key is not None and key[1] == "INVITE" and 100 < response.status_code < 300:
                _name_proxies(response, known.proxies)
            known.at, known.data, known.to = time.monotonic(), bytes(response), to

    def _write(self, data: bytes, to: tuple[str, int]) -> None:
        try:
            self._transport.write(data, to)  # type: ignore[attr-defined]
        except (OSError, RuntimeError) as error:
            _log.warning("a SIP message was not sent", extra={"reason": str(error)})

    def _forget_old(self) -> None:
        if len(self._answered) > _MOST_REMEMBERED:
            for key in list(self._answered)[: _MOST_REMEMBERED // 2]:
                del self._answered[key]
        if len(self._asked) > _MOST_REMEMBERED:
            for key in [k for k in self._asked if k not in self._timers]:
                del self._asked[key]


def _receive(transport: Any, data: bytes, address: tuple[str, int]) -> None:
    """Parse a message and hand it on once; nothing that a peer sends gets further."""
    # Line breaks keep the binding of an address translator (RFC 5626, 4.4). Those in a stream come
    # with the message after them (RFC 3261, 7.5).
    data = data.lstrip(b"\r\n\0 ")
    if not data:
        return
    try:
        message = SipMessage.parse(data)
        if isinstance(message, SipRequest):
            _stamp_via_received(message, address)
    except Exception as error:
        _log.info("a SIP message could not be read", extra={"reason": type(error).__name__})
        return
    transactions: _Transactions = transport.transactions
    try:
        if transport.reliable:
            transport.on_heard(message, address)
        if isinstance(message, SipResponse):
            transactions.hear_answer(message, address)
        elif not transactions.hear_request(message, address):
            return
        if transport.on_message is not None:
            transport.on_message(message, address)
    except Exception as error:
        _log.info("a SIP message was not usable", extra={"reason": type(error).__name__})
        if isinstance(message, SipRequest) and message.method != "ACK":
            _refuse(transport, message)


def _refuse(transport: Any, request: SipRequest) -> None:
    response = SipResponse(status_code=400, reason_phrase="Bad Request")
    for value in request.headers.get("via"):
        response.headers.append("Via", value)
    _copy_headers(request, response)
    try:
        transport.send_reply(response)
    except Exception as error:
        _log.info("a SIP message got no answer", extra={"reason": type(error).__name__})


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, owner: UdpTransport) -> None:
        self._owner = owner

    def datagram_received(self, data: bytes, addr: Any) -> None:
        _receive(self._owner, data, (str(addr[0]), int(addr[1])))

    def error_received(self, exc: Exception) -> None:
        _log.info("a SIP message was not delivered", extra={"reason": type(exc).__name__})


@dataclass
class UdpTransport(UdpSipTransport):
    """SIP over UDP.

    Attributes:
        has_made: tells whether we have made the call of that name; else it came.
    """

    has_made: Callable[[str], bool] = field(default=lambda name: False)
    transactions: _Transactions = field(init=False, repr=False)

    async def start(self) -> None:
        """Bind the socket; ``local_addr`` then has the port that was found."""
        self.transactions = _Transactions(self)
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
            self.transactions.ask(message, addr, repeat=True)
        else:
            self.transactions.answer(message, addr)
        self.write(bytes(message), addr)

    def write(self, data: bytes, addr: tuple[str, int]) -> None:
        """Send bytes."""
        if self._udp_transport is None:
            raise RuntimeError("the transport is closed")
        self._udp_transport.sendto(data[:_LONGEST_DATAGRAM], addr)

    async def stop(self) -> None:
        """Close the socket; nothing is repeated any more."""
        self.transactions.close()
        await super().stop()


@dataclass
class _Accepted:
    """A connection that others have opened."""

    writer: asyncio.StreamWriter
    heard_at: float
    has_spoken: bool = False


@dataclass(frozen=True)
class _Waiting:
    """A message that waits for a connection, and where else it may go."""

    data: bytes
    others: tuple[tuple[str, int], ...]


@dataclass
class TcpTransport(TcpSipTransport):
    """SIP over TCP; connects where there is no connection yet.

    Attributes:
        carries_call: tells whether the connection from an address belongs to a call; such a one may
            be idle for as long as the call lasts.
        on_heard: called with every message that comes, copies included, and the address of its
            connection, before anything else is done with it.
        newest: tells the address from which the call that a message belongs to was heard last.
    """

    carries_call: Callable[[tuple[str, int]], bool] = field(default=lambda address: False)
    on_heard: Callable[[SipRequest | SipResponse, tuple[str, int]], None] = field(
        default=lambda message, address: None
    )
    newest: Callable[[SipRequest | SipResponse], tuple[str, int] | None] = field(
        default=lambda message: None
    )
    transactions: _Transactions = field(init=False, repr=False)
    _accepted: dict[tuple[str, int], _Accepted] = field(
        default_factory=dict, init=False, repr=False
    )
    _sweeper: asyncio.TimerHandle | None = field(default=None, init=False, repr=False)
    _opening: dict[tuple[str, int], list[_Waiting]] = field(
        default_factory=dict, init=False, repr=False
    )

    async def start(self) -> None:
        """Listen; ``local_addr`` then has the port that was found."""
        self.transactions = _Transactions(self)
        await super().start()
        assert self._server is not None
        self.local_addr = (self.local_addr[0], self._server.sockets[0].getsockname()[1])
        self._sweep_later()

    async def _handle_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a connection, if there is room for it; called by asyncio."""
        if len(self._accepted) >= MOST_CONNECTIONS and not self._make_room():
            _log.info("a SIP connection was refused: too many carry calls")
            writer.close()
            return
        peer = writer.get_extra_info("peername") or ("0.0.0.0", 0)
        address = (str(peer[0]), int(peer[1]))
        accepted = _Accepted(writer, asyncio.get_running_loop().time())
        self._accepted[address] = accepted
        try:
            await super()._handle_connection(reader, writer)
        finally:
            # Who has closed may have left answers unread for good.
            writer.transport.abort()
            if self._accepted.get(address) is accepted:
                del self._accepted[address]

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest; return whether there was one."""
        idle = [address for address in self._accepted if not self.carries_call(address)]
        if not idle:
            return False
        self._dismiss(min(idle, key=lambda address: self._accepted[address].heard_at))
        return True

    def _dismiss(self, address: tuple[str, int]) -> None:
        self._connections.pop(address, None)
        # Closing would wait for answers to be read.
        self._accepted.pop(address).writer.transport.abort()

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweep_later()
        now = asyncio.get_running_loop().time()
        for address, accepted in list(self._accepted.items()):
            longest = IDLE_SECONDS if accepted.has_spoken else FIRST_MESSAGE_SECONDS
            if now - accepted.heard_at > longest and not self.carries_call(address):
                self._dismiss(address)

    def _dispatch(self, data: bytes, addr: tuple[str, int]) -> None:
        accepted = self._accepted.get(addr)
        if accepted is not None:
            accepted.heard_at, accepted.has_spoken = asyncio.get_running_loop().time(), True
        if data == b"\r\n\r\n":
            # Who asks so whether the connection still lives is told (RFC 5626, 3.5.1).
            if self._lives(addr):
                self.write(b"\r\n", addr)
            return
        _receive(self, data, addr)

    async def _handle_incoming(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, addr: tuple[str, int]
    ) -> None:
        """Read from a connection that we have opened; called by aiosipua."""
        try:
            while (data := await _read_sip_message(reader)) is not None:
                self._dispatch(data, addr)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass
        finally:
            writer.transport.abort()
            known = self._connections.get(addr)
            # There may be a newer one already.
            if known is not None and known[1] is writer:
                del self._connections[addr]

    def send(self, message: SipRequest | SipResponse, addr: tuple[str, int]) -> None:
        """Send a message; requests say that they came over TCP.

        A request within a call goes over the connection from or to ``addr``, a response over that
        of its request (RFC 3261, 18.2.2). If that is gone, either takes the connection on which the
        end of the call was heard last, since behind an address translator no other can be opened.
        Without one, a request goes to the far Contact, or the first proxy before it, and to
        ``addr`` where nobody is there; a response goes to the address in its Via.
        """
        if isinstance(message, SipRequest):
            _say_tcp(message)
            own: tuple[str, int] | None = addr
            other = next_hop(message) if is_within_call(message) else None
        else:
            own = self.transactions.source_of(message)
            other = None if own is None else sent_by(message)
        living = [way for way in (own, self.newest(message)) if way is not None]
        living = [way for way in living if self._lives(way)]
        if living:
            ways = living[:1]
        elif isinstance(message, SipRequest):
            ways = [addr] if other is None else [other, addr]
        else:
            ways = [other or addr]
        if isinstance(message, SipRequest):
            self.transactions.ask(message, ways[0], repeat=False)
        else:
            self.transactions.answer(message, ways[0])
        self.write(bytes(message), *ways)

    def write(self, data: bytes, *ways: tuple[str, int]) -> None:
        """Send bytes over the connection from or to an address; without one, open it.

        Args:
            data: what is sent.
            ways: addresses; the others are tried in turn where the first cannot be reached.
        """
        addr, *others = dict.fromkeys(ways)
        if self._lives(addr):
            writer = self._connections[addr][1]
            if writer.transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
                writer.transport.abort()
                return
            writer.write(data)
            self._spawn(self._flush(writer, addr))
            return
        waiting = _Waiting(data, tuple(others))
        if addr in self._opening:
            self._opening[addr].append(waiting)
        else:
            self._opening[addr] = [waiting]
            self._spawn(self._connect_and_send(addr))

    def _lives(self, address: tuple[str, int]) -> bool:
        known = self._connections.get(address)
        return known is not None and not known[1].is_closing()

    async def _connect_and_send(self, way: tuple[str, int]) -> None:
        """Open a connection and send what waits for it; each message has other ways of its own."""
        try:
            if not self._lives(way):
                await asyncio.wait_for(self.connect(way), _CONNECT_SECONDS)
            failed = False
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            # What stands for a name may be none (ValueError). Where there is no other way, the
            # transaction's timer reports that there was no answer.
            _log.info("no SIP connection", extra={"reason": type(error).__name__})
            failed = True
        for waiting in self._opening.pop(way, []):
            # An end that closes at once is not called again and again: the transaction's timer
            # reports that there was no answer.
            if self._lives(way):
                self.write(waiting.data, way)
            elif failed and waiting.others:
                self.write(waiting.data, *waiting.others)

    async def stop(self) -> None:
        """Close all connections."""
        self.transactions.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await super().stop()


def _say_tcp(request: SipRequest) -> None:
    values = request.headers.get("via")
    via = parse_via(values[0])
    if via.transport == "TCP":
        return
    via.transport = "TCP"
    request.headers.remove("Via")
    for value in (stringify_via(via), *values[1:]):
        request.headers.append("Via", value)
    contact = request.headers.get_first("contact")
    if contact and contact.endswith(">") and ";transport=" not in contact:
        request.headers.set_single("Contact", contact[:-1] + ";transport=tcp>")


def _keep_one_tag(response: SipResponse) -> None:
    """Leave a To header the tag that it came with; aiosipua adds another to some of them."""
    address, *tags = (response.headers.get_first("to") or "").split(";tag=")
    if len(tags) > 1:
        response.headers.set_single("To", f"{address};tag={tags[0]}")


def _name_abilities(response: SipResponse) -> None:
    """Say what may be asked of us, as answers to INVITE and OPTIONS should and 405 must.

    RFC 3261, 8.2.1, 11.2 and 13.3.1.4.
    """
    method = response.cseq.method.upper() if response.cseq is not None else ""
    accepts = 200 <= response.status_code < 300 and method in ("INVITE", "OPTIONS")
    if accepts or response.status_code == 405:
        response.headers.set_single("Allow", ", ".join(METHODS))
    if accepts:
        response.headers.set_single("Supported", ", ".join(EXTENSIONS))
    if accepts and method == "OPTIONS":
        response.headers.set_single("Accept", "application/sdp")


def _name_proxies(response: SipResponse, proxies: list[str]) -> None:
    """Repeat the proxies that want to stay on a call's way (RFC 3261, 12.1.1)."""
    if not response.headers.get("record-route"):
        for proxy in proxies:
            response.headers.append("Record-Route", proxy)


def transaction_key(message: SipMessage) -> tuple[str, str] | None:
    """Return a transaction's name: branch of the newest Via, and method (RFC 3261, 17.1.3)."""
    try:
        via, cseq = message.via, message.cseq
    except Exception:
        return None
    if not via or not via[0].branch or cseq is None:
        return None
    return via[0].branch, cseq.method.upper()


def _timed_out(request: SipRequest) -> SipResponse:
    response = SipResponse(status_code=408, reason_phrase="Request Timeout")
    response.headers.append("Via", request.headers.get("via")[0])
    _copy_headers(request, response)
    return response


def _copy_headers(request: SipRequest, response: SipResponse) -> None:
    """Return the headers that every response repeats of its request (RFC 3261, 8.2.6.2)."""
    for name in ("From", "To", "Call-ID", "CSeq"):
        value = request.headers.get_first(name)
        if value:
            response.headers.set_single(name, value)


def _acknowledgement(request: SipRequest, response: SipResponse) -> SipRequest:
    """Make the ACK of a refusal, in the INVITE's own transaction (RFC 3261, 17.1.1.3)."""
    ack = SipRequest(method="ACK", uri=request.uri)
    ack.headers.append("Via", request.headers.get("via")[0])
    for name, source in (("From", request), ("To", response), ("Call-ID", request)):
        value = source.headers.get_first(name)
        if value:
            ack.headers.set_single(name, value)
    cseq = request.cseq
    ack.headers.set_single("CSeq", stringify_cseq(CSeq(seq=cseq.seq if cseq else 1, method="ACK")))
    ack.headers.set_single("Max-Forwards", "70")
    for route in request.headers.get("route"):
        ack.headers.append("Route", route)
    return ack


async def resolved(host: str, port: int) -> tuple[str, int]:
    """Resolve a host's address, IPv4 if it has one.

    Raises:
        OSError: the name is unknown.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port)
    found.sort(key=lambda each: each[0].name != "AF_INET")
    return str(found[0][4][0]), port

"""SIP over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from aiosipua import SipRequest, SipResponse
from aiosipua.headers import parse_via, stringify_via
from aiosipua.transport import TcpSipTransport

from rtsr.call.sip.destinations import (
    follow_strict_route,
    is_within_call,
    next_hop,
    resolved,
    sent_by,
)
from rtsr.call.sip.framing import read_message
from rtsr.call.sip.transactions import Transactions, receive
from rtsr.certificate import reason_of
from rtsr.listening import room_for_connections

__all__ = ["TcpTransport"]

_log = logging.getLogger(__name__)

#: Share of the files that may be open which are for connections, over TCP and over TLS each, by
#: whomever they were opened; where they are all taken, the one that has been idle for longest goes.
SHARE_OF_FILES = 0.25
#: A connection that carries no call and brings no whole message for so long is closed.
IDLE_SECONDS = 600.0
#: How long a new one may take for its first message.
FIRST_MESSAGE_SECONDS = 30.0
SWEEP_SECONDS = 5.0
# Who asks and does not read the answers.
MOST_UNREAD_BYTES = 1 << 20
_CONNECT_SECONDS = 10.0
_LAST_ANSWERS_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0


@dataclass(eq=False)
class _Connection:
    """A connection, and when a message came over it."""

    address: tuple[str, int]
    writer: asyncio.StreamWriter
    heard_at: float
    has_spoken: bool


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
    #: As in a Via, and as a parameter of a Contact in lower case.
    protocol: ClassVar[str] = "TCP"

    transactions: Transactions = field(init=False, repr=False)
    _open: set[_Connection] = field(default_factory=set, init=False, repr=False)
    _connecting: int = field(default=0, init=False, repr=False)
    _serving: set[asyncio.Task[None]] = field(default_factory=set, init=False, repr=False)
    _sweeper: asyncio.TimerHandle | None = field(default=None, init=False, repr=False)
    _opening: dict[tuple[str, int], list[_Waiting]] = field(
        default_factory=dict, init=False, repr=False
    )

    async def start(self) -> None:
        """Listen; ``local_addr`` then has the port that was found."""
        self.transactions = Transactions(self)
        self._server = await self._listen()
        if self._server is not None:
            self.local_addr = (self.local_addr[0], self._server.sockets[0].getsockname()[1])
        self._sweep_later()

    async def _listen(self) -> asyncio.Server | None:
        return await asyncio.start_server(self._handle_connection, *self.local_addr)

    async def _handle_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a connection, if there is room for it; called by asyncio."""
        if self._server is None:
            # It was accepted just before the end.
            writer.transport.abort()
            return
        if not self._has_room():
            _log.info("a SIP connection was refused: too many carry calls")
            writer.close()
            return
        peer = writer.get_extra_info("peername") or ("0.0.0.0", 0)
        connection = self._take((str(peer[0]), int(peer[1])), writer, has_spoken=False)
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        try:
            await self._prepare(writer)
            self._connections[connection.address] = (reader, writer)
            await self._read(reader, connection)
            writer.close()
            # Answers may still be on their way.
            with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), _LAST_ANSWERS_SECONDS)
        except OSError as error:
            _log.info("a SIP connection broke", extra={"reason": reason_of(error)})
        finally:
            # Who has closed may have left answers unread for good.
            writer.transport.abort()
            self._open.discard(connection)
            self._serving.discard(serving)

    async def connect(
        self, remote_addr: tuple[str, int]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection, as aiosipua's, if there is room for it.

        Raises:
            OSError: there is none, or nobody is there.
        """
        if not self._has_room():
            _log.info("a SIP connection was not opened: too many carry calls")
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self._connecting += 1
        try:
            reader, writer = await self._reach(remote_addr)
        finally:
            self._connecting -= 1
        # Who is called may think for as long as they like before the first message.
        connection = self._take(remote_addr, writer, has_spoken=True)
        self._connections[remote_addr] = (reader, writer)
        self._spawn(self._follow(reader, connection))
        return reader, writer

    async def _reach(
        self, address: tuple[str, int]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to an address, or to a host by its name."""
        return await asyncio.open_connection(*await resolved(*address))

    def _take(
        self, address: tuple[str, int], writer: asyncio.StreamWriter, *, has_spoken: bool
    ) -> _Connection:
        now = asyncio.get_running_loop().time()
        connection = _Connection(address, writer, now, has_spoken)
        self._open.add(connection)
        return connection

    async def _prepare(self, writer: asyncio.StreamWriter) -> None:
        """Do what comes before the first message on a connection that was accepted."""

    def _has_room(self) -> bool:
        """Whether one more connection fits, after the one that is idle for longest was closed."""
        while len(self._open) + self._connecting >= room_for_connections(SHARE_OF_FILES):
            idle = [each for each in self._open if not self.carries_call(each.address)]
            if not idle:
                return False
            self._dismiss(min(idle, key=lambda each: each.heard_at))
        return True

    def _dismiss(self, connection: _Connection) -> None:
        self._forget(connection)
        self._open.discard(connection)
        # Closing would wait for answers to be read.
        connection.writer.transport.abort()

    def _forget(self, connection: _Connection) -> None:
        """Send nothing more over a connection; there may be a newer one of the same address."""
        known = self._connections.get(connection.address)
        if known is not None and known[1] is connection.writer:
            del self._connections[connection.address]

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweep_later()
        now = asyncio.get_running_loop().time()
        for each in list(self._open):
            longest = IDLE_SECONDS if each.has_spoken else FIRST_MESSAGE_SECONDS
            if now - each.heard_at > longest and not self.carries_call(each.address):
                self._dismiss(each)

    def _dispatch(self, data: bytes, addr: tuple[str, int]) -> None:
        if data == b"\r\n\r\n":
            # Who asks so whether the connection still lives is told (RFC 5626, 3.5.1).
            if self._lives(addr):
                self.write(b"\r\n", addr)
            return
        receive(self, data, addr)

    async def _follow(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        """Read from a connection that we have opened."""
        try:
            await self._read(reader, connection)
        except OSError as error:
            # Over TLS 1.3 an end that wants a certificate of ours says so only now.
            _log.info("a SIP connection broke", extra={"reason": reason_of(error)})
            self.transactions.fail_address(connection.address)
        finally:
            connection.writer.transport.abort()
            self._open.discard(connection)

    async def _read(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        """Take messages from a connection until it ends."""
        loop = asyncio.get_running_loop()
        try:
            while (data := await read_message(reader)) is not None:
                connection.heard_at, connection.has_spoken = loop.time(), True
                self._dispatch(data, connection.address)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass
        finally:
            self._forget(connection)

    def send(self, message: SipRequest | SipResponse, addr: tuple[str, int]) -> None:
        """Send a message, which says that it came over this transport and that we are reached so.

        A request within a call goes over the connection from or to ``addr``, a response over that
        of its request (RFC 3261, 18.2.2). If that is gone, either takes the connection on which the
        end of the call was heard last, since behind an address translator no other can be opened.
        Without one, a request goes to the far Contact, or the first proxy before it, and to
        ``addr`` where nobody is there; a response goes to the address in its Via.
        """
        self._name_transport(message)
        if isinstance(message, SipRequest):
            own: tuple[str, int] | None = addr
            is_within = is_within_call(message)
            other = next_hop(message, self.protocol.lower()) if is_within else None
            if is_within:
                follow_strict_route(message)
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
            if writer.transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
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

    def _name_transport(self, message: SipRequest | SipResponse) -> None:
        """Name this transport in a request's Via and in our Contact (RFC 3261, 18.1.1, 19.1.1)."""
        if isinstance(message, SipRequest):
            values = message.headers.get("via")
            via = parse_via(values[0])
            if via.transport != self.protocol:
                via.transport = self.protocol
                message.headers.remove("Via")
                for value in (stringify_via(via), *values[1:]):
                    message.headers.append("Via", value)
        contact = message.headers.get_first("contact")
        if contact and contact.endswith(">") and ";transport=" not in contact:
            message.headers.set_single("Contact", self._way_to(contact, message))

    def _way_to(self, contact: str, message: SipRequest | SipResponse) -> str:
        """Return a Contact of ours, as far as it says nothing of a transport, with this one."""
        return f"{contact[:-1]};transport={self.protocol.lower()}>"

    def _lives(self, address: tuple[str, int]) -> bool:
        known = self._connections.get(address)
        return known is not None and not known[1].is_closing()

    async def _connect_and_send(self, way: tuple[str, int]) -> None:
        """Open a connection and send what waits for it; each message has other ways of its own."""
        try:
            if not self._lives(way):
                await asyncio.wait_for(self.connect(way), _CONNECT_SECONDS)
            failed = False
        except Exception as error:
            # What stands for a name may be none (ValueError), and for a port (OverflowError).
            # Whatever it is, what waits must not wait for ever.
            _log.info("no SIP connection", extra={"reason": reason_of(error)})
            failed = True
        for waiting in self._opening.pop(way, []):
            # An end that closes at once is not called again and again: the transaction's timer
            # reports that there was no answer.
            if self._lives(way):
                self.write(waiting.data, way)
            elif failed and waiting.others:
                self.write(waiting.data, *waiting.others)
            elif failed:
                self.transactions.fail_request(waiting.data)

    async def stop(self) -> None:
        """Close all connections."""
        self.transactions.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await super().stop()
        if self._serving:
            # What was sent last may still be on its way.
            await asyncio.wait(set(self._serving), timeout=_GOODBYE_SECONDS)
        for connection in list(self._open):
            connection.writer.transport.abort()
        if self._serving:
            await asyncio.wait(set(self._serving), timeout=_GOODBYE_SECONDS)

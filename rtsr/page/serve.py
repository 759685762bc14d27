"""Runs a page's application: binds its address, and serves it here or in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from rtsr.certificate import HANDSHAKE_SECONDS, ServerCertificate, reason_of
from rtsr.ending import handled
from rtsr.listening import cannot_listen, room_for_connections
from rtsr.page.access import Access

__all__ = ["PageThread", "access_for", "address_of", "bind", "server_for"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::")
_SHARE_OF_FILES = 0.5

_log = logging.getLogger(__name__)


def access_for(
    host: str, bound: socket.socket, token: str = "", names: tuple[str, ...] = ()
) -> Access:
    """Return who gets in where ``host`` is listened on.

    Args:
        host: name or address, as it was given; the loopback ones stand for each other.
        bound: from :func:`bind`, which knows the address that the name stands for.
        token: the secret; drawn if it is empty.
        names: more names of this server.

    Raises:
        ArgumentError: a token that no browser can send.
    """
    address = str(bound.getsockname()[0])
    own = _LOOPBACK if address in (*_LOOPBACK, *_ANY) else ()
    return Access((*own, host, address, *names), token)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0 takes a free one.

    Raises:
        RtsrError: the address is not available.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise cannot_listen(host, port, error) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        # An address that nobody listens at yet can be bound by another program as well.
        bound.listen()
    except OSError as error:
        bound.close()
        raise cannot_listen(host, port, error) from None
    return bound


def address_of(bound: socket.socket, access: Access, scheme: str = "http", name: str = "") -> str:
    """Return what a browser opens: the address, and the token in it.

    Args:
        bound: from :func:`bind`.
        access: whose token is meant.
        scheme: ``http`` or ``https``.
        name: by which the server is reached, if not by what it is bound to. Without a certificate
            of ours it is that of a proxy in front, which speaks HTTPS at the usual port: over HTTP
            a browser gives no microphone to a page of another machine.
    """
    secret = f"?token={quote(access.token, safe='')}"
    if name and scheme == "http":
        return f"https://{_in_brackets(name)}/{secret}"
    host, port = bound.getsockname()[:2]
    shown = name or ("127.0.0.1" if host in _ANY else host)
    return f"{scheme}://{_in_brackets(shown)}:{port}/{secret}"


def _in_brackets(host: str) -> str:
    """Return a host as it is written in an address; those of IPv6 have brackets."""
    return f"[{host}]" if ":" in host else host


def server_for(app: Starlette, certificate: ServerCertificate | None = None) -> uvicorn.Server:
    """Return a server for an application, to be run with ``serve`` or ``run``.

    Args:
        app: what is served.
        certificate: for HTTPS; a renewed one is shown to new connections.
    """
    connection: Any = _Connection
    if certificate is not None:
        connection = functools.partial(_EncryptedConnection, certificate=certificate)
    config = uvicorn.Config(
        app,
        http=connection,
        # asyncio tries as many at once where files run out, and reports each.
        backlog=128,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="websockets-sansio",
        ws_max_size=65536,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    return _Server(config)


class _Connection(H11Protocol):
    """One that makes room where there are too many, as the oldest without a request under way.

    uvicorn waits without end for a first request, from whomever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._began = self.loop.time()
        self._stuck_at: float | None = None
        if len(self.connections) <= room_for_connections(_SHARE_OF_FILES):
            return
        # Those that are told to close are there until the loop has come round.
        there = [each for each in self.connections if not each.transport.is_closing()]
        others = [each for each in there if isinstance(each, _Connection) and each is not self]
        # The idle ones go first, and then those that have not read their answers for longest.
        closable = [each for each in others if each._is_idle or each._stuck_at is not None]
        closable.sort(key=lambda each: (not each._is_idle, each._stuck_at or each._began))
        for each in closable[: max(0, len(there) - room_for_connections(_SHARE_OF_FILES))]:
            # Closing would wait for what is not read.
            each.transport.abort()

    def pause_writing(self) -> None:
        """Take note that the other end does not read; called by asyncio."""
        super().pause_writing()
        self._stuck_at = self.loop.time()

    def resume_writing(self) -> None:
        """Take note that it reads again; called by asyncio."""
        super().resume_writing()
        self._stuck_at = None

    @property
    def _is_idle(self) -> bool:
        # Who gets a WebSocket's messages is another object, and no longer this one.
        return self.cycle is None or self.cycle.response_complete


class _EncryptedConnection(_Connection):
    """One over TLS, which counts from the moment on at which it was accepted.

    asyncio tells a protocol of an encrypted connection only once that has been agreed on, for which
    it waits a minute, and keeps as many of them as come.
    """

    def __init__(self, *args: Any, certificate: ServerCertificate, **options: Any) -> None:
        super().__init__(*args, **options)
        self._certificate = certificate
        # What comes before the task that waits for the handshake has heard of its end.
        self._early: list[bytes] | None = []
        self._is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._handshake = self.loop.create_task(self._encrypt(transport))

    async def _encrypt(self, transport: asyncio.Transport) -> None:
        self._certificate.renew()
        try:
            encrypted = await self.loop.start_tls(
                transport,
                self,
                self._certificate.context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except OSError as error:
            _log.debug("a connection broke", extra={"reason": reason_of(error)})
            encrypted = None
        if encrypted is None or self._is_lost:
            transport.abort()
            self.connections.discard(self)
            return
        H11Protocol.connection_made(self, encrypted)
        early, self._early = self._early, None
        for data in early or []:
            # The first of them may be a WebSocket's, for which another object is asked thereafter.
            protocol = encrypted.get_protocol()
            assert isinstance(protocol, asyncio.Protocol)
            protocol.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Take what has been decrypted; called by asyncio."""
        if self._early is not None:
            self._early.append(data)
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that it has ended; called by asyncio."""
        self._is_lost = True
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """One for which a signal is a request to stop, and nothing more.

    uvicorn's own raises the signal again when all is over, as if it had been killed.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Only the main thread may; a page that is served from another leaves them alone.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with handled(self.handle_exit):
            yield


class PageThread:
    """Serves an application from a thread of this program, for as long as the context lasts.

    Args:
        app: what is served.
        bound: where, from :func:`bind`; closed at the end.
    """

    def __init__(self, app: Starlette, bound: socket.socket) -> None:
        self._bound = bound
        self._server = server_for(app)
        self._thread = threading.Thread(target=self._run, name="rtsr-page", daemon=True)

    def __enter__(self) -> PageThread:
        # Whoever plays sound has a terminal for better things than a browser's broken connections.
        logger = logging.getLogger("uvicorn")
        logger.propagate = False
        # Without a handler of its own, warnings would go to stderr.
        logger.addHandler(logging.NullHandler())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._bound.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._bound])

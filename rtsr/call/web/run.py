"""Runs the web server until it is interrupted, and says where it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from rtsr.call.encoders import check_bitrate
from rtsr.call.engine import CallEngine
from rtsr.call.logs import log_to_stderr
from rtsr.call.web.access import Access
from rtsr.call.web.server import CallServer
from rtsr.errors import ArgumentError, MissingDependencyError, RtsrError

__all__ = ["serve"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::")


def serve(
    open_engine: Callable[[], CallEngine],
    listen: tuple[str, int],
    *,
    token: str = "",
    names: tuple[str, ...] = (),
    certificate: Path | None = None,
    key: Path | None = None,
    bitrate: int,
    announce: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Args:
        open_engine: makes the engine, once the address is ours.
        listen: host and port; port 0 takes a free one.
        token: the secret; drawn if it is empty.
        names: more names of this server.
        certificate: PEM file, for HTTPS.
        key: PEM file, likewise.
        bitrate: of Opus, bits per second.
        announce: called with a line that names the page's address, once the port is bound.

    Raises:
        ArgumentError: certificate or key is missing, or the bitrate is out of range.
        RtsrError: the address is not available, or a file cannot be used.
    """
    try:
        import uvicorn
    except ModuleNotFoundError:
        raise MissingDependencyError("Serving a page", "call") from None
    check_bitrate(bitrate)
    if (certificate is None) != (key is None):
        raise ArgumentError("HTTPS takes both --certificate and --key.")
    for file in (certificate, key):
        if file is not None and not file.is_file():
            raise RtsrError(f"There is no file '{file}'.")
    host, port = listen
    own = _LOOPBACK if host in (*_LOOPBACK, *_ANY) else (host,)
    access = Access((*own, host, *names), token)
    bound = _bind(host, port)
    port = bound.getsockname()[1]
    config = uvicorn.Config(
        CallServer(open_engine(), access, bitrate=bitrate).app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="websockets-sansio",
        ws_max_size=65536,
        server_header=False,
        ssl_certfile=None if certificate is None else str(certificate),
        ssl_keyfile=None if key is None else str(key),
        timeout_graceful_shutdown=2,
    )
    try:
        config.load()
    except OSError as error:
        raise RtsrError(f"The certificate cannot be used: {error}.") from None
    shown = names[0] if names else ("127.0.0.1" if host in _ANY else host)
    shown = f"[{shown}]" if ":" in shown else shown
    scheme = "https" if certificate is not None else "http"
    announce(f"rtsr call web: {scheme}://{shown}:{port}/?token={access.token}")
    log_to_stderr()
    asyncio.run(uvicorn.Server(config).serve(sockets=[bound]))


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise RtsrError(f"Cannot listen on {host}:{port}: {reason}.") from None
    return bound

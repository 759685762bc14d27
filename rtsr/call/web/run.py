"""Runs the web server until it is interrupted, and says where it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from rtsr.call.encoders import check_bitrate
from rtsr.call.engine import CallEngine
from rtsr.call.logs import log_to_stderr
from rtsr.call.web.server import CallServer
from rtsr.certificate import server_certificate
from rtsr.errors import ArgumentError
from rtsr.live.controls.board import ControlBoard
from rtsr.page.learning import Learning
from rtsr.page.serve import access_for, address_of, bind, server_for

__all__ = ["serve"]


def serve(
    open_engine: Callable[[], CallEngine],
    listen: tuple[str, int],
    *,
    token: str = "",
    names: tuple[str, ...] = (),
    certificate: Path | None = None,
    key: Path | None = None,
    bitrate: int,
    dtx: bool | None = None,
    stun: tuple[str, int] | None = None,
    knobs: Callable[[ControlBoard], Learning] | None = None,
    announce: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Args:
        open_engine: makes the engine, once the address is ours.
        listen: host and port; port 0 takes a free one.
        token: the secret; drawn if it is empty.
        names: more names of this server.
        certificate: PEM file, for HTTPS; a renewed one is shown to new connections.
        key: PEM file, likewise.
        bitrate: of Opus, bits per second.
        dtx: as for :class:`~rtsr.call.web.server.CallServer`.
        stun: as for :class:`~rtsr.call.web.server.CallServer`.
        knobs: as for :class:`~rtsr.call.web.server.CallServer`.
        announce: called with a line that names the page's address, once the port is bound.

    Raises:
        ArgumentError: certificate or key is missing, the bitrate is out of range, or the STUN
            server has an address of IPv6 or no port.
        RtsrError: the address is not available, or a file cannot be used.
    """
    check_bitrate(bitrate)
    own = server_certificate(certificate, key)
    if stun is not None and ":" in stun[0]:
        raise ArgumentError("A STUN server is named by a host name or an IPv4 address.")
    if stun is not None and not stun[1]:
        raise ArgumentError("A STUN server has a port from 1 to 65535, most often 3478; 0 is none.")
    host, port = listen
    bound = bind(host, port)
    access = access_for(host, bound, token, names)
    calls = CallServer(open_engine(), access, bitrate=bitrate, dtx=dtx, stun=stun, knobs=knobs)
    server = server_for(calls.app, own)
    scheme = "https" if certificate is not None else "http"
    name = names[0] if names else ""
    announce(f"rtsr call web: {address_of(bound, access, scheme, name)}")
    log_to_stderr()
    asyncio.run(server.serve(sockets=[bound]))

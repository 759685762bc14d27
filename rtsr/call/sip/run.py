"""Runs the bridge until it is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiosipua.utils import format_addr

from rtsr.call.encoders import check_bitrate
from rtsr.call.engine import CallEngine
from rtsr.call.logs import log_task_failures, log_to_stderr
from rtsr.call.metrics_server import MetricsServer
from rtsr.call.sip.agent import Agent, Target, TlsSettings, check_reach, is_wildcard, own_address
from rtsr.call.sip.bridge import Bridge, BridgeSettings
from rtsr.ending import on_ending
from rtsr.errors import ArgumentError
from rtsr.hosts import look_up

__all__ = ["serve"]

_REGISTRATION_SECONDS = 300


def serve(
    open_engine: Callable[[], CallEngine],
    listen: tuple[str, int],
    settings: BridgeSettings,
    *,
    advertise: str | None = None,
    register: str | None = None,
    metrics: tuple[str, int] | None = None,
    tls: TlsSettings | None = None,
    announce: Callable[[str], None],
) -> None:
    """Bridge calls until interrupted.

    Args:
        open_engine: makes the engine, once everything else has been checked.
        listen: host and port of SIP, over UDP and TCP.
        settings: where calls go.
        advertise: the address or name by which others reach us, where they see another.
        register: a SIP address to register under, at its own host.
        metrics: host and port of ``/metrics``, if it is wanted.
        tls: how TLS is spoken; where it has a certificate, callers may come over it.
        announce: called with a line that names our address, once calls are accepted, and with lines
            that name those of TLS and of ``/metrics``.

    Raises:
        ArgumentError: the target or the registrar cannot reach the address, or a host is unknown.
        RtsrError: an address is not available, or the registrar refuses.
    """
    check_bitrate(settings.bitrate)
    host, port = _address_of(listen[0]), listen[1]
    registrar = None if register is None else Target.parse(register)
    for other in (settings.target, registrar):
        if other is not None and advertise is None:
            check_reach(host, port, other.host)
    if advertise is not None:
        # Messages keep a name, by which certificates go. Sound is sent to addresses.
        shown = _address_of(advertise)
        if (":" in shown) != (":" in host):
            raise ArgumentError(
                f"Others cannot reach {host} as '{advertise}', which has the other version of IP."
            )
    elif is_wildcard(host):
        advertise = shown = own_address(settings.target.host)
    else:
        advertise, shown = listen[0], host
    settings = replace(settings, bind=host, shown=shown)
    agent = Agent(host, port, advertise, tls)
    asyncio.run(_run(open_engine, agent, settings, registrar, metrics, announce))


def _address_of(host: str) -> str:
    try:
        return look_up(host)
    except OSError:
        raise ArgumentError(f"The host '{host}' is not known.") from None


async def _run(
    open_engine: Callable[[], CallEngine],
    agent: Agent,
    settings: BridgeSettings,
    registrar: Target | None,
    metrics: tuple[str, int] | None,
    announce: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    on_ending(loop, stopped.set)
    log_to_stderr()
    log_task_failures(loop)
    async with open_engine() as engine, contextlib.AsyncExitStack() as undo:
        bridge = Bridge(agent, engine, settings)
        await bridge.start()
        undo.push_async_callback(bridge.stop)
        server = None
        if metrics is not None:
            server = MetricsServer(engine)
            await server.start(*metrics)
            undo.push_async_callback(server.stop)
        if registrar is not None:
            registering = asyncio.ensure_future(
                agent.register(registrar, settings.auth, _REGISTRATION_SECONDS)
            )
            if not await _done_before(stopped, registering):
                return
        ours = format_addr(agent.host, agent.port)
        announce(f"rtsr call sip: sip:{ours} to {settings.target.uri}")
        if agent.tls_port is not None:
            address = format_addr(agent.host, agent.tls_port)
            announce(f"over TLS: sip:{address};transport=tls")
        if server is not None:
            announce(f"metrics: http://{format_addr(*server.address)}/metrics")
        await stopped.wait()


async def _done_before(stopped: asyncio.Event, work: asyncio.Future[Any]) -> bool:
    """Wait for some work, or give it up when the program is to end; return whether it was done.

    Raises:
        RtsrError: the work has failed.
    """
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        return False
    stopping.cancel()
    work.result()
    return True

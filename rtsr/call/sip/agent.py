"""A SIP address: its transports, calls that come and calls that are made."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiosipua import (
    Dialog,
    IncomingCall,
    OutgoingCall,
    Registration,
    SdpMessage,
    SipDigestAuth,
    SipRequest,
    SipResponse,
    SipUAS,
    SipUri,
    stringify_uri,
)
from aiosipua.dialog import DialogState, dialog_matches
from aiosipua.message import missing_required_headers
from aiosipua.registration import RegistrationState
from aiosipua.transport import SipTransport
from aiosipua.uas_requests import handle_ack, handle_cancel, handle_update
from aiosipua.utils import format_addr

from rtsr.call.sip.addresses import AddressError, address_in, parse_address
from rtsr.call.sip.binding import Binding
from rtsr.call.sip.checks import refusal
from rtsr.call.sip.client import Client
from rtsr.call.sip.description import description_in
from rtsr.call.sip.destinations import contact_in, default_port, is_within_call, resolved
from rtsr.call.sip.tcp import TcpTransport
from rtsr.call.sip.tls import TlsTransport
from rtsr.call.sip.transactions import METHODS, served_key
from rtsr.call.sip.udp import UdpTransport
from rtsr.certificate import ServerCertificate
from rtsr.errors import ArgumentError, RtsrError
from rtsr.hosts import is_host
from rtsr.listening import cannot_listen

__all__ = [
    "Agent",
    "Target",
    "TlsSettings",
    "check_reach",
    "cseq_number",
    "is_wildcard",
    "own_address",
]

USER_AGENT = "rtsr"
TIMER_H = 32.0
_FIRST_ANSWER_SECONDS = 35.0
REGISTER_AGAIN_SECONDS = 30.0
_UNREGISTER_SECONDS = 1.0
# A port that is free over UDP may be taken over TCP, as by somebody's connection.
_PORTS_TRIED = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Whom to call.

    Attributes:
        uri: as it was given.
        host, port: where its requests go.
        transport: "udp", "tcp" or "tls".
    """

    uri: str
    host: str
    port: int
    transport: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``sip:USER@HOST[:PORT][;transport=tcp|tls]`` or ``sips:USER@HOST[:PORT]``.

        Raises:
            ArgumentError: it has another form.
        """
        complaint = (
            f"'{text}' is no SIP address that can be called; write sip:USER@HOST, "
            "sip:USER@HOST:PORT;transport=udp, tcp or tls, or sips:USER@HOST."
        )
        try:
            uri = parse_address(text)
        except AddressError:
            raise ArgumentError(complaint) from None
        is_secure = text.lower().startswith("sips:")
        transport = (uri.params.get("transport") or ("tls" if is_secure else "udp")).lower()
        known = ("tcp", "tls") if is_secure else ("udp", "tcp", "tls")
        if not text.lower().startswith(("sip:", "sips:")) or transport not in known:
            raise ArgumentError(complaint)
        host = _host_of(uri)
        # The address is a word of the lines in which it is sent.
        if host is None or len(text.split()) != 1:
            raise ArgumentError(complaint)
        if uri.port is not None and not 0 < uri.port < 65536:
            raise ArgumentError(complaint)
        # What a sips: address calls TCP is encrypted, too (RFC 3261, 26.2.2).
        transport = "tls" if is_secure else transport
        return cls(text, host, uri.port or default_port(uri), transport)

    @property
    def person(self) -> str:
        """The address of record: without how it is reached (RFC 3261, 19.1.1, table 1)."""
        uri = parse_address(self.uri)
        uri.params.pop("transport", None)
        uri.port = None
        return stringify_uri(uri)

    @property
    def domain(self) -> str:
        """The address of its host, as registrars have it."""
        return f"{self.scheme}:{parse_address(self.uri).host}"

    @property
    def scheme(self) -> str:
        """Scheme of the address: "sip", or "sips" where every hop is to be encrypted."""
        return self.uri.partition(":")[0].lower()


@dataclass(frozen=True)
class TlsSettings:
    """How TLS is spoken.

    Attributes:
        certificate: what we show; without one nothing listens for TLS.
        port: where it listens; 0 takes a free one.
        trusted: how the certificates of others are checked; as the system does if ``None``.
    """

    certificate: ServerCertificate | None = None
    port: int = 5061
    trusted: ssl.SSLContext | None = None


class Agent:
    """Listens on one address, over UDP, TCP and TLS, and makes calls from it.

    Args:
        host, port: where; port 0 takes a free one.
        advertised: the address by which others reach it, where ``host`` is none.
        tls: how TLS is spoken.
    """

    def __init__(
        self, host: str, port: int, advertised: str | None = None, tls: TlsSettings | None = None
    ) -> None:
        self._listen = (host, port)
        self._advertised = advertised
        self._tls = tls or TlsSettings()
        self.udp: SipUAS | None = None
        self.tcp: SipUAS | None = None
        self.tls: SipUAS | None = None
        # Shared by all transports: what belongs to a call may come over another (RFC 3261, 18.1.1).
        self._came: dict[str, IncomingCall] = {}
        self._made: dict[str, OutgoingCall] = {}
        self._registration: Registration | None = None
        self._again: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    @property
    def agents(self) -> tuple[SipUAS, ...]:
        """One for each transport."""
        return tuple(agent for agent in (self.udp, self.tcp, self.tls) if agent is not None)

    @property
    def port(self) -> int:
        """The port that was found, of UDP and TCP."""
        assert self.udp is not None
        return int(self.udp.transport.local_addr[1])

    @property
    def tls_port(self) -> int | None:
        """The port that was found for TLS; ``None`` where nothing listens for it."""
        assert self.tls is not None
        return None if self._tls.certificate is None else int(self.tls.transport.local_addr[1])

    @property
    def host(self) -> str:
        """The address by which others reach us."""
        return self._advertised or self._listen[0]

    async def start(self, handlers: dict[str, Any]) -> None:
        """Listen.

        Args:
            handlers: ``on_invite``, ``on_bye`` and so on, as of aiosipua's ``SipUAS``.

        Raises:
            RtsrError: the address is not available.
        """
        host, port = self._listen
        for left in reversed(range(1 if port else _PORTS_TRIED)):
            try:
                await self._bind(handlers)
                break
            except OSError as error:
                await self.stop()
                if error.errno == errno.EADDRINUSE and left:
                    continue
                raise cannot_listen(host, port, error) from None
        try:
            await self._bind_tls(handlers)
        except OSError as error:
            await self.stop()
            raise cannot_listen(host, self._tls.port, error) from None
        for agent in self.agents:
            # Who knows a connection of ours uses that; where nothing listens there is no other.
            port = self.tls_port or self.port if agent is self.tls else self.port
            address = (self.host, port)
            agent.advertised_addr = address
            assert agent.uac is not None
            agent.uac.advertised_addr = address

    async def _bind(self, handlers: dict[str, Any]) -> None:
        """Listen over UDP, and over TCP on the same port.

        Raises:
            OSError: the port is taken over one of them.
        """
        host, port = self._listen
        udp = UdpTransport(local_addr=(host, port))
        self.udp = self._agent(udp, handlers)
        await self.udp.start()
        tcp = TcpTransport(local_addr=(host, udp.local_addr[1]))
        self.tcp = self._agent(tcp, handlers)
        await self.tcp.start()

    async def _bind_tls(self, handlers: dict[str, Any]) -> None:
        """Listen over TLS, if we have a certificate.

        Raises:
            OSError: the port is taken.
        """
        tls = TlsTransport(
            local_addr=(self._listen[0], self._tls.port),
            certificate=self._tls.certificate,
            trusted=self._tls.trusted,
        )
        self.tls = self._agent(tls, handlers)
        await self.tls.start()

    def on_update(self, handler: Callable[[IncomingCall], None]) -> None:
        """Have ``handler`` called with every UPDATE within a call (RFC 3311)."""
        for agent in self.agents:
            agent._handlers["UPDATE"] = functools.partial(_take_update, agent, handler)

    def on_ack(self, handler: Callable[[str, int, SdpMessage | None], None]) -> None:
        """Have ``handler`` called with every ACK within a call.

        It gets the call's name, the number of the INVITE and the answer in the ACK, if any.
        """
        for agent in self.agents:
            agent._handlers["ACK"] = functools.partial(_take_ack, agent, handler)

    async def stop(self) -> None:
        """Unregister and close everything."""
        if self._again is not None:
            self._again.cancel()
        if self._asking is not None:
            self._asking.cancel()
        registration, self._registration = self._registration, None
        if registration is not None and registration.state is not RegistrationState.FAILED:
            registration.unregister()
            end = time.monotonic() + _UNREGISTER_SECONDS
            # A registrar asks for the password once more.
            while (
                registration.state is not RegistrationState.UNREGISTERED and time.monotonic() < end
            ):
                await asyncio.sleep(0.02)
        for agent in self.agents:
            await agent.stop()
        self.udp = self.tcp = self.tls = None

    def by(self, transport: str) -> SipUAS:
        """Return the agent of a transport."""
        agent = {"udp": self.udp, "tcp": self.tcp, "tls": self.tls}[transport]
        assert agent is not None
        return agent

    def client_of(self, transport: SipTransport | None) -> Client:
        """Return what sends requests over a transport of ours."""
        agent = next((each for each in self.agents if each.transport is transport), self.udp)
        assert agent is not None
        assert isinstance(agent.uac, Client)
        return agent.uac

    async def register(
        self, target: Target, auth: SipDigestAuth | None, expires: int
    ) -> Registration:
        """Register at a registrar, again and again until :meth:`stop`, and say how the first went.

        A registrar that was there once may be away for a while: later failures are tried again.

        Raises:
            RtsrError: its name is unknown, it refuses or it does not answer.
        """
        client = self.by(target.transport).uac
        assert client is not None
        address = await self.find(target)
        registration = Binding(
            client,
            target.person,
            address,
            auth=auth,
            expires=expires,
            registrar_uri=target.domain,
            user_agent=USER_AGENT,
        )
        self._registration = registration
        done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        is_lost = False

        def succeeded(_: Registration) -> None:
            nonlocal is_lost
            if not done.done():
                done.set_result(None)
            if is_lost:
                _log.info("registered again")
                is_lost = False

        def failed(_: Registration, status: int = 408, reason: str = "Request Timeout") -> None:
            nonlocal is_lost
            if not done.done():
                done.set_result(f"{status} {reason}".strip())
                return
            if self._registration is not registration:
                return
            is_lost = True
            _log.warning("not registered any more", extra={"status": status})
            loop = asyncio.get_running_loop()
            # One that expires and is refused fails twice, and is asked again once.
            if self._again is not None:
                self._again.cancel()
            self._again = loop.call_later(REGISTER_AGAIN_SECONDS, ask_again)

        def ask_again() -> None:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.ensure_future(self._register_again(registration, target))

        registration.on_registered = succeeded
        registration.on_failed = registration.on_expired = failed
        registration.register()
        try:
            refusal = await asyncio.wait_for(done, _FIRST_ANSWER_SECONDS)
        except asyncio.TimeoutError:
            refusal = "no answer"
        if refusal is not None:
            raise RtsrError(f"The registrar {target.host} does not take us: {refusal}.")
        return registration

    async def _register_again(self, registration: Registration, target: Target) -> None:
        """Ask a registrar again, where its name leads by now: it may have moved meanwhile."""
        # Without an answer where that is, the last place is as good as any.
        with contextlib.suppress(RtsrError):
            registration.registrar = await self.find(target)
        if self._registration is registration:
            registration.register()

    async def find(self, target: Target) -> tuple[str, int]:
        """Where a target's requests go; over TLS by its name, which its certificate must be for.

        Raises:
            RtsrError: its name is unknown.
        """
        try:
            found = await resolved(target.host, target.port)
        except OSError:
            raise RtsrError(f"The host '{target.host}' is not known.") from None
        return (target.host, target.port) if target.transport == "tls" else found

    def keep(self, call: IncomingCall, refused: IncomingCall) -> None:
        """Go on with a call whose place in aiosipua a refused one of the same name has taken.

        Nothing that names the refused one, as a CANCEL, ends the other.
        """
        self._came[call.call_id] = call
        for agent in self.agents:
            if agent.transport is refused.transport:
                agent._remove_invite_transaction(refused.invite)

    def drop_later(self, call_id: str) -> None:
        """Forget a call that is over, once nothing of it can come any more (RFC 3261, timer H).

        aiosipua itself only forgets calls that the other end hangs up.
        """
        # Who is refused may call again under the same name meanwhile.
        known = self._came.get(call_id)
        asyncio.get_running_loop().call_later(TIMER_H, self._drop, call_id, known)

    def _drop(self, call_id: str, known: IncomingCall | None) -> None:
        if known is not None and self._came.get(call_id) is known:
            del self._came[call_id]
            known._stop_retransmissions()
            for agent in self.agents:
                agent._remove_invite_transaction(known.invite)
        for agent in self.agents:
            if agent.uac is not None:
                agent.uac.remove_call(call_id)

    def _agent(self, transport: UdpTransport | TcpTransport, handlers: dict[str, Any]) -> SipUAS:
        client = Client(transport)
        agent = _UserAgent(transport, user_agent=USER_AGENT, uac=client)
        agent._calls, client._calls = self._came, self._made
        if isinstance(transport, TcpTransport):
            transport.on_heard, transport.newest = agent.follow, agent.newest
            transport.carries_call = agent.carries_call
        else:
            transport.has_made = client.has_made
        for name, handler in handlers.items():
            setattr(agent, name, handler)
        if agent.on_invite is not None:
            agent.on_invite = functools.partial(_take_invite, agent.on_invite)
        agent._handlers["OPTIONS"] = functools.partial(_take_options, agent)
        agent._handlers["CANCEL"] = functools.partial(_take_cancel, agent)
        # aiosipua takes more, as transfers, that a bridge does nothing about.
        agent._handlers = {name: agent._handlers[name] for name in METHODS}
        return agent


class _UserAgent(SipUAS):
    """Follows the ends of calls to their other connections, and takes what comes another way.

    What needs more than we have is refused before anything else is done about it.
    """

    def _handle_request(self, request: SipRequest, addr: tuple[str, int]) -> None:
        """Take a request that is new; one that is not whole or not done is aiosipua's to refuse."""
        is_done = request.method.upper() in self._handlers
        found = refusal(request) if is_done and not missing_required_headers(request) else None
        if found is None:
            super()._handle_request(request, addr)
        else:
            status, reason, headers = found
            self._send_error(request, status, reason, extra_headers=headers)

    def _handle_invite(self, request: SipRequest, addr: tuple[str, int]) -> None:
        """Take an INVITE; one within a call over another transport is answered over its own."""
        call = self.get_call(request.call_id or "")
        is_on = call is not None and call.dialog.state is DialogState.CONFIRMED
        if call is None or not is_on or call.transport is self.transport:
            super()._handle_invite(request, addr)
        elif not is_within_call(request):
            # The call itself, by another way (RFC 3261, 8.2.2.2).
            self._send_error(request, 482, "Loop Detected")
        elif self._validate_in_dialog(call.dialog, request) and self.on_reinvite is not None:
            self.on_reinvite(self._wrap_uac_dialog(request, addr))

    def follow(self, message: SipRequest | SipResponse, address: tuple[str, int]) -> None:
        """Have messages of a call go where its end was heard last; called by a TCP transport.

        Over UDP they go to the end's proxies or Contact, or where the call was begun
        (``datagram_hop``), whatever the port that later messages came from.
        """
        call, made = self._ends_of(message)
        end = made if call is None else call
        dialog = None if end is None else end.dialog
        if dialog is None:
            return
        if isinstance(message, SipResponse):
            belongs = _answers_within(dialog, message)
        else:
            # A copy of the INVITE itself names no dialog yet.
            key = served_key(message)
            is_copy = call is not None and key is not None and key == served_key(call.invite)
            belongs = is_copy or dialog_matches(dialog, message)
        if not belongs:
            return
        if call is not None:
            call.source_addr = address
        elif made is not None:
            made.remote_addr = address

    def newest(self, message: SipRequest | SipResponse) -> tuple[str, int] | None:
        """Return from where the end of the call that a message belongs to was heard last."""
        call, made = self._ends_of(message)
        if call is not None:
            return call.source_addr
        return None if made is None else made.remote_addr

    def carries_call(self, address: tuple[str, int]) -> bool:
        """Whether the connection from or to an address belongs to a call, or brings calls."""
        if self.uac is None:
            return False
        # Registrars may pass calls on over the connection on which we have registered.
        known = (RegistrationState.REGISTERING, RegistrationState.REGISTERED)
        if any(
            each.registrar == address and each.state in known
            for each in self.uac._registrations.values()
        ):
            return True
        came, made = self._calls.values(), self.uac._calls.values()
        calls = [(call.source_addr, call.dialog, call.transport) for call in came]
        calls += [(call.remote_addr, call.dialog, call.transport) for call in made]
        # Those that were refused, and are remembered for their copies, keep nothing open.
        return any(
            there == address
            and transport is self.transport
            and dialog.state is not DialogState.TERMINATED
            for there, dialog, transport in calls
        )

    def _ends_of(
        self, message: SipRequest | SipResponse
    ) -> tuple[IncomingCall | None, OutgoingCall | None]:
        """Return the call that came, or that was made, under a message's name, over this way."""
        name = message.call_id or ""
        call = self.get_call(name)
        made = None if call is not None or self.uac is None else self.uac.get_call(name)
        if call is not None and call.transport is not self.transport:
            call = None
        if made is not None and made.transport is not self.transport:
            made = None
        return call, made


def _answers_within(dialog: Dialog, response: SipResponse) -> bool:
    """Whether a response is of the other end of a dialog, which may not have named itself yet."""
    ours, theirs = response.from_addr, response.to_addr
    if ours is None or theirs is None or ours.tag != dialog.local_tag:
        return False
    return not dialog.remote_tag or theirs.tag == dialog.remote_tag


def _take_invite(handler: Callable[[IncomingCall], None], call: IncomingCall) -> None:
    # Who is called takes the proxies in the order of the request (RFC 3261, 12.1.1), not the other
    # way round, as aiosipua has them, and a Contact as it comes.
    call.dialog.route_set = call.invite.headers.get("record-route")
    call.dialog.remote_target = contact_in(call.invite) or ""
    if not call.dialog.remote_target and not call.dialog.route_set:
        # Whose Contact is missing, or none, is asked where the call came from: the address of the
        # From may be of a person, on no machine.
        call.dialog.remote_target = f"sip:{format_addr(*call.source_addr)}"
    # Both ends are named as the call has them, where aiosipua can read them or not.
    call.dialog.remote_uri = _as_written(call.invite, "from") or call.dialog.remote_uri
    call.dialog.local_uri = _as_written(call.invite, "to") or call.dialog.local_uri
    handler(call)


def _as_written(request: SipRequest, name: str) -> str | None:
    """Return the address in a header as it is written, or ``None`` where that is none."""
    text = address_in(request.headers.get_first(name) or "")
    try:
        parse_address(text)
    except AddressError:
        return None
    return text


def _take_cancel(agent: SipUAS, request: SipRequest, address: tuple[str, int]) -> None:
    call, key = agent.get_call(request.call_id or ""), served_key(request)
    asked = None if call is None else served_key(call.invite)
    if call is None or key is None or asked is None or key[:2] != asked[:2]:
        agent._send_error(request, 481, "Call/Transaction Does Not Exist")
        return
    if call._answered or call.dialog.state is DialogState.TERMINATED:
        # It has crossed our final answer, which stays (RFC 3261, 9.2).
        agent.transport.send_reply(call.dialog.create_response(request, 200, "OK"))
        return
    # aiosipua goes by the branch, which a newer INVITE of another caller may have, too.
    agent.transactions.create_server(call.invite)
    handle_cancel(agent, request, address)


def _take_options(agent: SipUAS, request: SipRequest, address: tuple[str, int]) -> None:
    to = request.to_addr
    if to is not None and to.tag:
        # Who asks within a call wants to know whether it is still on (RFC 3261, 12.2.2).
        _, dialog = agent._find_dialog(request.call_id or "")
        if dialog is None or dialog.state is DialogState.TERMINATED:
            agent._send_error(request, 481, "Call/Transaction Does Not Exist")
            return
        if not agent._validate_in_dialog(dialog, request):
            return
    agent._handle_options(request, address)


def _take_update(
    agent: SipUAS,
    handler: Callable[[IncomingCall], None],
    request: SipRequest,
    address: tuple[str, int],
) -> None:
    _, dialog = agent._find_dialog(request.call_id or "")
    if dialog is None:
        handle_update(agent, request, address)
    elif agent._validate_in_dialog(dialog, request):
        handler(agent._wrap_uac_dialog(request, address))


def _take_ack(
    agent: SipUAS,
    handler: Callable[[str, int, SdpMessage | None], None],
    request: SipRequest,
    address: tuple[str, int],
) -> None:
    name, number = request.call_id or "", cseq_number(request)
    call, dialog = agent._find_dialog(name)
    # A late copy of an older one says nothing of the newest answer (RFC 3261, 13.2.2.4).
    if call is None or number >= cseq_number(call.invite):
        handle_ack(agent, request, address)
    if dialog is not None and dialog_matches(dialog, request):
        answer = None
        with contextlib.suppress(ValueError):
            answer = description_in(request)
        handler(name, number, answer)


def cseq_number(request: SipRequest) -> int:
    """Return the number in a request's CSeq; an ACK has that of its INVITE."""
    cseq = request.cseq
    return 0 if cseq is None else cseq.seq


def _host_of(uri: SipUri) -> str | None:
    """Return an address's host without its brackets, or ``None`` if it is none."""
    host = uri.host
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1] if _is_ipv6(host[1:-1]) else None
    return host if is_host(host) and ":" not in host else None


def own_address(towards: str) -> str:
    """Return the address of this machine as seen from a host.

    Raises:
        RtsrError: there is no route.
    """
    family = socket.AF_INET6 if ":" in towards else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # No packet is sent: the route is looked up.
            probe.connect((towards, 9))
            return str(probe.getsockname()[0])
    except OSError:
        raise RtsrError(
            f"There is no way to '{towards}'; name our address with --advertise."
        ) from None


def check_reach(host: str, port: int, other: str) -> None:
    """Check that another host can answer to an address that we listen on.

    Raises:
        ArgumentError: the address is this machine's own, and the other host is another machine.
    """
    if not _is_loopback(host):
        return
    try:
        seen = own_address(other)
    except RtsrError:
        # Its name may become known later.
        return
    if not _is_loopback(seen):
        raise ArgumentError(
            f"On {host} only this machine is heard, and {other} is another one; listen on an "
            f"address that it reaches, as --listen {format_addr(seen, port)}."
        )


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether a host stands for all addresses of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False

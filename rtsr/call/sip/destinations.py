"""Where SIP messages go within a call, and when a connection is gone (RFC 3261, 8.1.2, 18.2.2)."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from concurrent.futures import ThreadPoolExecutor

from aiosipua import SipRequest, SipResponse, SipUri, stringify_uri
from aiosipua.headers import parse_via, stringify_via

from rtsr.call.sip.addresses import AddressError, address_in, parse_address
from rtsr.hosts import look_up

__all__ = [
    "asks_for_sips",
    "contact_in",
    "datagram_hop",
    "default_port",
    "follow_strict_route",
    "is_numeric",
    "is_within_call",
    "next_hop",
    "note_source",
    "resolved",
    "sent_by",
]

_SIP_PORT, _TLS_PORT = 5060, 5061
# A name server may keep each look-up for half a minute, and asyncio's own pool, which opens calls
# and looks names up for it, has six threads on two cores.
_LOOK_UPS = ThreadPoolExecutor(16, thread_name_prefix="names")
_HOST = re.compile(r"[\w.-]+|\[[0-9a-fA-F:.]+\]", re.ASCII)


def is_within_call(request: SipRequest) -> bool:
    """Whether a request names a call that both ends know."""
    to = request.to_addr
    return to is not None and bool(to.tag)


def asks_for_sips(request: SipRequest) -> bool:
    """Whether who is asked must give a sips: address of its own (RFC 3261, 8.1.1.8, 12.1.1)."""
    proxies = request.headers.get("record-route")
    far = proxies[0] if proxies else request.headers.get_first("contact") or ""
    far = far.partition("<")[2] or far
    return any(text.strip().lower().startswith("sips:") for text in (request.uri, far))


def contact_in(message: SipRequest | SipResponse) -> str | None:
    """Return the address of a message's Contact.

    ``None`` without one, or if that is no SIP address with a host: ``*``, a telephone number.
    """
    try:
        uri = parse_address(address_in(message.headers.get_first("contact") or ""))
    except AddressError:
        return None
    return stringify_uri(uri) if _HOST.fullmatch(uri.host) else None


def next_hop(request: SipRequest, transport: str) -> tuple[str, int] | None:
    """Return where a request is to go: its first Route, else its own address, the far Contact's.

    ``None`` if that cannot be read, or names another transport than this one: what is to be
    encrypted goes nowhere in the clear.
    """
    uri = _next_uri(request)
    if uri is None or (uri.scheme.lower() == "sips" and transport != "tls"):
        return None
    named = (uri.params.get("transport") or transport).lower()
    if uri.scheme.lower() != "sips" and named != transport:
        return None
    return _address(uri.host, uri.port or default_port(uri))


def datagram_hop(
    request: SipRequest, known: tuple[str, int], *, has_come: bool = True
) -> tuple[str, int]:
    """Return where a request within a call goes over UDP.

    That is its next hop (RFC 3261, 12.2.1.1), unless its address says nothing here: a private one
    that is not the one from which the end is known, as of who sits behind an address translator and
    knows only its own network; a name, which would have to be looked up; or another transport.

    Nor is a Contact followed to another port of the public address from which the call came: who
    has learnt the address of its translator may not know the port there. A proxy that stays knows
    its own, and the end that was called is not known by a port that it sent from.

    A global address is followed from everywhere, also from a private one: it needs no translator to
    be reached. The parameter ``maddr`` is passed over: the host is what counts.

    Args:
        request: what is asked.
        known: from where the call came, or where it was made to.
        has_come: which of both.
    """
    uri = _next_uri(request)
    if uri is None or uri.scheme.lower() != "sip":
        return known
    hop = _address(uri.host, uri.port or _SIP_PORT)
    if hop is None or (uri.params.get("transport") or "udp").lower() != "udp":
        return known
    try:
        address, source = ipaddress.ip_address(hop[0]), ipaddress.ip_address(known[0])
    except ValueError:
        return known
    if address == source:
        names_a_proxy = bool(request.headers.get("route"))
        return known if has_come and address.is_global and not names_a_proxy else hop
    is_reachable = address.version == source.version and address.is_global
    return hop if is_reachable and not address.is_multicast else known


def follow_strict_route(request: SipRequest) -> None:
    """Write a request within a call as its first proxy reads it, if that one is a strict router.

    Such a proxy, which names itself without ``lr``, takes the address that is asked for its own,
    and goes on to the first of the routes; the end itself is behind the last of them (RFC 3261,
    12.2.1.1). Where the request goes does not change, but is to be found out before.
    """
    routes = request.headers.get("route")
    first = _next_uri(request) if routes else None
    if first is None or "lr" in first.params:
        return
    first.headers = {}
    end, request.uri = f"<{request.uri}>", stringify_uri(first)
    request.headers.remove("Route")
    for route in (*routes[1:], end):
        request.headers.append("Route", route)


def note_source(request: SipRequest, source: tuple[str, int]) -> None:
    """Write into a request's newest Via from where it came, since its answers go by that.

    RFC 3261, 18.2.1, and RFC 3581, 4. What the sender has itself written there counts for nothing:
    it would send our answers to somebody else.

    Raises:
        ValueError: the port in the Via is none.
    """
    values = request.headers.get("via")
    if not values:
        return
    via = parse_via(values[0])
    if via.port is not None and not 0 < via.port < 65536:
        raise ValueError("a Via without a usable port")
    written = dict(via.params)
    via.params.pop("received", None)
    if "rport" in via.params:
        via.params["rport"] = str(source[1])
    # An IPv6 host in its brackets differs, too: what answers go by has none.
    if "rport" in via.params or via.host != source[0]:
        via.params["received"] = source[0]
    if via.params != written:
        request.headers.remove("Via")
        for value in (stringify_via(via), *values[1:]):
            request.headers.append("Via", value)


def is_numeric(address: tuple[str, int]) -> bool:
    """Whether an address is one as it stands, without a name to look up, and its port is one."""
    host, port = address
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return 0 < port < 65536


def sent_by(response: SipResponse) -> tuple[str, int] | None:
    """Return where a response goes by its newest Via, whatever port its request came from.

    ``None`` if there is none, or none that could be an address.
    """
    via = response.via
    if not via:
        return None
    port = via[0].port or (_TLS_PORT if via[0].transport.upper() == "TLS" else _SIP_PORT)
    return _address(via[0].received or via[0].host, port)


def default_port(uri: SipUri) -> int:
    """Return the port of an address that names none (RFC 3261, 19.1.2)."""
    transport = (uri.params.get("transport") or "").lower()
    return _TLS_PORT if uri.scheme.lower() == "sips" or transport == "tls" else _SIP_PORT


def _next_uri(request: SipRequest) -> SipUri | None:
    routes = request.headers.get("route")
    target = routes[0].partition("<")[2].partition(">")[0] if routes else request.uri
    try:
        uri = parse_address(target)
    except AddressError:
        return None
    # A telephone number is nowhere.
    return uri if uri.host else None


def _address(host: str, port: int) -> tuple[str, int] | None:
    host = host.strip("[]")
    return (host, port) if host and 0 < port < 65536 else None


async def resolved(host: str, port: int) -> tuple[str, int]:
    """Resolve a host's address, IPv4 if it has one.

    Raises:
        OSError: the name is unknown.
    """
    if is_numeric((host, port)):
        return host, port
    return await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up, host), port

"""Where SIP messages go within a call, and when a connection is gone (RFC 3261, 8.1.2, 18.2.2)."""

from __future__ import annotations

import ipaddress

from aiosipua import SipRequest, SipResponse, SipUri, parse_uri

__all__ = ["datagram_hop", "is_within_call", "next_hop", "sent_by"]

_SIP_PORT = 5060


def is_within_call(request: SipRequest) -> bool:
    """Whether a request names a call that both ends know."""
    to = request.to_addr
    return to is not None and bool(to.tag)


def next_hop(request: SipRequest) -> tuple[str, int] | None:
    """Return where a request is to go: its first Route, else its own address, the far Contact's.

    ``None`` if that cannot be read.
    """
    uri = _next_uri(request)
    return None if uri is None else _address(uri.host, uri.port)


def datagram_hop(request: SipRequest, known: tuple[str, int]) -> tuple[str, int]:
    """Return where a request within a call goes over UDP.

    That is its next hop (RFC 3261, 12.2.1.1), unless its address says nothing here: a private one
    that is not the one from which the end is known, as of who sits behind an address translator and
    knows only its own network; a name, which would have to be looked up; or another transport.

    Args:
        request: what is asked.
        known: from where the call came, or where it was made to.
    """
    uri = _next_uri(request)
    if uri is None or uri.scheme.lower() != "sip":
        return known
    hop = _address(uri.host, uri.port)
    if hop is None or (uri.params.get("transport") or "udp").lower() != "udp":
        return known
    try:
        address, source = ipaddress.ip_address(hop[0]), ipaddress.ip_address(known[0])
    except ValueError:
        return known
    if address == source:
        return hop
    is_reachable = address.version == source.version and address.is_global
    return hop if is_reachable and not address.is_multicast else known


def sent_by(response: SipResponse) -> tuple[str, int] | None:
    """Return where a response goes by its newest Via, whatever port its request came from.

    ``None`` if there is none, or none that could be an address.
    """
    via = response.via
    return _address(via[0].received or via[0].host, via[0].port) if via else None


def _next_uri(request: SipRequest) -> SipUri | None:
    routes = request.headers.get("route")
    target = routes[0].partition("<")[2].partition(">")[0] if routes else request.uri
    try:
        return parse_uri(target)
    except ValueError:
        return None


def _address(host: str, port: int | None) -> tuple[str, int] | None:
    host, port = host.strip("[]"), port or _SIP_PORT
    return (host, port) if host and 0 < port < 65536 else None

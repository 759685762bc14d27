"""Where SIP messages go whose connection is gone (RFC 3261, 8.1.2 and 18.2.2)."""

from __future__ import annotations

from aiosipua import SipRequest, SipResponse, parse_uri

__all__ = ["is_within_call", "next_hop", "sent_by"]

_SIP_PORT = 5060


def is_within_call(request: SipRequest) -> bool:
    """Whether a request names a call that both ends know."""
    to = request.to_addr
    return to is not None and bool(to.tag)


def next_hop(request: SipRequest) -> tuple[str, int] | None:
    """Return where a request is to go: its first Route, else its own address, the far Contact's.

    ``None`` if that cannot be read.
    """
    routes = request.headers.get("route")
    target = routes[0].partition("<")[2].partition(">")[0] if routes else request.uri
    try:
        uri = parse_uri(target)
    except ValueError:
        return None
    return _address(uri.host, uri.port)


def sent_by(response: SipResponse) -> tuple[str, int] | None:
    """Return where a response goes by its newest Via, whatever port its request came from.

    ``None`` if there is none, or none that could be an address.
    """
    via = response.via
    return _address(via[0].received or via[0].host, via[0].port) if via else None


def _address(host: str, port: int | None) -> tuple[str, int] | None:
    host, port = host.strip("[]"), port or _SIP_PORT
    return (host, port) if host and 0 < port < 65536 else None

"""Access control of the page: requests need the token and must come from the page itself."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from rtsr.errors import ArgumentError

__all__ = ["Access"]

_COOKIE = "rtsr_token"


class Access:
    """Checks requests.

    A browser shows the token once, in the address that was printed, and then as a cookie; programs
    send ``Authorization: Bearer``. What changes anything must come from a page of the same origin,
    so that no other page in that browser can use the cookie. The name in ``Host`` must be one that
    was given, so that no other name can be made to point here.

    Args:
        hosts: names and addresses under which the server is reached, without ports.
        token: the secret, of printable ASCII characters; drawn if it is empty.

    Raises:
        ArgumentError: a token that no browser can send.
    """

    def __init__(self, hosts: tuple[str, ...], token: str = "") -> None:
        if not (token.isascii() and token.isprintable()):
            raise ArgumentError("The token must be of printable ASCII characters.")
        self.token = token or secrets.token_urlsafe(18)
        self._hosts = {host.lower().strip("[]") for host in hosts}

    def knows_host(self, headers: Mapping[str, str]) -> bool:
        """Whether ``Host`` is one of ours."""
        return _parts(headers)[0] in self._hosts

    def cookie(self, headers: Mapping[str, str]) -> str:
        """Return the name of the token's cookie: one per port, since ports share cookies."""
        return f"{_COOKIE}_{_parts(headers)[1] or 'default'}"

    def is_token(self, given: str) -> bool:
        """Whether that is the secret, compared in constant time."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def has_token(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Whether the request carries the token, in a header or in the cookie."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [cookies.get(self.cookie(headers), "")]
        if scheme.lower() == "bearer":
            given.append(bearer)
        return any(self.is_token(each) for each in given)

    def is_same_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether ``Origin`` is this server; programs, which send none, need the header's token."""
        origin = headers.get("origin")
        if origin is None:
            return headers.get("authorization", "").lower().startswith("bearer ")
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc == headers.get("host", "")


def _parts(headers: Mapping[str, str]) -> tuple[str, int | None]:
    """Return name and port in ``Host``."""
    try:
        parts = urlsplit(f"//{headers.get('host', '')}")
        return (parts.hostname or "").lower(), parts.port
    except ValueError:
        return "", None

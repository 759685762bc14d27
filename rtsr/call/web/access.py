"""Access control of the page: requests need the token and must come from the page itself."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["COOKIE", "Access"]

COOKIE = "rtsr_token"


class Access:
    """Checks requests.

    A browser shows the token once, in the address that was printed, and then as a cookie; programs
    send ``Authorization: Bearer``. What changes anything must come from a page of the same origin,
    so that no other page in that browser can use the cookie. The name in ``Host`` must be one that
    was given, so that no other name can be made to point here.

    Args:
        hosts: names and addresses under which the server is reached, without ports.
        token: the secret; drawn if it is empty.
    """

    def __init__(self, hosts: tuple[str, ...], token: str = "") -> None:
        self.token = token or secrets.token_urlsafe(18)
        self._hosts = {host.lower().strip("[]") for host in hosts}

    def knows_host(self, headers: Mapping[str, str]) -> bool:
        """Whether ``Host`` is one of ours."""
        return _name(f"//{headers.get('host', '')}") in self._hosts

    def has_token(self, headers: Mapping[str, str], cookie: str | None, given: str | None) -> bool:
        """Whether the request carries the token: in a header, a cookie or the address."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        candidates = [cookie or "", given or ""]
        if scheme.lower() == "bearer":
            candidates.append(bearer)
        return any(hmac.compare_digest(each.encode(), self.token.encode()) for each in candidates)

    def is_same_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether ``Origin`` is this server; programs, which send none, need the header's token."""
        origin = headers.get("origin")
        if origin is None:
            return headers.get("authorization", "").lower().startswith("bearer ")
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc == headers.get("host", "")


def _name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""

"""What a request may need of us, whatever it is about (RFC 3261, 8.2)."""

from __future__ import annotations

import re

from aiosipua import SipRequest

from rtsr.call.sip.transactions import EXTENSIONS

__all__ = ["refusal"]

# Status, reason and more headers of an answer.
_Refusal = tuple[int, str, dict[str, str]]

# Whatever is dialled, the target is called.
_SCHEMES = frozenset({"sip", "sips", "tel"})
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.I | re.ASCII)


def refusal(request: SipRequest) -> _Refusal | None:
    """Return the answer to a request that needs what we have not; neither ACK nor CANCEL does.

    In the order of RFC 3261, 8.2.2 and 8.2.3: whom it is for, what it requires, what it carries.
    """
    if request.method.upper() in ("ACK", "CANCEL"):
        return None
    scheme = _SCHEME.match(request.uri)
    if scheme is not None and scheme[1].lower() not in _SCHEMES:
        return 416, "Unsupported URI Scheme", {}
    unknown = _listed(request, "require").difference(EXTENSIONS)
    if unknown:
        return 420, "Bad Extension", {"Unsupported": ", ".join(sorted(unknown))}
    if request.body and _listed(request, "content-encoding").difference({"identity"}):
        return 415, "Unsupported Media Type", {"Accept-Encoding": "identity"}
    return None


def _listed(request: SipRequest, name: str) -> set[str]:
    """Return what a header lists, in lower case."""
    words = ",".join(request.headers.get(name)).lower().split(",")
    return {word.strip() for word in words} - {""}

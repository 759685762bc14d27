"""Addresses of people and machines as SIP writes them: ``sip:``, ``sips:`` and ``tel:``."""

from __future__ import annotations

import re

from aiosipua import SipUri
from aiosipua.headers import parse_params

__all__ = ["AddressError", "address_in", "parse_address", "user_of"]

# With or without a name before it (RFC 3261, 20.10).
_IN_HEADER = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*|[^"<]*)<([^<>]*)>|([^\s;<>]+)')
_SCHEME = re.compile(r"(sips?|tel):", re.I | re.ASCII)
# Neither has a place in an address: it is a word of the lines in which it is sent.
_NO_PART = re.compile(r'[\s<>"\x00-\x1f\x7f]')
_PLACE = re.compile(r"(\[[^\[\]@]*\]|[^\[\]:@,;?]+)(?::([0-9]{1,5}))?")


class AddressError(ValueError):
    """A text is no address that SIP knows."""


def address_in(value: str) -> str:
    """Return the address in the value of a From, To or Contact, as it is written; "" without."""
    found = _IN_HEADER.match(value.strip())
    return "" if found is None else (found[1] or found[2] or "").strip()


def parse_address(text: str) -> SipUri:
    """Take an address apart (RFC 3261, 19.1.1 and 25.1; RFC 3966, 3).

    What stands before the ``@`` is the user, with a semicolon and a question mark in it, too:
    carriers write parameters of the number there (RFC 4904; RFC 4694). A ``tel:`` has a user, the
    number, and no host.

    Raises:
        AddressError: it has none of the three schemes, a mark that none may have, or no host.
    """
    text = text.strip()
    scheme = _SCHEME.match(text)
    if scheme is None or _NO_PART.search(text):
        raise AddressError("an address without a known scheme, or with marks that none has")
    uri, rest = SipUri(scheme=scheme[1].lower()), text[scheme.end() :]
    if uri.scheme == "tel":
        uri.user, _, params = rest.partition(";")
        uri.params = parse_params(params)
        if not uri.user:
            raise AddressError("a telephone address without a number")
        return uri
    rest, headers = _cut(rest, "?")
    rest, params = _cut(rest, ";")
    user, at, place = rest.rpartition("@")
    found = _PLACE.fullmatch(place)
    if found is None:
        raise AddressError("an address without a host")
    uri.user = user if at else None
    uri.host, uri.port = found[1], None if found[2] is None else int(found[2])
    uri.params = parse_params(params)
    pairs = (each.partition("=") for each in headers.split("&") if "=" in each)
    uri.headers = {name: value for name, _, value in pairs}
    return uri


def user_of(text: str) -> str | None:
    """Return whose address it is: the name or number alone, without parameters; else ``None``."""
    try:
        user = parse_address(text).user
    except AddressError:
        return None
    return (user or "").partition(";")[0] or None


def _cut(text: str, mark: str) -> tuple[str, str]:
    """Cut an address at the first mark behind its user; return what is before and behind that."""
    at = text.find("@") if mark == "?" else text.rfind("@")
    start = text.find(mark, at + 1)
    return (text, "") if start < 0 else (text[:start], text[start + 1 :])

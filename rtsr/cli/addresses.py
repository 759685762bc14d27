"""Addresses on the command line."""

from __future__ import annotations

from rtsr.errors import ArgumentError
from rtsr.hosts import is_host


def host_and_port(text: str) -> tuple[str, int]:
    """Return the two parts of ``HOST:PORT``; an IPv6 address stands in brackets.

    Raises:
        ArgumentError: it has another form.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]") if host.startswith("[") else host
    is_port = port.isdecimal() and len(port) < 6 and int(port) <= 65535
    if not colon or not is_host(host) or not is_port:
        raise ArgumentError(f"'{text}' is no address; write HOST:PORT, as 127.0.0.1:8080.")
    return host, int(port)

"""What hosts are called, and their addresses."""

from __future__ import annotations

import re
import socket

__all__ = ["is_host", "look_up"]

_OUTSIDE_NAMES = re.compile(r"[\s\0\[\]/?#@<>\"]")


def is_host(text: str) -> bool:
    """Whether a text can be a host: an address without brackets, or a name that may be looked up.

    Python itself raises a ``UnicodeError`` where it looks others up, as those with an empty part.
    """
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return bool(text) and not _OUTSIDE_NAMES.search(text)


def look_up(host: str) -> str:
    """Return a host's address, IPv4 if it has one; a slow name server takes long.

    Raises:
        OSError: the name is unknown.
    """
    if not is_host(host):
        raise socket.gaierror(socket.EAI_NONAME, "it can be no host")
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    found.sort(key=lambda each: each[0].name != "AF_INET")
    return str(found[0][4][0])

"""Where a SIP message ends in a stream (RFC 3261, 18.3), and how long one may be."""

from __future__ import annotations

import asyncio
import re

__all__ = ["LONGEST_BODY", "LONGEST_HEAD", "read_message"]

#: Bytes of a message before its body, and of that; each is looked at while all calls wait.
LONGEST_HEAD, LONGEST_BODY = 16_384, 16_384
# One that is longer can be refused, as in a datagram; beyond that it is not even read.
_LONGEST_READ = 65_535
# With spaces before the colon, or on a line of its own behind it (RFC 3261, 7.3.1, 25.1).
_LENGTH = re.compile(
    rb"[\r\n](?:content-length|l)[ \t]*:(?:[ \t]|\r\n(?=[ \t]))*([^\s]*)", re.IGNORECASE
)


async def read_message(reader: asyncio.StreamReader) -> bytes | None:
    """Read a message, or the empty lines that keep a connection alive.

    ``None`` at the end of the stream, and where nothing more can be read from it: behind a message
    that is too long, or whose length is none.

    Raises:
        OSError, ValueError, asyncio.IncompleteReadError: the connection breaks within a message.
    """
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        line = await reader.readline()
        head += line
        if not line or len(head) > LONGEST_HEAD:
            return None
    found = _LENGTH.search(head)
    if found is None:
        return bytes(head)
    text = found[1]
    if not text.isdigit() or len(text) > 9 or int(text) > _LONGEST_READ:
        return None
    return bytes(head) + await reader.readexactly(int(text))

"""A description of sound in a message's body: among other parts (RFC 5621), with odd lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.errors import MessageError
from email.message import Message
from email.parser import BytesHeaderParser
from itertools import islice, pairwise

from aiosipua import SipRequest, SipResponse

__all__ = ["drop_unreadable", "unwrap"]

# A body has a few parts, and one of them may have parts again, as the same in several forms.
_MOST_PARTS = 16
_DEEPEST = 2
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")
_HEADERS = BytesHeaderParser()
_SDP = "application/sdp"
# Of no line of these kinds do we need anything, and aiosipua takes their fields for numbers.
_NOT_NEEDED = ("b=", "t=", "v=")
_MEDIA = re.compile(r"(m=\s*\S+\s+[0-9]+)/[0-9]+(?=\s)")
_RTPMAP = re.compile(
    r"a=rtpmap:\s*([0-9]{1,3})\s+([^\s/]+)(?:/([0-9]{1,9}))?(?:/([0-9]{1,3}))?/?(?:\s.*)?"
)
_FMTP = re.compile(r"a=fmtp:\s*([0-9]{1,3})\s+(.*)")


def unwrap(message: SipRequest | SipResponse) -> None:
    """Have a message of several parts carry its description of sound alone, if it has one.

    A request stays as it is where one of its parts must be understood and is none of ours, so that
    it can be refused. What cannot be refused any more, an answer and an ACK, counts all the same.
    """
    kind = message.content_type or ""
    if not message.body or not kind.lower().lstrip().startswith("multipart/"):
        return
    head = Message()
    try:
        head["Content-Type"] = kind
        parts = list(_parts(head, message.body, _DEEPEST))
        found = next((body for part, body in parts if part.get_content_type() == _SDP), None)
        needs_another = any(_is_needed(part) for part, _ in parts)
    except (ValueError, LookupError, TypeError, MessageError):
        # Headers of parts may be anything.
        return
    can_be_refused = isinstance(message, SipRequest) and message.method != "ACK"
    if found is None or (needs_another and can_be_refused):
        return
    message.body = found
    message.content_type = _SDP


def drop_unreadable(message: SipRequest | SipResponse) -> None:
    """Leave out of a message's description what is not understood (RFC 8866, 5).

    Lines of times and bandwidths say nothing that we need, and a codec with a number or a rate that
    is none is one that we do not have: only where the sound goes must be readable.
    """
    # Media types go by any case, and may have parameters (RFC 3261, 7.3.1 and 20.15).
    if message.body and (message.content_type or "").partition(";")[0].strip().lower() == _SDP:
        lines = (_readable(line.strip()) for line in message.text.splitlines())
        # What describes nothing is still a description.
        message.text = "v=0\r\n" + "".join(f"{line}\r\n" for line in lines if line)


def _readable(line: str) -> str:
    """Return a line as aiosipua can read it, or "" where it is left out."""
    if line.startswith(_NOT_NEEDED):
        return ""
    if line.startswith("m="):
        # Several ports in a row (RFC 8866, 5.14): the first has the sound.
        return _MEDIA.sub(r"\1", line, count=1)
    if line.startswith("a=rtpmap:"):
        found = _RTPMAP.fullmatch(line)
        return (
            ""
            if found is None
            else f"a=rtpmap:{found[1]} {'/'.join(filter(None, found.groups()[1:]))}"
        )
    if line.startswith("a=fmtp:"):
        found = _FMTP.fullmatch(line)
        return "" if found is None else f"a=fmtp:{found[1]} {found[2]}"
    return line


def _parts(head: Message, body: bytes, depth: int) -> Iterator[tuple[Message, bytes]]:
    """Yield the headers and the decoded body of each part; those of a part's own in its place."""
    mark = head.get_boundary()
    if not mark:
        return
    mark_line = rb"(?:^|\r?\n)--%s(--)?[ \t]*(?=\r?\n|$)" % re.escape(
        mark.encode("utf-8", "replace")
    )
    marks = [*re.finditer(mark_line, body), None]
    for begin, end in islice(pairwise(marks), _MOST_PARTS):
        # Behind the mark of the end there is nothing.
        if begin is None or begin[1]:
            return
        raw = body[begin.end() : None if end is None else end.start()]
        # Without headers a part begins with an empty line.
        empty = _EMPTY_LINE.search(raw)
        if empty is None:
            continue
        part, rest = _HEADERS.parsebytes(raw[: empty.end()].lstrip()), raw[empty.end() :]
        if part.get_content_maintype() == "multipart":
            if depth > 1:
                yield from _parts(part, rest, depth - 1)
            continue
        part.set_payload(rest.decode("ascii", "surrogateescape"))
        decoded = part.get_payload(decode=True)
        yield part, decoded if isinstance(decoded, bytes) else rest


def _is_needed(part: Message) -> bool:
    """Whether a part asks by name to be understood, and is none of ours (RFC 5621, 3 and 8)."""
    handling = part.get_param("handling", "", "content-disposition")
    return str(handling).lower() == "required" and part.get_content_type() != _SDP

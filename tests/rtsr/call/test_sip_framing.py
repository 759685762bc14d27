"""Where a SIP message ends in a stream, and which are not read."""

from __future__ import annotations

import asyncio
import socket

import pytest
from sip_ends import SDP, Stream

from rtsr.call.sip.framing import LONGEST_HEAD, read_message

START = b"INVITE sip:x@127.0.0.1 SIP/2.0\r\n"


def read_all(data):
    """The messages that a stream with some bytes holds, up to the first that is none."""

    async def run():
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        messages = []
        while (message := await read_message(reader)) is not None:
            messages.append(message)
        return messages

    return asyncio.run(run())


@pytest.mark.parametrize(
    "length",
    [
        b"Content-Length: 5",
        b"content-length:5",
        b"Content-Length : 5",
        b"CONTENT-LENGTH\t \t:\t5 ",
        b"Content-Length:\r\n 5",
        b"l: 5",
        b"L :5",
        b"Subject: l: 2\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 2",
    ],
)
def test_a_body_is_as_long_as_the_header_says(length):
    first, second = START + length + b"\r\n\r\n12345", START + b"l: 0\r\n\r\n"
    assert read_all(first + second) == [first, second]


def test_without_a_length_there_is_no_body():
    assert read_all(2 * (START + b"Content-Lengths: 5\r\n\r\n")) == 2 * [
        START + b"Content-Lengths: 5\r\n\r\n"
    ]


@pytest.mark.parametrize("length", [b"five", b"-5", b"", b"99999", b"9" * 6000])
def test_behind_a_length_that_is_none_nothing_is_read(length):
    assert read_all(START + b"Content-Length: " + length + b"\r\n\r\n" + START + b"\r\n") == []


def test_a_head_that_is_too_long_is_not_read_to_its_end():
    line = b"Subject: " + 1000 * b"a" + b"\r\n"
    most = (LONGEST_HEAD - len(START) - 2) // len(line)
    message = START + most * line + b"\r\n"
    assert read_all(message) == [message]
    assert read_all(START + (most + 1) * line + b"\r\n") == []


def test_a_message_that_breaks_off_is_none():
    assert read_all(START) == []
    with pytest.raises(asyncio.IncompleteReadError):
        read_all(START + b"l: 5\r\n\r\n123")


def test_a_call_whose_length_has_a_space_before_its_colon_keeps_its_description(running, peer):
    stream = Stream(socket.create_connection(("127.0.0.1", running.port)))
    stream.settimeout(5.0)
    # The one codec that does not fit tells the body from none, which would ask for a proposal.
    body = SDP.replace("RTP/AVP 0", "RTP/AVP 3")
    message = peer.request("INVITE", body=body).replace(b"/UDP", b"/TCP")
    stream.sendto(message.replace(b"Content-Length:", b"Content-Length :"), None)
    while (answer := stream.recv(0)).startswith(b"SIP/2.0 1"):
        pass
    assert answer.startswith(b"SIP/2.0 488 ")
    stream.close()

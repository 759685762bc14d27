"""Where a SIP message ends in a stream, and which are too long to be read while calls wait."""

from __future__ import annotations

import asyncio
import socket

import pytest
from sip_ends import OPUS_SDP, SDP, Stream, between, hang_up, tag_of

from rtsr.call.sip.framing import LONGEST_BODY, LONGEST_HEAD, read_message

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


def with_media(count):
    """A description with so many media, of which the first can be taken."""
    return SDP + (count - 1) * "m=video 0 RTP/AVP 31\r\n"


def test_as_many_media_as_calls_have_are_read(running, peer):
    peer.send(peer.request("INVITE", body=with_media(16)))
    status, text = peer.final()
    assert (status, text.count("\r\nm=")) == (200, 16)
    hang_up(peer, tag_of(text))


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (with_media(17), "application/sdp", 488),
        (SDP + 12 * "\x0b m=\n", "Application/SDP;a=b", 200),
        (SDP + 16 * "\x0b m=\n", "Application/SDP;a=b", 488),
        (SDP + LONGEST_BODY * "a", "application/sdp", 513),
    ],
)
def test_a_description_that_takes_too_long_to_read_is_refused(running, peer, body, kind, status):
    message = peer.request("INVITE", body=body)
    peer.send(message.replace(b"application/sdp", kind.encode()))
    answered, text = peer.final()
    assert answered == status
    assert tag_of(text) != ";tag="
    if status == 200:
        hang_up(peer, tag_of(text))


def test_a_long_body_is_refused_over_tcp_and_one_without_an_end_not_read(running, peer):
    with socket.create_connection(("127.0.0.1", running.port), 5.0) as stream:
        message = peer.request("OPTIONS", body=65_535 * "a").replace(b"/UDP", b"/TCP")
        stream.sendall(message)
        assert stream.recv(65535).startswith(b"SIP/2.0 513 ")
        stream.sendall(peer.request("OPTIONS").replace(b"/UDP", b"/TCP"))
        assert stream.recv(65535).startswith(b"SIP/2.0 200 ")
        head = peer.request("OPTIONS", body=65_536 * "a").replace(b"/UDP", b"/TCP")[:-65_536]
        stream.sendall(head)
        assert stream.recv(65535) == b""


def test_a_long_head_is_passed_over_and_many_values_of_one_header_are_refused(running, peer):
    peer.send(peer.request("OPTIONS", more=f"Subject: {LONGEST_HEAD * 'a'}\r\n"))
    many = "Record-Route: " + ",".join(70 * ["<sip:p;lr>"]) + "\r\n"
    peer.send(peer.request("OPTIONS", number=2, more=many))
    status, text = peer.hear()
    assert (status, "CSeq: 2 OPTIONS" in text) == (200, True)
    peer.send(peer.request("OPTIONS", number=3, more=many + "Record-Route: <sip:p;lr>\r\n"))
    assert peer.hear()[0] == 513


def test_an_answer_that_takes_too_long_to_read_counts_as_one_without_a_description(stand_in):
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        called.answer(invite, 200, OPUS_SDP + 16 * "m=video 0 RTP/AVP 31\r\n")
        called.hear("ACK")
        assert peer.final()[0] == 488
        called.answer(called.hear("BYE"), 200)


def test_an_answer_with_the_acknowledgement_is_not_refused_but_passed_over(running, peer):
    peer.send(peer.request("INVITE"))
    status, text = peer.final()
    assert status == 200
    peer.send(peer.request("ACK", to=tag_of(text), body=with_media(17)))
    # Nothing answers an ACK; the call ends for want of a description.
    bye = peer.asked("BYE")
    peer.answer(bye, 200)

"""Bodies of several parts, one of which describes the sound (RFC 5621)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from aiosipua import SipMessage
from sip_ends import OPUS_SDP, SDP, between, hang_up, tag_of

from rtsr.call.sip.bodies import unwrap

SIGNAL = "Content-Type: application/isup;version=itu-t92+\r\n"
OPTIONAL = "Content-Disposition: signal;handling=optional\r\n"
REQUIRED = "Content-Disposition: signal; Handling=Required\r\n"
DESCRIPTION = "Content-Type: Application/SDP; charset=utf-8\r\n"
ZIPPED = DESCRIPTION + "Content-Transfer-Encoding: base64\r\n"


def several(*parts, mark="a+b"):
    """A body of headers and bodies, each without its last line break."""
    return "".join(f"--{mark}\r\n{part}\r\n" for part in parts) + f"--{mark}--\r\nbehind"


def of_kind(message, kind):
    return message.replace(b"Content-Type: application/sdp", f"Content-Type: {kind}".encode())


def carrying(body, kind='Multipart/Mixed; boundary="a+b"', first="INVITE sip:x@h SIP/2.0"):
    head = f"{first}\r\nContent-Type: {kind}\r\n\r\n"
    message = SipMessage.parse(head.encode() + (body if isinstance(body, bytes) else body.encode()))
    unwrap(message)
    return message


SOUND = f"{DESCRIPTION}\r\n{SDP}"
KIND = "Content-Type: multipart/alternative;boundary=z\r\n\r\n"
INNER = KIND + several(SOUND, mark="z")


@pytest.mark.parametrize(
    "parts",
    [
        (SOUND, f"{SIGNAL}{OPTIONAL}\r\nABCD"),
        (f"{SIGNAL}\r\n--a+\r\n--a+bc\r\n", "\r\ntext", SOUND),
        (f"{ZIPPED}\r\n{base64.b64encode(SDP.encode()).decode()}",),
        (f"{SIGNAL}\r\nABCD", INNER),
    ],
    ids=["first", "last", "base64", "parts of a part"],
)
def test_the_description_among_several_parts_is_taken(parts):
    message = carrying(several(*parts))
    assert (message.content_type, message.text) == ("application/sdp", SDP)
    # Lines may end without a carriage return.
    message = carrying(several(*parts).replace("\r\n", "\n"))
    assert message.text.split() == SDP.split()


@pytest.mark.parametrize(
    ("first", "is_taken"),
    [("INVITE sip:x@h SIP/2.0", False), ("ACK sip:x@h SIP/2.0", True), ("SIP/2.0 200 OK", True)],
    ids=["request", "ACK", "answer"],
)
def test_a_part_that_must_be_understood_stands_where_it_can_be_refused(first, is_taken):
    body = several(SOUND, f"{SIGNAL}{REQUIRED}\r\nABCD")
    assert (carrying(body, first=first).text == SDP) is is_taken


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (several(f"{SIGNAL}\r\nABCD"), "multipart/mixed;boundary=a+b"),
        (several(SOUND), "multipart/mixed"),
        (several(SOUND), "multipart/mixed;boundary=other"),
        (several(*["\r\n"] * 16, SOUND), "multipart/mixed;boundary=a+b"),
        (SDP, "text/plain"),
    ],
    ids=["none", "no boundary", "another boundary", "too far behind", "one part"],
)
def test_a_message_without_a_description_stays_as_it_is(body, kind):
    message = carrying(body, kind)
    assert (message.content_type, message.text) == (kind, body)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_body_breaks_the_reading(data):
    marks = [b"--m", b"--m--", b"\r\n", b"\n", b"Content-Type: ", b"multipart/x;boundary=m",
             b"=?x?", b"application/sdp", b"Content-Transfer-Encoding: base64", b"x-uuencode",
             b"\xff", b";", b"Content-Disposition: x;handling*0*=u'", b"'"]  # fmt: skip
    body = b"".join(data.draw(st.lists(st.sampled_from(marks), max_size=40)))
    kind = "multipart/mixed;boundary" + data.draw(
        st.sampled_from(["=m", "*=utf-8''m", "*0=m", "*x="])
    )
    carrying(body, kind)


def test_calls_with_bodies_of_several_parts_are_taken_on_both_sides(stand_in):
    with between(stand_in) as (peer, _, called):
        said = several(SOUND, f"{SIGNAL}{OPTIONAL}\r\nABCD")
        peer.send(of_kind(peer.request("INVITE", body=said), "multipart/mixed;boundary=a+b"))
        invite = called.hear("INVITE")
        answer = several(f"{SIGNAL}{REQUIRED}\r\nABCD", f"{DESCRIPTION}\r\n{OPUS_SDP}")
        called.answer(invite, 200, answer, kind="multipart/mixed;boundary=a+b")
        called.hear("ACK")
        status, text = peer.final()
        assert status == 200
        hang_up(peer, tag_of(text))
        called.answer(called.hear("BYE"), 200)


def test_a_call_that_needs_another_part_is_refused(running, peer):
    said = several(SOUND, f"{SIGNAL}{REQUIRED}\r\nABCD")
    peer.send(of_kind(peer.request("INVITE", body=said), "multipart/mixed;boundary=a+b"))
    status, text = peer.final()
    assert status == 415
    assert "Accept: application/sdp, multipart/mixed\r\n" in text

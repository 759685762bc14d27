"""Bodies of several parts, one of which describes the sound (RFC 5621), and odd descriptions."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from aiosipua import SipMessage
from sip_ends import OPUS_SDP, SDP, answered, between, hang_up, tag_of

from rtsr.call.formats import OPUS, PCMU, TELEPHONE_EVENT
from rtsr.call.sip.bodies import drop_unreadable, unwrap
from rtsr.call.sip.description import description_in, read_offer

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
    message = carrying(body, kind)
    # It is as it came, or it is the description that was found in it.
    assert message.content_type in (kind, "application/sdp")
    assert message.content_type != kind or message.body == body


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


ODD = [
    ("t=0 0", "t=now -\r\nb=AS:64.0"),
    ("v=0", "v=\r\nb=AS:"),
    ("m=audio 40000 ", "m=audio 40000/1 "),
    ("a=rtpmap:0 PCMU/8000", "a=rtpmap: 0 PCMU/8000"),
    ("a=rtpmap:0 PCMU/8000", "a=rtpmap:x\r\na=rtpmap:97 iLBC/8000/\r\na=rtpmap:98 GSM/fast"),
    ("a=sendrecv", "a=sendrecv\r\na=fmtp:* x\r\na=fmtp: 101 0-15"),
    ("a=sendrecv", "a=sendrecv\r\nm=text 4002 RTP/AVP 99\r\nb=x:\r\na=rtpmap:t140/1000 t140\r\n"),
]


@pytest.mark.parametrize(
    ("usual", "odd"),
    ODD,
    ids=["times", "version", "ports", "space", "other codecs", "parameters", "other media"],
)
def test_lines_that_are_not_understood_are_passed_over(usual, odd):
    assert usual in SDP
    message = carrying(SDP.replace(usual, odd), "Application/SDP;x=y")
    drop_unreadable(message)
    media = read_offer(description_in(message))
    assert media.address == ("127.0.0.1", 40000)
    assert media.formats == {0: PCMU, 101: TELEPHONE_EVENT}


@pytest.mark.parametrize("written", ["opus/48000/2", "opus/48000/2/", "opus/48000/2 x", "opus"])
def test_a_codec_is_read_however_its_line_ends(written):
    said = OPUS_SDP.replace("a=rtpmap:96 opus/48000/2", f"a=rtpmap:  96\t{written}")
    message = carrying(said, "application/sdp")
    drop_unreadable(message)
    assert read_offer(description_in(message)).form is OPUS


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["a=rtpmap:", "a=fmtp:", "b=", "t=", "v=", "v=0", "o=", "c=IN IP4 1.1.1.1"])
        | st.text(alphabet="a=:0 1/9\t٣²", max_size=8),
        max_size=30,
    )
)
def test_no_line_but_that_of_a_medium_makes_a_description_unreadable(pieces):
    lines = ["".join(pieces[at : at + 2]) for at in range(len(pieces))]
    message = carrying("\r\n".join(["s=-", *lines]), "application/sdp")
    drop_unreadable(message)
    assert description_in(message) is not None


def test_a_description_that_says_nothing_is_still_one():
    message = carrying("t=0 0\r\n", "application/sdp")
    drop_unreadable(message)
    assert description_in(message) is not None


def test_a_call_with_odd_lines_is_taken_on_both_sides(stand_in):
    usual, odd = zip(*ODD[:3], strict=True)
    with between(stand_in) as (peer, _, called):
        said, answer = SDP, OPUS_SDP.replace("m=audio 40002", "m=audio 40002/1")
        for there, here in zip(usual, odd, strict=True):
            said, answer = said.replace(there, here), answer.replace(there, here)
        _, _, to = answered(peer, called, said, answer)
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 200)

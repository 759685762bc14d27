"""Addresses as carriers and telephones write them, with parameters of the user, and ``tel:``."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from aiosipua import SipMessage, stringify_uri
from sip_ends import OPUS_SDP, SDP, between, tag_of

from rtsr.call.sip.addresses import AddressError, address_in, parse_address, user_of
from rtsr.call.sip.agent import Target
from rtsr.call.sip.destinations import contact_in, datagram_hop


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sip:192.0.2.7", (None, "192.0.2.7", None, {})),
        ("SIPS:x@[2001:db8::7]:5071;lr", ("x", "[2001:db8::7]", 5071, {"lr": None})),
        (
            "sip:+4989;npdi=yes;cpc=a@gw.example:5070;user=phone",
            ("+4989;npdi=yes;cpc=a", "gw.example", 5070, {"user": "phone"}),
        ),
        ("sip:a?b@h.example?Subject=x@y", ("a?b", "h.example", None, {})),
        ("sip:a?b@h.example?Subject=x", ("a?b", "h.example", None, {})),
        ("sip:me@corp.example@h.example", ("me@corp.example", "h.example", None, {})),
        ("tel:+49-89-1;phone-context=x", ("+49-89-1", "", None, {"phone-context": "x"})),
    ],
    ids=["host", "IPv6", "trunk", "at in headers", "headers", "two at", "tel"],
)
def test_what_an_address_consists_of(text, parts):
    uri = parse_address(text)
    assert (uri.user, uri.host, uri.port, uri.params) == parts


@pytest.mark.parametrize(
    "text",
    ["", "x", "me@h", "mailto:me@h", "sip:", "sip:me@", "sip:me@[::1", "sip:me@h:", "sip:me@h:1x",
     "sip:m e@h", "sip:me@h\r\nX: y", "sip:<me@h>", "tel:", "tel:;x=y", "sip:me@2001:db8::7"],
)  # fmt: skip
def test_what_is_no_address_is_said_so(text):
    with pytest.raises(AddressError):
        parse_address(text)
    assert user_of(text) is None


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.sampled_from('sip:tel@;=?<>[]".,%&+0159az \r\n\t\0é٣'), max_size=60))
def test_nothing_that_a_header_holds_breaks_the_reading(noise):
    for text in (noise, f"sip:{noise}", f"tel:{noise}", f"sip:me@{noise}"):
        for each in (text, address_in(text), address_in(f'"{noise}" <{text}>')):
            with contextlib.suppress(AddressError):
                uri = parse_address(each)
                assert uri.host or uri.scheme == "tel"
                # It may be a word of a line of ours.
                assert len(each.split()) == 1


_WORD = st.text(alphabet="abc019+-.", min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    user=st.none() | st.lists(_WORD, min_size=1, max_size=3).map(";".join),
    host=st.sampled_from(["h.example", "192.0.2.7", "[2001:db8::7]"]),
    port=st.none() | st.integers(1, 65535),
    params=st.dictionaries(_WORD, st.none() | _WORD, max_size=2),
)  # fmt: skip
def test_an_address_that_is_written_again_is_the_same(user, host, port, params):
    text = f"sip:{'' if user is None else user + '@'}{host}{'' if port is None else f':{port}'}"
    text += "".join(f";{name}" + ("" if at is None else f"={at}") for name, at in params.items())
    uri = parse_address(text)
    assert (uri.user, uri.host, uri.port, uri.params) == (user, host, port, params)
    assert stringify_uri(uri) == text


TRUNK = "sip:4989;tgrp=a;trunk-context=b@8.8.4.4:5062"


def test_a_contact_whose_user_has_parameters_is_one_and_is_followed():
    text = (
        f"BYE {TRUNK} SIP/2.0\r\nVia: SIP/2.0/UDP 1.1.1.1;branch=z9\r\nContact: <{TRUNK}>\r\n\r\n"
    )
    message = SipMessage.parse(text.encode())
    assert contact_in(message) == TRUNK
    assert datagram_hop(message, ("8.8.8.8", 5060)) == ("8.8.4.4", 5062)


def test_a_target_whose_user_has_parameters_is_called_at_its_host():
    target = Target.parse("sip:+4989;phone-context=x@127.0.0.1:5070;transport=tcp")
    assert (target.host, target.port, target.transport) == ("127.0.0.1", 5070, "tcp")
    assert target.person == "sip:+4989;phone-context=x@127.0.0.1"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("tel:+4989123", "+4989123"),
        ("tel:4989123;phone-context=x", "4989123"),
        ("sip:+4989123;npdi=yes@gw.example;user=phone", "+4989123"),
    ],
)
def test_a_number_is_shown_and_the_caller_asked_under_the_address_that_was_written(
    stand_in, address, shown
):
    with between(stand_in) as (peer, _, called):
        contact = f"sip:+4989123;tgrp=a;trunk-context=b@127.0.0.1:{peer.port}"
        invite = peer.request("INVITE", body=SDP).decode()
        invite = invite.replace("From: <sip:me@127.0.0.1>", f"From: <{address}>")
        invite = invite.replace("To: <sip:x@127.0.0.1>", "To: <tel:+4930>")
        invite = invite.replace(f"Contact: <sip:me@127.0.0.1:{peer.port}>", f"Contact: <{contact}>")
        peer.send(invite.encode())
        passed_on = called.hear("INVITE")
        assert f"\r\nFrom: <sip:{shown}@127.0.0.1>;tag=" in passed_on
        called.answer(passed_on, 200, OPUS_SDP)
        called.hear("ACK")
        _, text = peer.final()
        peer.send(peer.request("ACK", to=tag_of(text)))
        called.request(passed_on, "BYE", 2)
        bye = peer.asked("BYE")
        assert bye.startswith(f"BYE {contact} SIP/2.0\r\n")
        assert f"\r\nTo: <{address}>;tag=a{peer.port}\r\n" in bye
        assert "\r\nFrom: <tel:+4930>;tag=" in bye
        peer.answer(bye, 200)

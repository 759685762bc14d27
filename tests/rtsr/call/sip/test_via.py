"""Where answers go: to the sender of a request, whatever its Via says of others."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from aiosipua import SipRequest
from sip_ends import SDP

from rtsr.call.sip.destinations import is_numeric, note_source
from rtsr.call.sip.tcp import TcpTransport
from rtsr.call.sip.udp import UdpTransport


def asked(peer, via, branch):
    """An OPTIONS with a Via of its own."""
    text = peer.request("OPTIONS", call=branch, branch=branch).decode()
    line = text.split("\r\n")[1]
    return text.replace(line, f"Via: SIP/2.0/UDP {via};branch={branch}").encode()


@pytest.mark.parametrize(
    "via",
    [
        "127.0.0.1:ME;rport=99999",
        "127.0.0.1:ME;rport=x",
        "127.0.0.1:ME;received=a\0b",
        "127.0.0.1:ME;received=" + "a" * 70 + ".example",
        "name.example:ME",
    ],
)
def test_who_writes_a_wrong_way_into_its_via_is_answered_where_it_is(running, peer, via):
    peer.send(asked(peer, via.replace("ME", str(peer.port)), f"z9hG4bKwrong{peer.port}"))
    status, text = peer.final()
    assert status == 200
    wrong = via.partition(";")[2] or "nothing"
    assert wrong not in text.split("\r\nVia: ")[1].split("\r\n")[0]


@pytest.mark.parametrize("port", ["99999", "0", "-5"])
def test_a_via_without_a_usable_port_does_not_end_sip(running, peer, port):
    peer.send(asked(peer, f"127.0.0.1:{port}", f"z9hG4bKport{port}"))
    peer.send(asked(peer, f"127.0.0.1:{peer.port}", f"z9hG4bKgood{peer.port}"))
    status, text = peer.final()
    assert status == 200
    assert "z9hG4bKgood" in text


@pytest.mark.parametrize("named", ["received=127.0.0.2", "received=127.0.0.2;rport=THERE"])
def test_no_answer_goes_to_a_third_party(running, peer, named):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
        third.bind(("127.0.0.2", 0))
        there = third.getsockname()[1]
        named = named.replace("THERE", str(there))
        # The port in the Via is where whoever has not asked for rport takes answers.
        port = peer.port if "rport" in named else there
        peer.send(asked(peer, f"127.0.0.1:{port};{named}", f"z9hG4bK{there}"))
        if "rport" in named:
            assert peer.final()[0] == 200
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.recv(2000)


@pytest.mark.parametrize(
    ("via", "expected"),
    [
        # Without rport the port is that of the Via, and a proxy's name becomes its address.
        ("192.0.2.1:5070", "192.0.2.1:5070;branch=b"),
        ("proxy.example:5070", "proxy.example:5070;branch=b;received=192.0.2.1"),
        ("192.0.2.1", "192.0.2.1;branch=b"),
        ("10.0.0.1;rport", "10.0.0.1;rport=4000;branch=b;received=192.0.2.1"),
        ("192.0.2.1;received=192.0.2.66", "192.0.2.1;branch=b"),
        ("10.0.0.1;rport=5", "10.0.0.1;rport=4000;branch=b;received=192.0.2.1"),
    ],
)
def test_what_is_noted_in_the_newest_via(via, expected):
    request = SipRequest(method="OPTIONS", uri="sip:x@y")
    for value in (f"SIP/2.0/UDP {via};branch=b", "SIP/2.0/UDP older.example;received=192.0.2.77"):
        request.headers.append("Via", value)
    note_source(request, ("192.0.2.1", 4000))
    older = "SIP/2.0/UDP older.example;received=192.0.2.77"
    assert request.headers.get("via") == [f"SIP/2.0/UDP {expected}", older]


def test_an_ipv6_sender_is_noted_without_brackets():
    request = SipRequest(method="OPTIONS", uri="sip:x@y")
    request.headers.append("Via", "SIP/2.0/UDP [2001:db8::7]:5060;branch=b")
    note_source(request, ("2001:db8::7", 5060))
    assert request.via[0].received == "2001:db8::7"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("127.0.0.1", 5060), True),
        (("2001:db8::7", 65535), True),
        (("[2001:db8::7]", 5060), False),
        (("a.example", 5060), False),
        (("a\0b", 5060), False),
        (("127.0.0.1", 0), False),
        (("127.0.0.1", 65536), False),
    ],
)
def test_which_addresses_are_numeric(address, expected):
    assert is_numeric(address) is expected


def test_what_has_no_address_is_lost_and_the_socket_stays():
    async def run():
        transport = UdpTransport(local_addr=("127.0.0.1", 0))
        await transport.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
            there.bind(("127.0.0.1", 0))
            there.settimeout(2.0)
            for wrong in (("127.0.0.1", 99999), ("127.0.0.1", -5), ("a\0b", 5060), ("a.b", 5060)):
                transport.write(b"lost", wrong)
            await asyncio.sleep(0.05)
            transport.write(b"there", there.getsockname())
            assert there.recv(100) == b"there"
        await transport.stop()

    asyncio.run(run())


@pytest.mark.parametrize("wrong", [("127.0.0.1", 99999), ("a\0b", 5060)])
def test_nothing_waits_for_ever_for_a_connection_that_cannot_be(wrong):
    async def run():
        transport = TcpTransport(local_addr=("127.0.0.1", 0))
        await transport.start()
        transport.write(b"lost", wrong)
        with contextlib.suppress(asyncio.TimeoutError):
            for _ in range(100):
                if not transport._opening:
                    break
                await asyncio.sleep(0.02)
        assert transport._opening == {}
        await transport.stop()

    asyncio.run(run())


@pytest.mark.parametrize("port", ["99999", "0", "-5"])
def test_who_cannot_be_answered_rings_nobody(running, peer, port):
    calls = len(running.callee.calls)
    invite = peer.request("INVITE", body=SDP).replace(
        f":{peer.port};b".encode(), f":{port};b".encode()
    )
    assert f"127.0.0.1:{port};branch".encode() in invite
    peer.send(invite.replace(b";rport", b""))
    peer.send(peer.request("OPTIONS"))
    assert "CSeq: 1 OPTIONS" in peer.final()[1]
    assert len(running.callee.calls) == calls
    assert running.bridge.calls == 0

"""Where requests within calls go over UDP: Contacts, proxies that stay, address translators."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sip_ends import (
    OPUS_SDP,
    SDP,
    CalledEnd,
    Peer,
    Running,
    TcpCalledEnd,
    TcpPeer,
    answered,
    between,
    hang_up,
    ring,
    set_up,
    tag_of,
)

pytest.importorskip("aiosipua")

from aiosipua import SipMessage

from rtsr.call.sip import destinations
from rtsr.call.sip.agent import Agent, Target
from rtsr.call.sip.destinations import contact_in, datagram_hop, resolved
from rtsr.call.sip.tcp import TcpTransport


def moved(message, peer, contact):
    """A message of a peer's with another Contact, ``HOST:PORT`` with parameters."""
    own = f"Contact: <sip:me@127.0.0.1:{peer.port}>".encode()
    assert own in message
    return message.replace(own, f"Contact: <sip:me@{contact}>".encode())


def hear_the_end(other, called, invite):
    """The called end hangs up, and the bridge says so to another end than the call began with."""
    called.request(invite, "BYE", 2)
    other.answer(other.hear("BYE"), 200)
    other.close()


def move(peer, to, other):
    """Tell the bridge within a call that the peer is asked where another end is."""
    peer.send(moved(peer.request("UPDATE", to=to, number=2), peer, f"127.0.0.1:{other.port}"))
    return peer.final()[0]


@contextlib.contextmanager
def asked_to_refresh(stand_in, method, more=""):
    """A call whose caller the bridge asks with ``method`` to go on with the session."""
    with between(stand_in) as (peer, _, called):
        asked = f"Supported: timer\r\nSession-Expires: 2;refresher=uas\r\n{more}"
        invite, _, to = answered(peer, called, asked=asked)
        yield peer, called, invite, to, peer.asked(method)


def connected(peer, called, message):
    """Set a call up that begins with a message; the called end's INVITE, and the 200's text."""
    peer.send(message)
    invite = called.hear("INVITE")
    called.answer(invite, 200, OPUS_SDP)
    called.hear("ACK")
    status, text = peer.final()
    assert status == 200
    peer.send(peer.request("ACK", to=tag_of(text)))
    return invite, text


def test_a_callers_contact_is_asked_not_where_the_call_came_from(stand_in):
    with between(stand_in) as (peer, _, called):
        other = CalledEnd()
        message = moved(peer.request("INVITE", body=SDP), peer, f"127.0.0.1:{other.port}")
        invite, _ = connected(peer, called, message)
        called.request(invite, "BYE", 2)
        bye = other.hear("BYE")
        assert bye.startswith(f"BYE sip:me@127.0.0.1:{other.port} SIP/2.0\r\n")
        other.answer(bye, 200)
        other.close()


# A private address of another network than the caller's, as behind an address translator; a name;
# an address of the other kind; another transport.
@pytest.mark.parametrize(
    "contact",
    [
        "10.1.2.3:5060",
        "127.0.0.9:5060",
        "phone.invalid",
        "[2606:4700::1]",
        "127.0.0.1;transport=tcp",
    ],
)
def test_a_contact_that_says_nothing_here_is_not_followed(stand_in, contact):
    with between(stand_in) as (peer, _, called):
        message = moved(peer.request("INVITE", body=SDP), peer, contact)
        invite, _ = connected(peer, called, message)
        called.request(invite, "BYE", 2)
        bye = peer.asked("BYE")
        assert bye.startswith(f"BYE sip:me@{contact} SIP/2.0\r\n")
        peer.answer(bye, 200)


def test_a_called_ends_contact_gets_the_acknowledgement_and_what_follows(stand_in):
    with between(stand_in) as (peer, _, called):
        other = CalledEnd()
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        own, called.port = called.port, other.port
        called.answer(invite, 200, OPUS_SDP)
        called.port = own
        other.hear("ACK")
        _, text = peer.final()
        to = tag_of(text)
        peer.send(peer.request("ACK", to=to))
        peer.send(peer.request("BYE", to=to, number=2))
        other.answer(other.hear("BYE"), 200)
        other.close()


def test_proxies_that_stay_are_named_in_the_answer_and_asked_in_their_order(stand_in):
    with between(stand_in) as (peer, _, called):
        near, far = CalledEnd(), CalledEnd()
        routes = [f"<sip:127.0.0.1:{each.port};lr>" for each in (near, far)]
        lines = f"Record-Route: {routes[0]}\r\nRecord-Route: {routes[1]}\r\n"
        message = peer.request("INVITE", body=SDP, more=lines)
        invite, text = connected(peer, called, message)
        assert lines in text
        called.request(invite, "BYE", 2)
        bye = near.hear("BYE")
        assert bye.startswith(f"BYE sip:me@127.0.0.1:{peer.port} SIP/2.0\r\n")
        assert [line for line in bye.split("\r\n") if line.startswith("Route:")] == [
            f"Route: {route}" for route in routes
        ]
        near.answer(bye, 200)
        near.close()
        far.close()


@pytest.mark.parametrize("ends", [(Peer, CalledEnd), (TcpPeer, TcpCalledEnd)], ids=["UDP", "TCP"])
@pytest.mark.parametrize("who", ["caller", "target"])
def test_a_strict_router_is_asked_itself_and_the_end_is_the_last_route(stand_in, ends, who):
    with between(stand_in, *ends) as (peer, _, called):
        if who == "caller":
            strict, far = f"sip:strict@127.0.0.1:{peer.port};x=y", "<sip:far.test;lr>"
            lines = f"Record-Route: <{strict}?a=b>\r\nRecord-Route: {far}\r\n"
            invite, _, _ = answered(peer, called, asked=lines)
            called.request(invite, "BYE", 2)
            bye = peer.asked("BYE")
            assert f"\r\nRoute: {far}\r\nRoute: <sip:me@127.0.0.1:{peer.port}" in bye
            peer.answer(bye, 200)
        else:
            strict = f"sip:127.0.0.1:{called.port}"
            _, _, to = answered(peer, called, said=f"Record-Route: <{strict}>\r\n")
            peer.send(peer.request("BYE", to=to, number=2))
            bye = called.hear("BYE")
            assert f"\r\nRoute: <sip:x@127.0.0.1:{called.port}" in bye
            called.answer(bye, 200)
        assert bye.startswith(f"BYE {strict} SIP/2.0\r\n")


def test_a_ringing_answer_names_the_proxies_and_a_refusal_does_not(stand_in):
    with between(stand_in) as (peer, _, called):
        line = "Record-Route: <sip:127.0.0.1:5999;lr>\r\n"
        peer.send(peer.request("INVITE", body=SDP, more=line))
        invite = called.hear("INVITE")
        called.answer(invite, 180)
        while (ringing := peer.hear())[0] < 180:
            pass
        assert line in ringing[1]
        called.answer(invite, 486)
        status, text = peer.final()
        assert (status, line in text) == (486, False)


@pytest.mark.parametrize(("number", "is_new"), [(2, True), (1, False)])
def test_a_contact_that_changes_within_the_call_is_followed(stand_in, number, is_new):
    with between(stand_in) as (peer, _, called):
        other = CalledEnd()
        invite, _, to = answered(peer, called)
        update = peer.request("UPDATE", to=to, number=number)
        peer.send(moved(update, peer, f"127.0.0.1:{other.port}"))
        # One that is older than the call's newest request is refused and changes nothing.
        assert peer.final()[0] == (200 if is_new else 500)
        called.request(invite, "BYE", 2)
        if is_new:
            other.answer(other.hear("BYE"), 200)
        else:
            peer.answer(peer.asked("BYE"), 200)
        other.close()


def test_a_contact_that_changes_before_the_answer_is_followed(stand_in):
    with between(stand_in) as (peer, _, called):
        other = CalledEnd()
        invite, to = ring(peer, called)
        move(peer, to, other)
        called.answer(invite, 200, OPUS_SDP)
        called.hear("ACK")
        assert peer.final()[0] == 200
        peer.send(peer.request("ACK", to=to))
        hear_the_end(other, called, invite)


def test_a_contact_in_the_answer_to_a_refresh_of_ours_is_followed(stand_in, short):
    with asked_to_refresh(stand_in, "UPDATE") as (peer, called, invite, _, refresh):
        other = CalledEnd()
        own, peer.port = peer.port, other.port
        peer.answer(refresh, 200, more="Session-Expires: 1800;refresher=uac\r\n")
        peer.port = own
        hear_the_end(other, called, invite)


@pytest.mark.parametrize(
    ("contact", "known", "expected"),
    [
        # Both ends are on the Internet: the Contact, also of another machine behind a proxy.
        ("8.8.8.8:5070", ("1.1.1.1", 6000), ("8.8.8.8", 5070)),
        # A translator's address is known, and the port is the one that the call came from.
        ("1.1.1.1", ("1.1.1.1", 6000), ("1.1.1.1", 6000)),
        ("1.1.1.1:5070", ("1.1.1.1", 6000), ("1.1.1.1", 6000)),
        # A global address is followed from everywhere, whatever else is named.
        ("8.8.8.8:5070", ("10.0.0.4", 6000), ("8.8.8.8", 5070)),
        ("8.8.8.8:5070;maddr=9.9.9.9", ("1.1.1.1", 6000), ("8.8.8.8", 5070)),
        # One network: the Contact. Two private ones: where the call came from.
        ("10.0.0.4:5070", ("10.0.0.4", 6000), ("10.0.0.4", 5070)),
        ("10.0.0.5:5070", ("10.0.0.4", 6000), ("10.0.0.4", 6000)),
        ("192.168.1.2:5070", ("1.1.1.1", 6000), ("1.1.1.1", 6000)),
        ("100.64.0.2:5070", ("1.1.1.1", 6000), ("1.1.1.1", 6000)),
        ("0.0.0.0:5070", ("1.1.1.1", 6000), ("1.1.1.1", 6000)),
        ("224.0.1.75:5070", ("1.1.1.1", 6000), ("1.1.1.1", 6000)),
        ("8.8.8.8:99999", ("1.1.1.1", 6000), ("1.1.1.1", 6000)),
        ("[2606:4700::2]:5070", ("2606:4700::1", 6000), ("2606:4700::2", 5070)),
        ("[fd00::2]:5070", ("2606:4700::1", 6000), ("2606:4700::1", 6000)),
    ],
)
def test_private_addresses_of_other_networks_are_told_from_the_rest(contact, known, expected):
    text = f"BYE sip:me@{contact} SIP/2.0\r\nVia: SIP/2.0/UDP 1.1.1.1;branch=z9hG4bK1\r\n\r\n"
    assert datagram_hop(SipMessage.parse(text.encode()), known) == expected


@pytest.mark.parametrize(
    ("route", "has_come", "expected"),
    [
        ("", True, 6000),
        ("", False, 5070),
        ("Route: <sip:1.1.1.1:5080;lr>\r\n", True, 5080),
        ("Route: <sip:1.1.1.1:5080;lr>\r\n", False, 5080),
    ],
)
def test_another_port_of_the_same_public_address(route, has_come, expected):
    text = f"BYE sip:me@1.1.1.1:5070 SIP/2.0\r\nVia: SIP/2.0/UDP 2.2.2.2;branch=z9hG4bK1\r\n{route}"
    request = SipMessage.parse(f"{text}\r\n".encode())
    assert datagram_hop(request, ("1.1.1.1", 6000), has_come=has_come) == ("1.1.1.1", expected)


def test_who_calls_from_a_public_address_is_asked_there_and_who_is_called_at_the_contact(
    stand_in, monkeypatch
):
    # The loopback stands for the Internet.
    monkeypatch.setattr(destinations.ipaddress.IPv4Address, "is_global", True)
    with between(stand_in) as (peer, _, called):
        other = CalledEnd()
        peer.send(moved(peer.request("INVITE", body=SDP), peer, "127.0.0.1:9"))
        invite = called.hear("INVITE")
        own, called.port = called.port, other.port
        called.answer(invite, 200, OPUS_SDP)
        called.port = own
        other.hear("ACK")
        _, text = peer.final()
        peer.send(peer.request("ACK", to=tag_of(text)))
        called.request(invite, "BYE", 2)
        bye = peer.asked("BYE")
        assert bye.startswith("BYE sip:me@127.0.0.1:9 SIP/2.0\r\n")
        peer.answer(bye, 200)
        other.close()


@pytest.mark.parametrize("contact", ["", "Contact: *\r\n"], ids=["none", "unusable"])
def test_who_calls_without_a_contact_is_asked_where_the_call_came_from(stand_in, contact):
    with between(stand_in) as (peer, _, called):
        own = f"Contact: <sip:me@127.0.0.1:{peer.port}>\r\n".encode()
        message = peer.request("INVITE", body=SDP).replace(own, contact.encode())
        invite, _ = connected(peer, called, message)
        called.request(invite, "BYE", 2)
        bye = peer.asked("BYE")
        assert bye.startswith(f"BYE sip:127.0.0.1:{peer.port} SIP/2.0\r\n")
        peer.answer(bye, 200)


_UNUSABLE = [
    "*",
    "<bad",
    "<>",
    "<sip:>",
    "<sip:me@>",
    "<tel:+12>",
    "<mailto:me@127.0.0.1>",
    "<sip:me@[::1>",
    '"sip:me@127.0.0.1"',
]


@pytest.mark.parametrize(
    ("contact", "expected"),
    [
        ("<sip:me@1.1.1.1:5070>", "sip:me@1.1.1.1:5070"),
        ("SIP:me@1.1.1.1;expires=60", "sip:me@1.1.1.1"),
        (
            '"a \\" <sip:no@8.8.8.8>" <sips:me@[2606:4700::1]:5071>;q=1',
            "sips:me@[2606:4700::1]:5071",
        ),
        ('Me <sip:a.test;ob>;+sip.instance="<urn:uuid:1>"', "sip:a.test;ob"),
        *[(each, None) for each in _UNUSABLE],
    ],
)
def test_a_contact_is_a_sip_address_with_a_host(contact, expected):
    text = (
        f"BYE sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP 1.1.1.1;branch=z9\r\nContact: {contact}\r\n\r\n"
    )
    assert contact_in(SipMessage.parse(text.encode())) == expected


@pytest.mark.parametrize("contact", ["*", "<tel:+12>"])
def test_an_unusable_contact_moves_nobody(stand_in, contact):
    with between(stand_in) as (peer, _, called):
        invite, _, to = answered(peer, called)
        own = f"Contact: <sip:me@127.0.0.1:{peer.port}>".encode()
        update = peer.request("UPDATE", to=to, number=2)
        peer.send(update.replace(own, f"Contact: {contact}".encode()))
        assert peer.final()[0] == 200
        called.request(invite, "BYE", 2)
        bye = peer.asked("BYE")
        assert bye.startswith(f"BYE sip:me@127.0.0.1:{peer.port} SIP/2.0\r\n")
        peer.answer(bye, 200)


def test_an_unusable_contact_in_an_answer_leaves_the_target_that_was_called(stand_in):
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        own, called.port = called.port, "x>, <tel:+12"
        called.answer(invite, 200, OPUS_SDP)
        called.port = own
        assert called.hear("ACK").startswith(f"ACK sip:x@127.0.0.1:{own} SIP/2.0\r\n")
        _, text = peer.final()
        hang_up(peer, tag_of(text))
        called.answer(called.hear("BYE"), 200)


@pytest.mark.parametrize("method", ["UPDATE", "INVITE"])
def test_a_change_that_is_refused_moves_nobody(stand_in, method):
    with between(stand_in) as (peer, _, called):
        other = CalledEnd()
        invite, _, to = answered(peer, called)
        strange = SDP.replace(" 0 101", " 18").replace("a=rtpmap:0 PCMU/8000\r\n", "")
        change = peer.request(method, to=to, number=2, body=strange)
        peer.send(moved(change, peer, f"127.0.0.1:{other.port}"))
        assert peer.final()[0] == 488
        called.request(invite, "BYE", 2)
        peer.answer(peer.asked("BYE"), 200)
        other.close()


def test_a_change_that_is_accepted_moves_the_end(stand_in):
    with between(stand_in) as (peer, _, called):
        other = CalledEnd()
        invite, _, to = answered(peer, called)
        change = peer.request("INVITE", to=to, number=2, body=SDP)
        peer.send(moved(change, peer, f"127.0.0.1:{other.port}"))
        assert peer.final()[0] == 200
        peer.send(peer.request("ACK", to=to, number=2))
        hear_the_end(other, called, invite)


def test_a_copy_of_an_older_answer_takes_no_newer_contact_back(stand_in, short):
    by_invite = asked_to_refresh(stand_in, "INVITE", "Allow: INVITE, BYE\r\n")
    with by_invite as (peer, called, invite, to, refresh):
        other = CalledEnd()
        more = "Session-Expires: 1800;refresher=uac\r\n"
        peer.answer(refresh, 200, SDP, more)
        peer.asked("ACK")
        assert move(peer, to, other) == 200
        # Its ACK was lost.
        peer.answer(refresh, 200, SDP, more)
        other.hear("ACK")
        hear_the_end(other, called, invite)


def test_who_takes_a_call_sees_its_proxies_in_their_order():
    seen = []

    async def run():
        agent = Agent("127.0.0.1", 0)
        heard = asyncio.Event()

        def take(call):
            seen.append((list(call.dialog.route_set), call.dialog.remote_target))
            call.reject(480)
            heard.set()

        await agent.start({"on_invite": take})
        peer = Peer(agent.port)
        lines = "Record-Route: <sip:a.test;lr>\r\nRecord-Route: <sip:b.test;lr>\r\n"
        own = f"Contact: <sip:me@127.0.0.1:{peer.port}>".encode()
        peer.send(peer.request("INVITE", body=SDP, more=lines).replace(own, b"Contact: *"))
        await asyncio.wait_for(heard.wait(), 5.0)
        peer.close()
        await agent.stop()

    asyncio.run(run())
    assert seen == [(["<sip:a.test;lr>", "<sip:b.test;lr>"], "")]


@pytest.mark.parametrize(("answer", "warned"), [(OPUS_SDP, False), (SDP, True)])
def test_a_call_without_a_wider_codec_is_warned_of(stand_in, caplog, answer, warned):
    with between(stand_in) as (peer, running, called):
        _, _, to = answered(peer, called, answer=answer)
        running.until(lambda: running.bridge.calls == 1)
        hang_up(peer, to)
    warnings = [record for record in caplog.records if "no codec that carries" in record.message]
    assert bool(warnings) == warned


def test_the_log_does_not_name_a_target_whose_name_is_unknown(stand_in, caplog):
    caplog.set_level("INFO", "rtsr")
    target = Target.parse("sip:bob@nosuch-customer-7.invalid")
    with Running(str(stand_in), target=target) as running:
        peer = Peer(running.port)
        assert set_up(peer)[0] == 502
        peer.close()
        running.until(lambda: running.bridge.calls == 0)
    (refused,) = [each for each in caplog.records if each.message == "sip call refused"]
    assert refused.reason == "the target's name is not known"
    assert not [each for each in caplog.records if "nosuch" in str(vars(each))]


@pytest.mark.parametrize("asks", ["target", "connection"])
def test_slow_names_hold_up_nothing_but_their_own_calls(monkeypatch, asks):
    may_answer = threading.Event()

    def slow(host, port, *details, **more):
        assert host == "slow.example"
        may_answer.wait(20.0)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async def run():
        loop = asyncio.get_running_loop()
        # What asyncio's own pool has is shared by all that opens calls.
        loop.set_default_executor(ThreadPoolExecutor(1))
        transport = TcpTransport(local_addr=("127.0.0.1", 0))
        await transport.start()
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        try:
            if asks == "target":
                waiting = asyncio.ensure_future(resolved("slow.example", 5060))
            else:
                waiting = asyncio.ensure_future(transport.connect(("slow.example", 5060)))
            await asyncio.sleep(0.1)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 5.0) == 7
            assert await asyncio.wait_for(resolved("192.0.2.7", 5060), 5.0) == ("192.0.2.7", 5060)
            assert not waiting.done()
        finally:
            may_answer.set()
        with pytest.raises(socket.gaierror):
            await waiting
        monkeypatch.undo()
        await transport.stop()

    asyncio.run(run())

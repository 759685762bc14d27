"""Calls over TCP whose ends close their connections and open others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time

import pytest
from sip_ends import (
    OPUS_SDP,
    SDP,
    CalledEnd,
    TcpCalledEnd,
    TcpPeer,
    answered,
    between,
    response,
    ring,
    tag_of,
)

pytest.importorskip("aiosipua")

from rtsr import listening
from rtsr.call.sip import tcp
from rtsr.call.sip.agent import Agent, Target
from rtsr.call.sip.tcp import TcpTransport


def test_answers_take_the_connection_of_the_request(stand_in):
    with between(stand_in, caller=TcpPeer) as (peer, _, _):
        # Neither the Via nor the Contact says the connection's port.
        peer.send(peer.request("OPTIONS"))
        assert peer.final()[0] == 200
        # Whoever did not get the answer asks again, on another connection.
        question = peer.request("OPTIONS", number=2)
        peer.send(question)
        first = peer.final()
        peer.drop()
        peer.connect()
        peer.send(question)
        assert peer.final() == first


def test_an_answer_whose_connection_is_gone_goes_to_the_address_in_the_via(stand_in):
    with between(stand_in, caller=TcpPeer) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        peer.drop()
        called.answer(invite, 200, OPUS_SDP)
        called.hear("ACK")
        peer.accept()
        status, text = peer.final()
        assert status == 200
        to = tag_of(text)
        peer.send(peer.request("ACK", to=to))
        peer.send(peer.request("BYE", to=to, number=2))
        assert peer.final()[0] == 200
        called.answer(called.hear("BYE"), 200)


@pytest.mark.parametrize("old", ["closed", "left"])
def test_requests_go_over_the_connection_on_which_the_caller_was_heard_last(stand_in, old):
    with between(stand_in, caller=TcpPeer) as (peer, _, called):
        invite, _, to = answered(peer, called)
        if old == "closed":
            peer.drop()
        left = peer._socket
        peer.connect()
        peer.send(peer.request("UPDATE", to=to, number=2))
        assert peer.final()[0] == 200
        called.request(invite, "BYE", 2)
        peer.answer(peer.asked("BYE"), 200)
        left.close()


@pytest.mark.parametrize("wrong", ["to", "from"])
def test_who_does_not_know_the_call_does_not_draw_it_to_another_connection(stand_in, wrong):
    with between(stand_in, caller=TcpPeer) as (peer, _, called):
        invite, _, to = answered(peer, called)
        mine = peer._socket
        peer.connect()
        forged = peer.request("OPTIONS", to=";tag=guessed" if wrong == "to" else to, number=2)
        peer.send(forged.replace(b";tag=a", b";tag=b") if wrong == "from" else forged)
        assert peer.final()[0] == 481
        peer.drop()
        peer._socket = mine
        called.request(invite, "BYE", 2)
        peer.answer(peer.asked("BYE"), 200)


def test_without_a_connection_requests_go_to_the_callers_contact(stand_in):
    with between(stand_in, caller=TcpPeer) as (peer, running, called):
        invite, _, _ = answered(peer, called)
        peer.drop()
        running.until(lambda: not running.bridge.agent.tcp.transport._open)
        called.request(invite, "BYE", 2)
        peer.accept()
        bye = peer.asked("BYE")
        assert f"sip:me@127.0.0.1:{peer.port}" in bye.split("\r\n")[0]
        peer.answer(bye, 200)


def test_a_connection_to_which_a_call_has_moved_stays(stand_in, monkeypatch):
    monkeypatch.setattr(tcp, "IDLE_SECONDS", 0.4)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.1)
    with between(stand_in, caller=TcpPeer) as (peer, _, called):
        invite, _, to = answered(peer, called)
        peer.drop()
        peer.connect()
        peer.send(peer.request("UPDATE", to=to, number=2))
        assert peer.final()[0] == 200
        time.sleep(1.0)
        called.request(invite, "BYE", 2)
        peer.answer(peer.asked("BYE"), 200)


def test_a_called_end_that_has_closed_is_reached_at_its_contact(stand_in):
    with between(stand_in, called=TcpCalledEnd) as (peer, running, called):
        # Another address than the one that was called, as behind a gateway.
        other = TcpCalledEnd()
        port, called.port = called.port, other.port
        _, _, to = answered(peer, called)
        called.port = port
        called.drop()
        running.until(lambda: not running.bridge.agent.tcp.transport._connections)
        peer.send(peer.request("BYE", to=to, number=2))
        other.accept()
        other.answer(other.hear("BYE"), 200)
        other.close()


def test_a_called_end_whose_contact_does_not_answer_is_reached_where_it_was_called(stand_in):
    with between(stand_in, called=TcpCalledEnd) as (peer, running, called):
        nowhere = CalledEnd()
        port, called.port = called.port, nowhere.port
        _, _, to = answered(peer, called)
        called.port = port
        called.drop()
        running.until(lambda: not running.bridge.agent.tcp.transport._connections)
        peer.send(peer.request("BYE", to=to, number=2))
        called.accept()
        called.answer(called.hear("BYE"), 200)
        nowhere.close()


def test_a_called_end_that_comes_back_is_heard_and_asked_on_its_new_connection(stand_in):
    with between(stand_in, called=TcpCalledEnd) as (peer, running, called):
        invite, _, to = answered(peer, called)
        called.drop()
        called.connect(running.port)
        called.request(invite, "OPTIONS", 2)
        assert "SIP/2.0 200" in called.hear("SIP")
        peer.send(peer.request("BYE", to=to, number=2))
        called.answer(called.hear("BYE"), 200)


def test_a_refusal_is_acknowledged_where_it_came_from(stand_in):
    with between(stand_in, called=TcpCalledEnd) as (peer, running, called):
        peer.send(peer.request("INVITE", body=SDP))
        called.accept()
        invite = called.hear("INVITE")
        called.drop()
        called.connect(running.port)
        called.answer(invite, 486)
        called.hear("ACK")
        assert peer.final()[0] == 486


def test_a_caller_whose_call_came_again_on_another_connection_is_reached_there(stand_in):
    with between(stand_in, caller=TcpPeer) as (peer, _, called):
        message = peer.request("INVITE", body=SDP)
        peer.send(message)
        invite = called.hear("INVITE")
        peer.drop()
        peer.connect()
        peer.send(message)
        assert peer.hear()[0] == 100
        called.answer(invite, 200, OPUS_SDP)
        called.hear("ACK")
        assert peer.final()[0] == 200
        # Not at the Contact, where this end listens, too.
        called.request(invite, "BYE", 2)
        peer.answer(peer.asked("BYE"), 200)


def test_an_answer_takes_the_newest_connection_of_its_call_where_its_own_is_gone(stand_in):
    with between(stand_in, caller=TcpPeer) as (peer, running, called):
        invite, to = ring(peer, called)
        peer.drop()
        running.until(lambda: not running.bridge.agent.tcp.transport._open)
        peer.connect()
        peer.send(peer.request("OPTIONS", to=to, number=2))
        assert peer.final()[0] == 200
        called.answer(invite, 200, OPUS_SDP)
        called.hear("ACK")
        # Not at the address in the Via, where this end listens, too.
        status, text = peer.final()
        assert (status, "INVITE" in text) == (200, True)
        peer.send(peer.request("ACK", to=to))
        peer.send(peer.request("BYE", to=to, number=3))
        assert peer.final()[0] == 200
        called.answer(called.hear("BYE"), 200)


def test_a_called_end_that_answers_on_another_connection_is_reached_there(stand_in):
    with between(stand_in, called=TcpCalledEnd) as (peer, running, called):
        peer.send(peer.request("INVITE", body=SDP))
        called.accept()
        invite = called.hear("INVITE")
        called.drop()
        running.until(lambda: not running.bridge.agent.tcp.transport._connections)
        called.connect(running.port)
        called.answer(invite, 200, OPUS_SDP)
        called.hear("ACK")
        status, text = peer.final()
        assert status == 200
        to = tag_of(text)
        peer.send(peer.request("ACK", to=to))
        peer.send(peer.request("BYE", to=to, number=2))
        called.answer(called.hear("BYE"), 200)


def test_what_waits_for_a_connection_goes_its_own_other_way_where_that_fails():
    async def run():
        heard = []

        async def take(reader, writer):
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    heard.append(await reader.readuntil(b"."))
            writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        there = server.sockets[0].getsockname()[:2]
        nobody = socket.socket()
        nobody.bind(("127.0.0.1", 0))
        gone = nobody.getsockname()
        transport = TcpTransport(local_addr=("127.0.0.1", 0))
        await transport.start()
        # The first one, which opens the connection, has nowhere else to go.
        transport.write(b"first.", gone)
        transport.write(b"second.", gone, there)
        transport.write(b"third.", gone, gone, there)
        for _ in range(100):
            if len(heard) == 2:
                break
            await asyncio.sleep(0.02)
        await transport.stop()
        server.close()
        nobody.close()
        return heard

    assert asyncio.run(run()) == [b"second.", b"third."]


@contextlib.asynccontextmanager
async def reaching(count):
    """A transport, addresses that it reaches, and the ends of the connections that it opens."""
    ends = []

    async def take(reader, writer):
        ends.append((reader, writer))

    servers = [await asyncio.start_server(take, "127.0.0.1", 0) for _ in range(count)]
    transport = TcpTransport(local_addr=("127.0.0.1", 0))
    await transport.start()
    yield transport, [server.sockets[0].getsockname()[:2] for server in servers], ends
    await transport.stop()
    for _, writer in ends:
        writer.close()
    for server in servers:
        server.close()


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")


@pytest.mark.parametrize("belongs_to_a_call", [False, True])
def test_connections_that_we_have_opened_are_closed_once_they_are_idle(
    monkeypatch, belongs_to_a_call
):
    monkeypatch.setattr(tcp, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(tcp, "FIRST_MESSAGE_SECONDS", 0.1)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)

    async def run():
        async with reaching(1) as (transport, (there,), ends):
            transport.carries_call = lambda address: belongs_to_a_call and address == there
            transport.write(b"hello", there)
            await until(lambda: ends)
            reader, writer = ends[0]
            assert await reader.readexactly(5) == b"hello"
            # Whoever is called may think for longer than a caller before the first message.
            await asyncio.sleep(0.3)
            writer.write(b"\r\n\r\n")
            assert await reader.readexactly(2) == b"\r\n"
            if belongs_to_a_call:
                await asyncio.sleep(0.8)
                assert len(transport._open) == 1
            else:
                assert await asyncio.wait_for(reader.read(), 5.0) == b""
                assert not transport._open

    asyncio.run(run())


def test_connections_that_we_open_are_limited_together_with_those_of_others(monkeypatch):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 3)

    async def run():
        async with reaching(5) as (transport, places, ends):
            theirs, _ = await asyncio.open_connection(*transport.local_addr)
            await until(lambda: transport._open)
            for place in places[:4]:
                transport.write(b"hello", place)
                await until(functools.partial(transport._lives, place))
                await asyncio.sleep(0.02)
            assert await asyncio.wait_for(theirs.read(), 5.0) == b""
            assert [place for place in places if transport._lives(place)] == places[1:4]
            # All carry calls, and what waits takes the other way that it has.
            transport.carries_call = lambda address: True
            transport.write(b"there", places[4], places[3])
            reader, _ = ends[3]
            assert await asyncio.wait_for(reader.readexactly(10), 5.0) == b"hellothere"
            assert not transport._lives(places[4])

    asyncio.run(run())


def test_many_connections_that_we_open_at_once_are_limited(monkeypatch):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 3)

    async def run():
        async with reaching(8) as (transport, places, _):
            for place in places:
                transport.write(b"hello", place)
            await until(lambda: not transport._opening)
            assert len(transport._open) <= 3

    asyncio.run(run())


def test_the_connection_to_a_registrar_stays_though_nothing_comes(monkeypatch):
    monkeypatch.setattr(tcp, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)

    async def run():
        async def take(reader, writer):
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    asked = (await reader.readuntil(b"\r\n\r\n")).decode()
                    writer.write(response(asked, 200, 5060, more="Expires: 300\r\n"))
            ended.set()
            writer.close()

        ended = asyncio.Event()
        server = await asyncio.start_server(take, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        agent = Agent("127.0.0.1", 0)
        await agent.start({})
        await agent.register(Target.parse(f"sip:me@127.0.0.1:{port};transport=tcp"), None, 300)
        await asyncio.sleep(1.0)
        assert not ended.is_set()
        await agent.stop()
        await asyncio.wait_for(ended.wait(), 5.0)
        server.close()

    asyncio.run(run())

"""Whose packets a leg takes, on which of its ports: no stray ones of other calls."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket

import pytest

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

import pylibsrtp
from aiortc.rtp import RtpPacket

from rtsr.call.formats import Packet
from rtsr.call.reports import FarReports
from rtsr.call.sip import ports as ports_module
from rtsr.call.sip.control import ReportWriter
from rtsr.call.sip.media_socket import MediaSocket
from rtsr.call.sip.ports import PortRange
from rtsr.call.sip.source import Source

THERE, BEHIND, STRAY = ("192.0.2.1", 4000), ("198.51.100.1", 61000), ("203.0.113.1", 5000)


def heard(source, *packets):
    """Which of some packets are taken, given as pairs of an address and a stream."""
    return [source.takes(address, ssrc) for address, ssrc in packets]


@pytest.fixture
def source():
    source = Source()
    source.describe(THERE)
    return source


def test_whoever_was_heard_before_there_was_a_description_is_forgotten():
    source = Source()
    assert source.address is None
    assert heard(source, *[(STRAY, 1)] * 5) == [False, False, False, True, True]
    source.describe(THERE)
    assert source.address == THERE
    assert heard(source, (STRAY, 1)) == [False]


def test_the_described_address_is_heard_at_once_and_then_nobody_else(source):
    assert heard(source, (THERE, 1), *[(STRAY, 2)] * 200) == [True] + [False] * 200
    assert source.address == THERE
    # Another stream of the same end is its own.
    assert heard(source, (THERE, 7)) == [True]


def test_an_end_behind_a_translator_is_found_by_some_packets_in_a_row(source):
    assert heard(source, *[(BEHIND, 1)] * 3) == [False] * 3
    assert source.address == THERE
    assert heard(source, (BEHIND, 1), (BEHIND, 1)) == [True, True]
    assert source.address == BEHIND


def test_packets_that_are_not_in_a_row_or_of_several_streams_show_nothing(source):
    mixed = [(BEHIND, 1), (BEHIND, 1), (BEHIND, 1), (STRAY, 9)] * 20
    assert not any(heard(source, *mixed))
    assert not any(heard(source, *[(BEHIND, number) for number in range(40)]))
    assert source.address == THERE


def test_the_described_address_takes_the_place_of_whoever_was_found_before(source):
    assert heard(source, *[(STRAY, 1)] * 400)[-1]
    assert heard(source, (THERE, 2), (STRAY, 1)) == [True, False]
    assert source.address == THERE


def test_the_rest_of_a_call_before_gives_way_and_an_end_does_not(source):
    # What a telephone sent until it had heard that its call is over.
    heard(source, *[(STRAY, 1)] * 12)
    assert source.address == STRAY
    assert heard(source, *[(BEHIND, 2)] * 60)[3:] == [True] * 57
    assert source.address == BEHIND
    assert not any(heard(source, *[(STRAY, 1)] * 400))


def test_one_packet_of_the_end_breaks_a_row_of_others(source):
    heard(source, *[(BEHIND, 2)] * 4)
    assert heard(source, *[(STRAY, 1), (STRAY, 1), (STRAY, 1), (BEHIND, 2)] * 9)[-1]
    assert source.address == BEHIND


def test_an_end_that_moves_is_heard_from_where_it_was_until_it_speaks_elsewhere(source):
    heard(source, (THERE, 1))
    source.describe(BEHIND)
    assert source.address == BEHIND
    assert heard(source, (THERE, 1), (THERE, 1), (STRAY, 5)) == [True, True, False]
    assert source.address == BEHIND
    assert heard(source, (BEHIND, 3), (THERE, 1)) == [True, False]


def test_the_same_description_again_changes_nothing(source):
    heard(source, *[(BEHIND, 1)] * 4)
    source.describe(THERE)
    assert source.address == BEHIND
    assert heard(source, (BEHIND, 1)) == [True]


def rtp(number, ssrc):
    return RtpPacket(0, 0, number, 160 * number, ssrc, b"\xff" * 160).serialize()


@contextlib.contextmanager
def telephone():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(2.0)
        yield opened


def open_socket(taken, ports=None):
    reports = ReportWriter(FarReports())
    return MediaSocket.open("127.0.0.1", lambda p: taken.append(p.ssrc), reports, ports)


def test_a_stray_packet_does_not_hand_a_call_to_a_stranger():
    async def run():
        taken = []
        ours = await open_socket(taken)
        with telephone() as other, telephone() as own:
            ours.set_peer(own.getsockname(), None, None, None)
            other.sendto(rtp(1, 0xA), ours.address)
            await asyncio.sleep(0.05)
            for number in range(10):
                own.sendto(rtp(number, 0xB), ours.address)
            while len(taken) < 10:
                await asyncio.sleep(0.01)
            assert taken == [0xB] * 10
            assert ours.unusable == 1
            ours.send(Packet(0, 1, 160, b"theirs", False, 1))
            assert b"theirs" in own.recv(2000)
            other.settimeout(0.1)
            with pytest.raises(TimeoutError):
                other.recv(2000)
        ours.close()

    asyncio.run(run())


def test_packets_without_the_key_do_not_count():
    async def run():
        taken = []
        ours = await open_socket(taken)
        key, theirs = secrets.token_bytes(30), secrets.token_bytes(30)
        policy = pylibsrtp.Policy(key=theirs, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        far = pylibsrtp.Session(policy)
        with telephone() as other, telephone() as own:
            ours.set_peer(THERE, None, key, theirs)
            for number in range(9):
                other.sendto(rtp(number, 0xA) + bytes(10), ours.address)
                own.sendto(far.protect(rtp(number, 0xB)), ours.address)
            while len(taken) < 6:
                await asyncio.sleep(0.01)
            assert taken == [0xB] * 6
            ours.send(Packet(0, 1, 160, b"theirs", False, 1))
            assert own.recv(2000)
        ours.close()

    asyncio.run(run())


def free_ports(count):
    """A range of ports that nobody uses."""
    while True:
        with contextlib.ExitStack() as undo:
            opened = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            opened.bind(("127.0.0.1", 0))
            first = opened.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                for port in range(first + 1, first + count):
                    each = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    each.bind(("127.0.0.1", port))
                return range(first, first + count)


def test_the_ports_of_a_call_rest_after_it_while_others_are_free(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(ports_module.time, "monotonic", lambda: now[0])
    found = free_ports(8)

    async def run():
        ports = PortRange(found)

        async def begin():
            ours = await open_socket([], ports)
            assert ours.control_port == ours.address[1] + 1
            return ours, ours.address[1] - found[0]

        async def end(call):
            call.close()
            await asyncio.sleep(0)
            now[0] += 1.0

        # Round and round, although the first ones are free again.
        first, place = await begin()
        assert place == 0
        await end(first)
        (second, *_), (third, *_), (fourth, place) = [await begin() for _ in range(3)]
        assert place == 6
        # Next in the round is the first, which is in use again.
        first, place = await begin()
        assert place == 0
        await end(first)
        await end(third)
        await end(second)
        # Closing again does not make ports rest anew.
        first.close()
        # The second's ports are next, and were left last.
        first, place = await begin()
        assert place == 0
        third, place = await begin()
        assert place == 4
        second, place = await begin()
        assert place == 2
        for call in (first, second, third, fourth):
            call.close()

    asyncio.run(run())


def test_ports_come_in_the_order_of_their_rest(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(ports_module.time, "monotonic", lambda: now[0])
    ports = PortRange(range(6))
    ports.leave(0, 1)
    now[0] += 20.0
    ports.leave(4, 5)
    # The port before one that rests does so, too: reports would come there.
    assert list(ports.in_order()) == [2, 0, 1, 3, 4, 5]
    ports.take(2, 3)
    now[0] += 30.0
    assert list(ports.in_order()) == [4, 5, 0, 1, 2, 3]


def test_a_new_key_of_one_end_leaves_the_other_ends_packets_as_they_were():
    async def run():
        taken = []
        ours = await open_socket(taken)
        key, theirs, newer, newest = (secrets.token_bytes(30) for _ in range(4))

        def session(key, direction):
            return pylibsrtp.Session(pylibsrtp.Policy(key=key, ssrc_type=direction))

        ears = session(key, pylibsrtp.Policy.SSRC_ANY_INBOUND)
        mouth = session(theirs, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        with telephone() as own:

            def agree(key, theirs):
                ours.set_peer(own.getsockname(), None, key, theirs)

            def sends(number):
                ours.send(Packet(0, number % 2**16, 160 * number, b"theirs", False, 1))
                assert b"theirs" in ears.unprotect(own.recv(2000))

            async def hears(number):
                before = len(taken)
                own.sendto(mouth.protect(rtp(number % 2**16, 0xB)), ours.address)
                while len(taken) == before:
                    await asyncio.sleep(0.01)

            agree(key, theirs)
            # Both ends' numbers begin anew, which the packets themselves do not say.
            for number in (65534, 65535, 65536, 65537):
                sends(number)
                await hears(number)
            agree(key, newer)
            mouth = session(newer, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
            for number in (65534, 65535, 65536, 65537):
                sends(number + 4)
                await hears(number)
            agree(newest, newer)
            ears = session(newest, pylibsrtp.Policy.SSRC_ANY_INBOUND)
            sends(65542)
            await hears(65538)
        ours.close()

    asyncio.run(asyncio.wait_for(run(), 20.0))

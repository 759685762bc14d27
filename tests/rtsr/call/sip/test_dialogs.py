"""What may happen within and around a SIP call: pauses, changes, calls that are given up, loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time

import pytest
from network import packets, speech
from sip_ends import OPUS_SDP, SDP, Peer, Running, answered, between, hang_up, ring, set_up, tag_of

pytest.importorskip("aiosipua")

from aiortc.rtp import RtcpRrPacket, RtpPacket
from aiosipua import SipDigestAuth, parse_sdp

from rtsr.call import engine as engine_module
from rtsr.call.formats import OPUS, PCMU
from rtsr.call.reports import FarReports
from rtsr.call.sip import agent as agent_module
from rtsr.call.sip import bridge as bridge_module
from rtsr.call.sip import leg as leg_module
from rtsr.call.sip.control import ReportWriter
from rtsr.call.sip.description import Unacceptable, read_answer, read_offer
from rtsr.call.sip.media_socket import MediaSocket
from rtsr.errors import RtsrError

pytestmark = pytest.mark.clocked


def test_who_gives_up_before_the_target_is_called_frees_the_place(running, peer, monkeypatch):
    find = running.bridge.agent.find

    async def slow(target):
        await asyncio.sleep(0.4)
        return await find(target)

    monkeypatch.setattr(running.bridge.agent, "find", slow)
    before = len(running.callee.calls)
    peer.send(peer.request("INVITE", body=SDP, branch="z9hG4bKsoon"))
    running.until(lambda: running.bridge.calls == 1)
    peer.send(peer.request("CANCEL", branch="z9hG4bKsoon"))
    assert {peer.final()[0], peer.final()[0]} == {200, 487}
    time.sleep(0.6)
    assert len(running.callee.calls) == before
    assert running.bridge.calls == 0


def test_a_cancel_waits_until_the_call_is_known_and_an_answer_that_crosses_it_is_hung_up(stand_in):
    with between(stand_in) as (peer, running, called):
        peer.send(peer.request("INVITE", body=SDP, branch="z9hG4bKcross"))
        invite = called.hear("INVITE")
        peer.send(peer.request("CANCEL", branch="z9hG4bKcross"))
        assert {peer.final()[0], peer.final()[0]} == {200, 487}
        # It may not have come; the INVITE is repeated, nothing else is sent.
        assert called.heard_nothing_but("INVITE", 0.3)
        called.answer(invite, 180)
        called.answer(called.hear("CANCEL"), 200)
        # Somebody has taken the call at the same moment.
        for _ in range(2):
            called.answer(invite, 200, OPUS_SDP)
            called.hear("ACK")
        called.answer(called.hear("BYE"), 200)
        assert running.bridge.calls == 0


def test_the_same_call_over_another_way_is_refused_and_the_first_stays(stand_in):
    with between(stand_in) as (peer, running, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        peer.send(peer.request("INVITE", body=SDP, branch="z9hG4bKother"))
        assert peer.final()[0] == 482
        # What ends the refused one leaves the first alone.
        peer.send(peer.request("CANCEL", branch="z9hG4bKother"))
        assert peer.final()[0] == 481
        with socket.create_connection(("127.0.0.1", running.port), 5.0) as way:
            way.sendall(peer.request("INVITE", body=SDP).replace(b"/UDP", b"/TCP"))
            text = ""
            while "SIP/2.0 482" not in text:
                text += way.recv(65535).decode()
            refused = tag_of(text[text.index("SIP/2.0 482") :])
            way.sendall(peer.request("BYE", to=refused, number=2).replace(b"/UDP", b"/TCP"))
            assert "SIP/2.0 481" in way.recv(65535).decode()
        called.answer(invite, 200, OPUS_SDP)
        status, text = peer.final()
        assert status == 200
        to = tag_of(text)
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 200)


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        ("Require: precondition, 100rel\r\n", 420, "Unsupported: precondition"),
        ("Require: 100rel, timer\r\n", 200, ""),
    ],
)
def test_what_we_have_not_and_a_call_needs_is_named(running, peer, more, status, said):
    peer.send(peer.request("INVITE", body=SDP, more=more))
    got, text = peer.final()
    assert got == status
    assert said in text
    to = tag_of(text)
    peer.send(peer.request("ACK", to=to))
    if status == 200:
        hang_up(peer, to)


def test_a_call_in_a_circle_comes_to_an_end(running, peer):
    invite = peer.request("INVITE", body=SDP).replace(b"Max-Forwards: 70", b"Max-Forwards: 0")
    peer.send(invite)
    assert peer.final()[0] == 483
    invite = peer.request("INVITE", body=SDP, call="c2").replace(b"Forwards: 70", b"Forwards: 9")
    peer.send(invite)
    status, text = peer.final()
    assert status == 200
    assert running.callee.calls[-1].invite.get_header("max-forwards") == "8"
    hang_up(peer, tag_of(text), call="c2")
    for place, (hops, left) in enumerate([("9" * 5000, "69"), ("300", "254")]):
        invite = peer.request("INVITE", body=SDP, call=f"d{place}")
        peer.send(invite.replace(b"Forwards: 70", f"Forwards: {hops}".encode()))
        status, text = peer.final()
        assert status == 200
        assert running.callee.calls[-1].invite.get_header("max-forwards") == left
        hang_up(peer, tag_of(text), call=f"d{place}")


def test_a_change_of_a_call_that_is_over_rings_nowhere(running, peer):
    _, _, to = set_up(peer)
    hang_up(peer, to)
    before = len(running.callee.calls)
    peer.send(peer.request("INVITE", body=SDP, to=to, number=3))
    assert peer.final()[0] == 481
    assert len(running.callee.calls) == before


def test_a_call_that_cannot_be_taken_is_forgotten(running, peer, monkeypatch):
    def fail(incoming):
        raise ValueError("no number")

    monkeypatch.setattr(agent_module, "TIMER_H", 0.2)
    monkeypatch.setattr(bridge_module, "_hops_left", fail)
    peer.send(peer.request("INVITE", body=SDP))
    assert peer.final()[0] == 400
    agent = running.bridge.agent.udp
    running.until(lambda: agent.get_call(f"c1-{peer.port}") is None)


def test_of_several_telephones_the_one_that_takes_the_call_has_it_without_a_session_timer(stand_in):
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        called.answer(invite, 180, tag="first")
        timer = "Session-Expires: 1;refresher=uas\r\n"
        called.answer(invite, 200, OPUS_SDP, more=timer, tag="second")
        assert tag_of(called.hear("ACK")) == ";tag=second"
        status, text = peer.final()
        assert status == 200
        peer.send(peer.request("ACK", to=tag_of(text)))
        assert called.heard_nothing_but("ACK", 1.2)
        hang_up(peer, tag_of(text))
        bye = called.hear("BYE")
        assert tag_of(bye) == ";tag=second"
        called.answer(bye, 200)


def test_answers_before_the_final_one_are_not_to_be_acknowledged(stand_in):
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        # One that is sent again says the same.
        for invite in (called.hear("INVITE"), called.hear("INVITE")):
            assert "\r\nSupported: timer\r\n" in invite
        # Who wants it all the same gets no acknowledgement that goes past its proxies.
        for tag, number in (("first", 900), ("second", 5)):
            called.answer(invite, 180, more=f"Require: 100rel\r\nRSeq: {number}\r\n", tag=tag)
        while peer.hear()[0] < 180:
            pass
        with pytest.raises(TimeoutError):
            called.hear("PRACK", 0.3)
        called.answer(invite, 486)
        assert peer.final()[0] == 486


_CHALLENGE = 'Proxy-Authenticate: Digest realm="r", nonce="n"\r\n'


def test_a_call_that_is_given_up_is_not_made_anew_with_a_password(stand_in):
    with between(stand_in, auth=SipDigestAuth("account", "secret")) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP, branch="z9hG4bKgone"))
        invite = called.hear("INVITE")
        peer.send(peer.request("CANCEL", branch="z9hG4bKgone"))
        assert {peer.final()[0], peer.final()[0]} == {200, 487}
        called.answer(invite, 407, more=_CHALLENGE)
        called.hear("ACK")
        with pytest.raises(TimeoutError):
            called.hear("INVITE", 0.4)


def test_a_call_that_is_repeated_with_a_password_is_cancelled_once_it_is_known(stand_in):
    with between(stand_in, auth=SipDigestAuth("account", "secret")) as (peer, _, called):
        invite = peer.request("INVITE", body=SDP, branch="z9hG4bKasked")
        peer.send(invite.replace(b"Forwards: 70", b"Forwards: 9"))
        asked = called.hear("INVITE")
        # A proxy repeats its question until it is acknowledged.
        for _ in range(2):
            called.answer(asked, 407, more=_CHALLENGE)
        while "Proxy-Authorization" not in (repeated := called.hear("INVITE")):
            pass
        assert "Max-Forwards: 8" in repeated
        assert "\r\nSupported: timer\r\n" in repeated
        peer.send(peer.request("CANCEL", branch="z9hG4bKasked"))
        assert {peer.final()[0], peer.final()[0]} == {200, 487}
        with pytest.raises(TimeoutError):
            called.hear("CANCEL", 0.3)
        called.answer(repeated, 180)
        called.answer(called.hear("CANCEL"), 200)
        called.answer(repeated, 487)


_STALE = 'Proxy-Authenticate: Digest realm="r", nonce="{}", stale=TRUE\r\n'


@pytest.mark.parametrize("questions", [2, 3])
def test_a_password_is_said_once_more_where_only_the_nonce_was_too_old(stand_in, questions):
    with between(stand_in, auth=SipDigestAuth("account", "secret")) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        called.answer(called.hear("INVITE"), 407, more=_CHALLENGE)
        called.hear("ACK")
        for number in range(1, questions):
            asked = called.hear("INVITE")
            assert f'nonce="{number - 1 or "n"}"' in asked
            called.answer(asked, 407, more=_STALE.format(number))
            called.hear("ACK")
        if questions > 2:
            # Who never has enough is a wrong password's end.
            assert peer.final()[0] == 502
            return
        asked = called.hear("INVITE")
        assert 'nonce="1"' in asked
        called.answer(asked, 200, OPUS_SDP)
        called.hear("ACK")
        status, text = peer.final()
        assert status == 200
        hang_up(peer, tag_of(text))
        for number in (2, 3):
            called.answer(bye := called.hear("BYE"), 407, more=_STALE.format(number))
            assert ("Proxy-Authorization" in bye) is (number > 2)
        bye = called.hear("BYE")
        assert 'nonce="3"' in bye
        called.answer(bye, 407, more=_STALE.format(4))
        with pytest.raises(TimeoutError):
            called.hear("BYE", 0.4)


def test_without_a_port_for_sound_calls_are_refused(stand_in):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # One leg has a port for reports, too.
    with Running(str(stand_in), ports=range(port, port + 3)) as running:
        peer = Peer(running.port)
        status, _, to = set_up(peer)
        assert status == 200
        assert set_up(peer, call="c2")[0] == 503
        hang_up(peer, to)
        peer.close()


class Media:
    """The sound of both ends of a call: what the caller hears, what the called end says."""

    def __init__(self):
        self.caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.caller.bind(("127.0.0.1", 0))
        self.caller.settimeout(0.15)
        self.port = self.caller.getsockname()[1]
        self._callee = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._stream = iter(packets(speech(48000, 8.0), OPUS, 96))

    def offer(self, direction="sendrecv", more=""):
        return (SDP + more).replace("40000", str(self.port)).replace("sendrecv", direction)

    def say(self, there, count, by=None):
        """Send so many packets from the called end or another; what the caller hears of them."""
        for _ in range(count):
            packet = next(self._stream)
            rtp = RtpPacket(96, 0, packet.sequence_number, packet.timestamp, 5, packet.payload)
            (by or self._callee).sendto(rtp.serialize(), there)
            time.sleep(0.02)
        heard = []
        with contextlib.suppress(TimeoutError):
            while True:
                heard.append(RtpPacket.parse(self.caller.recv(2000)))
        return heard

    def close(self):
        self.caller.close()
        self._callee.close()


def media_port(text):
    return ("127.0.0.1", int(text.split("m=audio ")[1].split()[0]))


@pytest.mark.parametrize(
    ("method", "direction", "answer"),
    [("INVITE", "sendonly", "recvonly"), ("UPDATE", "inactive", "inactive")],
)
def test_who_holds_a_call_hears_nothing_may_be_silent_and_comes_back(
    stand_in, monkeypatch, method, direction, answer
):
    monkeypatch.setattr(engine_module, "SILENT_SECONDS", 1.5)
    monkeypatch.setattr(leg_module, "ANSWER_SECONDS", 0.5)
    media = Media()
    with between(stand_in) as (peer, running, called):
        invite, first, to = answered(peer, called, media.offer())
        there = media_port(invite)
        before = media.say(there, 12)
        assert len(before) >= 8
        peer.send(peer.request(method, body=media.offer(direction), to=to, number=2))
        status, text = peer.final()
        assert status == 200
        assert f"a={answer}" in text
        # Each description is the next version of the same.
        origins = [each.split("o=- ")[1].split(" IN")[0].split() for each in (first, text)]
        assert origins[0][0] == origins[1][0]
        assert int(origins[1][1]) == int(origins[0][1]) + 1
        if method == "INVITE":
            peer.send(peer.request("ACK", to=to, number=2))
        assert media.say(there, 10) == []
        # The other end, which is not on hold, is asked whether it is there.
        called.answer(called.hear("OPTIONS"), 200)
        time.sleep(0.5)
        assert running.engine.calls == 1
        (line,) = running.engine.lines
        ended = []
        hang, line.on_silence = line.on_silence, lambda: ended.append(1)
        line.watch(running.loop.time() + engine_module.HELD_SECONDS - 10.0)
        assert not ended
        line.watch(running.loop.time() + engine_module.HELD_SECONDS + 10.0)
        assert ended
        line.on_silence = hang
        peer.send(peer.request("INVITE", body=media.offer(), to=to, number=3))
        assert peer.final()[0] == 200
        peer.send(peer.request("ACK", to=to, number=3))
        after = media.say(there, 10)
        assert len(after) >= 5
        # Numbers have waited, so that nothing looks lost.
        assert after[0].sequence_number == (before[-1].sequence_number + 1) % 2**16
        assert after[0].marker
        # Who is not on hold may not be silent for so long.
        called.answer(called.hear("BYE"), 200)
    media.close()


@pytest.mark.parametrize("final", [OPUS_SDP, "", OPUS_SDP.replace("96", "97")])
def test_an_announcement_is_heard_before_the_call_is_answered(stand_in, final):
    media = Media()
    with between(stand_in) as (peer, running, called):
        peer.send(peer.request("INVITE", body=media.offer()))
        invite = called.hear("INVITE")
        called.answer(invite, 183, OPUS_SDP)
        while (early := peer.hear())[0] < 180:
            pass
        assert early[0] == 183
        assert len(media.say(media_port(invite), 12)) >= 8
        # Who announces that it rings does not end the announcement.
        called.answer(invite, 180)
        assert peer.hear()[0] == 180
        called.answer(invite, 200, final)
        called.hear("ACK")
        status, text = peer.final()
        assert status == 200
        assert text.split("\r\n\r\n")[1] == early[1].split("\r\n\r\n")[1]
        line = running.engine.lines[0]
        assert line.path.sender._payload_type == (97 if "97" in final else 96)
        hang_up(peer, tag_of(text))
        called.answer(called.hear("BYE"), 200)
    media.close()


_ELSEWHERE = 'SIP ;cause=200 ;text="Call completed elsewhere"'


@pytest.mark.parametrize("is_known", [True, False], ids=["in-time", "before-it-rings"])
def test_who_gives_a_call_up_says_why(stand_in, is_known):
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP, branch="z9hG4bKwhy"))
        invite = called.hear("INVITE")
        if is_known:
            called.answer(invite, 180)
            while peer.hear()[0] < 180:
                pass
        peer.send(peer.request("CANCEL", branch="z9hG4bKwhy", more=f"Reason: {_ELSEWHERE}\r\n"))
        assert {peer.final()[0], peer.final()[0]} == {200, 487}
        if not is_known:
            called.answer(invite, 180)
        cancel = called.hear("CANCEL")
        assert f"\r\nReason: {_ELSEWHERE}\r\n" in cancel
        called.answer(cancel, 200)
        called.answer(invite, 487)
        called.hear("ACK")


@pytest.mark.parametrize("reason", ["Q.850;cause=16", ""])
def test_who_hangs_up_says_why(stand_in, reason):
    said = f"Reason: {reason}\r\n" if reason else ""
    with between(stand_in) as (peer, _, called):
        _, _, to = answered(peer, called)
        peer.send(peer.request("BYE", to=to, number=2, more=said))
        assert peer.final()[0] == 200
        bye = called.hear("BYE")
        assert said in bye
        assert ("\r\nReason:" in bye) == bool(reason)
        called.answer(bye, 200)
        peer.send(peer.request("INVITE", call="c2", body=SDP))
        invite = called.hear("INVITE")
        called.answer(invite, 200, OPUS_SDP)
        called.hear("ACK")
        _, text = peer.final()
        peer.send(peer.request("ACK", call="c2", to=tag_of(text)))
        called.request(invite, "BYE", 9, more=said)
        bye = peer.asked("BYE")
        assert said in bye
        assert ("\r\nReason:" in bye) == bool(reason)
        peer.answer(bye, 200)


@pytest.mark.parametrize("dtx", [False, True])
@pytest.mark.parametrize("form", ["opus", "PCMU"])
def test_who_is_put_on_hold_goes_on_getting_packets(stand_in, monkeypatch, form, dtx):
    monkeypatch.setattr(engine_module, "WATCH_SECONDS", 0.1)
    caller, listener = Media(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    listener.settimeout(1.0)
    port, rate = str(listener.getsockname()[1]), 48000 if form == "opus" else 8000
    answer = (OPUS_SDP if form == "opus" else SDP).replace("40002", port).replace("40000", port)
    heard = []

    def hear(count):
        for _ in range(count):
            packet = RtpPacket.parse(listener.recv(2000))
            heard.append((packet, time.monotonic()))

    with between(stand_in, forms=(OPUS, PCMU), dtx=dtx) as (peer, _, called):
        _, text, to = answered(peer, called, caller.offer(), answer)
        said = packets(speech(8000, 0.4))

        def speak(some):
            for packet in some:
                rtp = RtpPacket(0, 0, packet.sequence_number, packet.timestamp, 7, packet.payload)
                caller.caller.sendto(rtp.serialize(), media_port(text))
                time.sleep(0.02)

        speak(said[:10])
        peer.send(peer.request("INVITE", body=caller.offer("inactive"), to=to, number=2))
        assert peer.final()[0] == 200
        peer.send(peer.request("ACK", to=to, number=2))
        # Half a second is made up; what comes behind that is more than its last packets.
        end = time.monotonic() + 0.9
        while time.monotonic() < end:
            hear(1)
        hear(3)
        peer.send(peer.request("INVITE", body=caller.offer(), to=to, number=3))
        assert peer.final()[0] == 200
        peer.send(peer.request("ACK", to=to, number=3))
        speak(said[10:])
        hear(8)
        hang_up(peer, to, number=4)
        called.answer(called.hear("BYE"), 200)
    (first, began), (last, ended) = heard[0], heard[-1]
    numbers = [packet.sequence_number for packet, _ in heard]
    assert numbers == [(numbers[0] + index) % 2**16 for index in range(len(numbers))]
    # Timestamps say how much time has passed.
    passed = (last.timestamp - first.timestamp) % 2**32 / rate
    assert passed == pytest.approx(ended - began, abs=0.3)
    caller.close()
    listener.close()


# The called end answers in one codec and goes on in others, as an announcement and then a person;
# the last of them says whose sound is enhanced.
@pytest.mark.parametrize("status", [183, 200])
@pytest.mark.parametrize(
    ("codecs", "end"), [("PO", "opus"), ("OP", "PCMU"), ("POP", "PCMU"), ("OPO", "opus")]
)
def test_the_narrow_end_is_enhanced_whichever_that_is_by_now(stand_in, status, codecs, end):
    answers = [OPUS_SDP if codec == "O" else SDP for codec in codecs]
    with between(stand_in, calls=1, forms=(OPUS, PCMU)) as (peer, running, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        called.answer(invite, status, answers[0])
        if status == 183:
            while peer.hear()[0] < 183:
                pass
            called.answer(invite, 200, answers[1])
            answers.pop(1)
        final = peer.final()[1]
        peer.send(peer.request("ACK", to=tag_of(final)))
        for number, answer in enumerate(answers[1:], 7):
            called.request(invite, "INVITE", number, answer)
            called.hear("SIP/2.0 200")
            called.request(invite, "ACK", number)
        engine = running.engine

        (call,) = running.bridge.open_calls
        narrow = call.caller if end == "opus" else call.callee
        running.until(lambda: engine.lines == (narrow.line,) and narrow.line.path.stream.cutoff_hz)
        assert call.callee.media.form.name == end
        assert engine.batch.free == 0
        assert engine.taken == 1
        hang_up(peer, tag_of(final))
        called.answer(called.hear("BYE"), 200)


@pytest.mark.parametrize("first", [OPUS_SDP, OPUS_SDP.replace("opus", "GSM")])
@pytest.mark.parametrize("status", [181, 182, 183])
def test_of_several_announcements_the_newest_is_heard(stand_in, first, status):
    media, other = Media(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("127.0.0.1", 0))
    other.settimeout(5.0)
    second = OPUS_SDP.replace("40002", str(other.getsockname()[1]))
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=media.offer()))
        invite = called.hear("INVITE")
        there = media_port(invite)
        called.answer(invite, status, first, tag="a")
        while (early := peer.hear())[0] < 180:
            pass
        if first is OPUS_SDP:
            assert early[0] == 183
            assert len(media.say(there, 12)) >= 8
        called.answer(invite, status, second, tag="b")
        if first is not OPUS_SDP:
            assert early[0] == 180
            early = peer.hear()
            assert early[0] == 183
        # The caller's sound goes to the second server as well, as keys would.
        for packet in packets(speech(8000, 0.2)):
            rtp = RtpPacket(0, 0, packet.sequence_number, packet.timestamp, 7, packet.payload)
            media.caller.sendto(rtp.serialize(), media_port(early[1]))
            time.sleep(0.02)
        assert RtpPacket.parse(other.recv(2000)).payload_type == 96
        assert len(media.say(there, 12, other)) >= 8
        called.answer(invite, 200, second, tag="b")
        status, text = peer.final()
        assert status == 200
        hang_up(peer, tag_of(text))
        called.answer(called.hear("BYE"), 200)
    media.close()
    other.close()


def test_a_description_that_cannot_be_read_is_refused_on_both_ends(stand_in):
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        called.answer(invite, 183, "v=0\r\nm=audio x\r\n")
        while (early := peer.hear())[0] < 180:
            pass
        assert early[0] == 180
        called.answer(invite, 200, "v=0\r\nm=audio x\r\n")
        called.hear("ACK")
        called.answer(called.hear("BYE"), 200)
        assert peer.final()[0] == 488


def test_who_was_refused_may_call_again_under_the_same_name(stand_in, monkeypatch):
    monkeypatch.setattr(agent_module, "TIMER_H", 0.3)
    with between(stand_in, calls=1) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP.replace("PCMU", "GSM").replace(" 0 ", " 3 ")))
        status, _ = peer.final()
        assert status == 488
        _, _, to = answered(peer, called)
        time.sleep(0.5)
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 200)


def test_an_early_description_that_does_not_fit_is_ringing(stand_in):
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        called.answer(invite, 183, OPUS_SDP.replace("opus", "GSM"))
        while (early := peer.hear())[0] < 180:
            pass
        assert early[0] == 180
        called.answer(invite, 200, OPUS_SDP)
        status, text = peer.final()
        assert status == 200
        hang_up(peer, tag_of(text))
        called.answer(called.hear("BYE"), 200)


def test_who_gives_up_during_an_announcement_frees_the_place(stand_in):
    with between(stand_in) as (peer, running, called):
        peer.send(peer.request("INVITE", body=SDP, branch="z9hG4bKearly"))
        invite = called.hear("INVITE")
        called.answer(invite, 183, OPUS_SDP)
        running.until(lambda: running.engine.calls == 1)
        peer.send(peer.request("CANCEL", branch="z9hG4bKearly"))
        called.answer(called.hear("CANCEL"), 200)
        called.answer(invite, 487)
        called.hear("ACK")
        assert running.engine.calls == 0


@pytest.mark.parametrize(
    ("user", "auth", "shown"),
    [
        ("sip:+4930123@h", None, "<sip:+4930123@127.0.0.1>"),
        ("sip:h", None, "<sip:anonymous@127.0.0.1>"),
        ("sip:me@h", SipDigestAuth("account", "secret"), "<sip:account@127.0.0.1>"),
    ],
)
def test_who_calls_is_shown(stand_in, user, auth, shown):
    with between(stand_in, auth=auth) as (peer, _, called):
        invite = peer.request("INVITE", body=SDP, branch="z9hG4bKwho")
        peer.send(invite.replace(b"From: <sip:me@127.0.0.1>", f"From: <{user}>".encode()))
        called.answer(called.hear("INVITE"), 486)
        assert peer.final()[0] == 486
        assert shown in called.hear("ACK").split("From: ")[1].split("\r\n")[0]


def test_whose_reports_come_has_not_vanished(stand_in, monkeypatch):
    monkeypatch.setattr(engine_module, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(leg_module, "ANSWER_SECONDS", 0.5)
    media = Media()
    with between(stand_in) as (peer, running, called):
        _, text, _ = answered(peer, called, media.offer(more="a=rtcp-mux\r\n"))
        for _ in range(9):
            media.caller.sendto(bytes(RtcpRrPacket(5, [])), media_port(text))
            time.sleep(0.3)
            called.stay()
        assert running.engine.calls == 1
        called.answer(called.hear("BYE"), 200)
    media.close()


def key(stamp, duration, rtp_type):
    return RtpPacket(rtp_type, 1, stamp % 2**16, stamp, 9, struct.pack("!BBH", 5, 10, duration))


def test_keys_go_by_each_ends_own_number_and_clock_also_after_a_change(stand_in):
    media = Media()
    with between(stand_in) as (peer, _, called):
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("127.0.0.1", 0))
        other.settimeout(5.0)
        answer = OPUS_SDP.replace("40002", str(other.getsockname()[1]))
        invite, text, to = answered(peer, called, media.offer(), answer)
        there, here = media_port(invite), media_port(text)

        def heard(listener, kinds):
            while True:
                rtp = RtpPacket.parse(listener.recv(2000))
                if rtp.payload_type in kinds:
                    return rtp.payload_type, struct.unpack("!BBH", rtp.payload)[2]

        media.caller.settimeout(5.0)
        media.caller.sendto(key(1, 800, 101).serialize(), here)
        assert heard(other, {97, 101, 102}) == (101, 4800)
        other.sendto(key(2, 9600, 101).serialize(), there)
        assert heard(media.caller, {97, 101}) == (101, 1600)
        # The caller now calls keys 97.
        changed = media.offer().replace("101", "97")
        peer.send(peer.request("INVITE", body=changed, to=to, number=2))
        assert peer.final()[0] == 200
        peer.send(peer.request("ACK", to=to, number=2))
        media.caller.sendto(key(30000, 400, 97).serialize(), here)
        assert heard(other, {97, 101, 102}) == (101, 2400)
        other.sendto(key(30001, 9600, 101).serialize(), there)
        assert heard(media.caller, {97, 101}) == (97, 1600)
        hang_up(peer, to, number=3)
        called.answer(called.hear("BYE"), 200)
        other.close()
    media.close()


@pytest.mark.parametrize("number", [96, 111])
def test_an_end_that_answers_with_another_number_is_heard_under_both(stand_in, number):
    media = Media()
    with between(stand_in) as (peer, running, called):
        sound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sound.bind(("127.0.0.1", 0))
        answer = OPUS_SDP.replace("40002", str(sound.getsockname()[1]))
        answer = answer.replace("AVP 96 101", "AVP 111 112").replace("rtpmap:96", "rtpmap:111")
        answer = answer.replace("rtpmap:101", "rtpmap:112")
        invite, _, to = answered(peer, called, media.offer(), answer)
        media.caller.settimeout(5.0)
        for index in range(10):
            rtp = RtpPacket(number, 0, index, 960 * index, 7, bytes([0xF8, 1, 2, 3]))
            sound.sendto(rtp.serialize(), media_port(invite))
        # A key under our number has the clock that we have offered.
        kind = 101 if number == 96 else 112
        for stamp in (9600, 9600):
            sound.sendto(key(stamp, 4800, kind).serialize(), media_port(invite))
        while (rtp := RtpPacket.parse(media.caller.recv(2000))).payload_type != 101:
            pass
        assert struct.unpack("!BBH", rtp.payload)[2] == 800
        (call,) = running.bridge.open_calls
        assert call.callee.line.path.receiver.counts.malformed == 0
        assert call.callee.line.path.receiver.counts.received > 10
        assert call.callee.reports._reception is not None
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 200)
        sound.close()
    media.close()


def test_the_called_end_asks_for_our_proposal_pauses_and_keeps_the_session_alive(stand_in):
    with between(stand_in) as (peer, running, called):
        invite, _, to = answered(peer, called)
        called.request(invite, "INVITE", 5)
        proposal = called.hear("SIP/2.0 200")
        assert "a=rtpmap:96 opus/48000/2" in proposal
        # The answer is the called end's, not what the caller happens to acknowledge.
        peer.send(peer.request("ACK", to=to))
        other = OPUS_SDP.replace("40002", "40004").replace("AVP 96 101", "AVP 111 112")
        other = other.replace("rtpmap:96", "rtpmap:111").replace("rtpmap:101", "rtpmap:112")
        called.request(invite, "ACK", 5, other)
        (call,) = running.bridge.open_calls
        running.until(lambda: call.callee.socket._source.address == ("127.0.0.1", 40004))
        path = call.callee.line.path
        running.until(lambda: path.event_rates == {101: 48000, 112: 48000})
        assert set(path.receiver.formats) == {96, 101, 111, 112}
        called.request(invite, "UPDATE", 6)
        assert "m=audio" not in called.hear("SIP/2.0 200")
        called.request(invite, "UPDATE", 7, OPUS_SDP + "a=sendonly\r\n")
        assert "a=recvonly" in called.hear("SIP/2.0 200")
        assert running.engine.lines[0].path.sender.is_held
        # The address 0.0.0.0 says the same, and not where packets or reports go.
        old = OPUS_SDP.replace("IP4 127.0.0.1\r\nt=", "IP4 0.0.0.0\r\nt=")
        called.request(invite, "INVITE", 77, old)
        assert "a=recvonly" in called.hear("SIP/2.0 200")
        called.request(invite, "ACK", 77)
        assert call.callee.socket._source.address == ("127.0.0.1", 40002)
        # What cannot be is refused; the call goes on.
        called.request(invite, "UPDATE", 78, OPUS_SDP.replace("opus", "GSM"))
        called.hear("SIP/2.0 488")
        called.request(invite, "OPTIONS", 79)
        assert called.hear("SIP/2.0 200").split("\r\nTo: ")[1].split("\r\n")[0].count(";tag=") == 1
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 200)


def test_a_caller_who_proposes_nothing_is_asked(stand_in):
    media = Media()
    with between(stand_in) as (peer, running, called):
        peer.send(peer.request("INVITE"))
        invite = called.hear("INVITE")
        called.answer(invite, 183, OPUS_SDP)
        called.answer(invite, 200, OPUS_SDP)
        called.hear("ACK")
        status, text = peer.final()
        assert status == 200
        assert "RTP/AVP 0 8 9 96 101 102" in text
        to = tag_of(text)
        peer.send(peer.request("ACK", to=to, body=media.offer()))
        running.until(lambda: running.engine.calls == 1)
        (call,) = running.bridge.open_calls
        # What we have proposed may come, too.
        assert {0, 8, 9, 96, 101, 102} <= set(call.caller.line.path.receiver.formats)
        assert len(media.say(media_port(invite), 12)) >= 8
        # On hold, and back with an INVITE that asks what we propose.
        peer.send(peer.request("INVITE", body=media.offer("sendonly"), to=to, number=2))
        assert peer.final()[0] == 200
        peer.send(peer.request("ACK", to=to, number=2))
        assert media.say(media_port(invite), 5) == []
        peer.send(peer.request("INVITE", to=to, number=3))
        status, text = peer.final()
        assert status == 200
        assert "a=sendrecv" in text
        peer.send(peer.request("ACK", to=to, number=3, body=media.offer()))
        assert len(media.say(media_port(invite), 12)) >= 6
        hang_up(peer, to, number=4)
        called.answer(called.hear("BYE"), 200)
    media.close()


@pytest.mark.parametrize("answer", ["", SDP.replace("PCMU", "GSM"), "v=0\r\nm=audio x\r\n", None])
def test_a_caller_who_proposes_and_answers_nothing_is_hung_up(stand_in, monkeypatch, answer):
    monkeypatch.setattr(bridge_module, "ACK_SECONDS", 0.3)
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE"))
        called.answer(called.hear("INVITE"), 200, OPUS_SDP)
        called.hear("ACK")
        status, text = peer.final()
        assert status == 200
        to = tag_of(text)
        if answer is not None:
            peer.send(peer.request("ACK", to=to, body=answer))
        called.answer(called.hear("BYE"), 200)
        assert peer._socket.recv(65535).startswith(b"BYE")


def test_line_breaks_that_keep_an_address_alive_are_no_messages(running, peer, caplog, monkeypatch):
    # Programs that ran before may have taken this log for themselves.
    monkeypatch.setattr(logging.getLogger("rtsr.call"), "propagate", True)
    with caplog.at_level(logging.INFO, "rtsr"):
        for data in (b"\r\n\r\n", b"\0", b"\r\n"):
            peer.send(data)
        peer.send(peer.request("OPTIONS"))
        assert peer.final()[0] == 200
        assert "could not be read" not in caplog.text
        peer.send(b"no message")
        running.until(lambda: "could not be read" in caplog.text)


def test_line_breaks_in_a_stream_are_answered_and_lose_no_message(running, peer):
    with socket.create_connection(("127.0.0.1", running.port), 5.0) as stream:
        stream.sendall(b"\r\n\r\n")
        assert stream.recv(65535) == b"\r\n"
        stream.sendall(b"\r\n" + peer.request("OPTIONS").replace(b"/UDP", b"/TCP"))
        assert stream.recv(65535).startswith(b"SIP/2.0 200")


def test_a_call_that_ends_with_bye_before_it_is_answered_is_answered(stand_in):
    with between(stand_in) as (peer, _, called):
        invite, to = ring(peer, called)
        peer.send(peer.request("BYE", to=to, number=2))
        assert {peer.final()[0], peer.final()[0]} == {200, 487}
        called.answer(called.hear("CANCEL"), 200)
        called.answer(invite, 487)


def test_a_caller_who_never_acknowledges_is_hung_up(stand_in, monkeypatch):
    monkeypatch.setattr("aiosipua.transaction.T1", 0.1)
    monkeypatch.setattr("aiosipua.transaction.TIMER_H", 0.2)
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        called.answer(called.hear("INVITE"), 200, OPUS_SDP)
        assert peer.final()[0] == 200
        while not peer._socket.recv(65535).startswith(b"BYE"):
            pass
        called.answer(called.hear("BYE"), 200)


def test_a_body_of_another_kind_is_refused_and_its_name_goes_by_any_case(stand_in):
    with between(stand_in) as (peer, running, called):
        other, same = b"text/plain", b"Application/SDP; charset=utf-8"
        invite = peer.request("INVITE", body=SDP, call="c0")
        peer.send(invite.replace(b"application/sdp", other))
        status, text = peer.final()
        assert status == 415
        assert "Accept: application/sdp" in text
        peer.send(peer.request("INVITE", body=SDP).replace(b"application/sdp", same))
        called.answer(called.hear("INVITE"), 200, OPUS_SDP, kind=same.decode())
        called.hear("ACK")
        status, text = peer.final()
        assert status == 200
        to = tag_of(text)
        peer.send(peer.request("ACK", to=to))
        held = SDP.replace("sendrecv", "sendonly")
        for number, (method, kind, expected, direction) in enumerate(
            [
                ("INVITE", other, 415, ""),
                ("UPDATE", other, 415, ""),
                ("INVITE", same, 200, "a=recvonly"),
                ("UPDATE", same, 200, "a=recvonly"),
            ],
            2,
        ):
            change = peer.request(method, body=held, to=to, number=number)
            peer.send(change.replace(b"application/sdp", kind))
            status, text = peer.final()
            assert status == expected
            assert direction in text
            if method == "INVITE":
                peer.send(peer.request("ACK", to=to, number=number))
        assert running.bridge.calls == 1
        hang_up(peer, to, number=9)
        called.answer(called.hear("BYE"), 200)


def test_an_announcement_that_fails_leaves_nothing_behind(stand_in, monkeypatch):
    async def fail(call, key):
        raise RtsrError("no place")

    monkeypatch.setattr(bridge_module._BridgedCall, "_connect_early", fail)
    with between(stand_in) as (peer, running, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        called.answer(invite, 183, OPUS_SDP)
        assert peer.final()[0] == 502
        called.answer(called.hear("CANCEL"), 200)
        called.answer(invite, 487)

        def waiting():
            tasks = asyncio.all_tasks(running.loop)
            return [task for task in tasks if "wait" in task.get_coro().__qualname__]

        running.until(lambda: len(waiting()) == 0)


@pytest.mark.parametrize(
    ("change", "direction"),
    [
        (("a=sendrecv", "a=sendrecv"), "sendrecv"),
        (("IP4 127.0.0.1\r\nt=", "IP4 0.0.0.0\r\nt="), "sendonly"),
        (("IP4 127.0.0.1\r\nt=", "IP4 127.0.0.1/16\r\nt="), "sendrecv"),
        (("a=sendrecv", "a=inactive"), "inactive"),
    ],
)
def test_which_ways_sound_goes(change, direction):
    assert read_offer(parse_sdp(SDP.replace(*change))).direction == direction


def test_a_name_in_place_of_an_address_is_not_looked_up():
    with pytest.raises(Unacceptable, match="not to names"):
        read_offer(parse_sdp(SDP.replace("IP4 127.0.0.1\r\nt=", "IP4 a.example\r\nt=")))


def test_an_address_on_another_machines_interface_is_none():
    local = SDP.replace("IP4 127.0.0.1\r\nt=", "IP6 fe80::1%0\r\nt=")
    with pytest.raises(Unacceptable, match="to addresses"):
        read_offer(parse_sdp(local))
    media = read_offer(parse_sdp(SDP + "a=rtcp:40005 IN IP6 fe80::1%0\r\n"))
    assert media.control == ("127.0.0.1", 40005)


@pytest.mark.parametrize(("taken", "expected"), [("96", (102, 48000)), ("0", (101, 8000))])
def test_keys_have_the_clock_of_the_codec_that_was_taken(taken, expected):
    text = (
        f"{SDP.partition('m=')[0]}m=audio 4000 RTP/AVP {taken} 101 102\r\n"
        "a=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n"
        "a=rtpmap:102 telephone-event/48000\r\n"
    )
    media = read_answer(parse_sdp(text), None, None)
    assert (media.event_type, media.event_rate) == expected


@pytest.mark.parametrize("rate", ["-8000", "0", "999999999"])
def test_keys_whose_clock_cannot_be_are_left_aside_or_go_at_8000_hz(rate):
    media = read_offer(parse_sdp(SDP.replace("telephone-event/8000", f"telephone-event/{rate}")))
    assert media.event_rate == 8000
    assert (media.event_type is None) is (rate != "0")


def test_the_same_description_again_keeps_the_address_that_packets_come_from():
    async def run():
        def take(packet):
            taken.append(packet)

        taken = []
        ours = await MediaSocket.open("127.0.0.1", take, ReportWriter(FarReports()))
        behind = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        behind.bind(("127.0.0.1", 0))
        behind.settimeout(2.0)
        said = ("192.0.2.9", 4000)
        ours.set_peer(said, None, None, None)
        for packet in packets(speech(8000, 0.1))[:4]:
            rtp = RtpPacket(0, 0, packet.sequence_number, packet.timestamp, 5, packet.payload)
            behind.sendto(rtp.serialize(), ours.address)
        while not taken:
            await asyncio.sleep(0.01)
        ours.set_peer(said, None, None, None)
        ours.send(packet)
        assert RtpPacket.parse(behind.recv(2000)).payload == packet.payload
        ours.close()
        behind.close()

    asyncio.run(run())

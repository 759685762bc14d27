"""Requests within a call: which belong to it, and what they may change."""

from __future__ import annotations

import base64
import contextlib
import socket

import pytest

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from sip_ends import OPUS_SDP, SDP, Stream, answered, between, hang_up, tag_of


@contextlib.contextmanager
def over_tcp(running):
    """What asks over a TCP connection of its own; the first line of the final answer there."""
    way = Stream(socket.create_connection(("127.0.0.1", running.port), 5.0))

    def ask(request, is_answered=True):
        way.sendto(request.replace(b"/UDP", b"/TCP"), None)
        while is_answered:
            line = way.recv(0).decode().split("\r\n")[0]
            if not line.startswith("SIP/2.0 1"):
                return line
        return ""

    way.settimeout(5.0)
    yield ask
    way.close()


def test_a_call_that_is_encrypted_stays_so(stand_in):
    key = base64.b64encode(bytes(range(30))).decode()
    line = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n"
    secure = OPUS_SDP.replace("RTP/AVP", "RTP/SAVP") + line
    with between(stand_in, secure=True) as (peer, running, called):
        invite, _, to = answered(peer, called, answer=secure)
        (bridged,) = running.bridge.open_calls
        called.request(invite, "INVITE", 1, body=OPUS_SDP)
        assert "SIP/2.0 488 " in called.hear("SIP")
        assert bridged.callee.socket._is_secure
        # The refusal is of that change alone.
        called.request(invite, "INVITE", 2, body=secure)
        assert "RTP/SAVP" in called.hear("SIP/2.0 200")
        hang_up(peer, to)


def test_what_is_too_long_for_udp_comes_over_tcp_and_belongs_to_the_call(stand_in):
    with between(stand_in) as (peer, running, called), over_tcp(running) as ask:
        invite, _, to = answered(peer, called)
        (bridged,) = running.bridge.open_calls
        moved = SDP.replace("40000", "40002") + f"a=x:{'y' * 1400}\r\n"
        change = peer.request("INVITE", body=moved, to=to, number=2)
        assert ask(change) == "SIP/2.0 200 OK"
        ask(peer.request("ACK", to=to, number=2), is_answered=False)
        assert bridged.caller.media.address == ("127.0.0.1", 40002)
        # That of another call is refused, and so is the call itself by another way.
        change = peer.request("INVITE", body=moved, to=";tag=other", number=3)
        assert ask(change) == "SIP/2.0 481 Call/Transaction Does Not Exist"
        assert ask(peer.request("INVITE", body=SDP)) == "SIP/2.0 482 Loop Detected"
        for method in ("OPTIONS", "UPDATE"):
            number = 4 if method == "OPTIONS" else 5
            assert ask(peer.request(method, to=to, number=number)) == "SIP/2.0 200 OK"
        # The caller is reached as before.
        called.request(invite, "BYE", 1)
        assert "SIP/2.0 200" in called.hear("SIP")
        peer.answer(peer.asked("BYE"), 200)


class _Said:
    """Keeps what would be sent."""

    def sendto(self, data, address):
        self.data = data


def test_either_end_hangs_up_over_tcp(stand_in):
    with between(stand_in) as (peer, running, called), over_tcp(running) as ask:
        _, _, to = answered(peer, called)
        assert ask(peer.request("BYE", to=to, number=2)) == "SIP/2.0 200 OK"
        called.answer(called.hear("BYE"), 200)
    with between(stand_in) as (peer, running, called), over_tcp(running) as ask:
        invite, _, to = answered(peer, called)
        own, called._socket = called._socket, _Said()
        called.request(invite, "BYE", 1)
        said, called._socket = called._socket.data, own
        assert ask(said) == "SIP/2.0 200 OK"
        peer.answer(peer.asked("BYE"), 200)


def test_a_call_that_is_given_up_behind_its_answer_goes_on(stand_in):
    with between(stand_in) as (peer, running, called):
        peer.send(peer.request("INVITE", body=SDP, branch="z9hG4bKlate"))
        called.answer(called.hear("INVITE"), 200, OPUS_SDP)
        called.hear("ACK")
        status, text = peer.final()
        assert status == 200
        peer.send(peer.request("CANCEL", branch="z9hG4bKlate"))
        status, said = peer.final()
        assert (status, "CSeq: 1 CANCEL" in said) == (200, True)
        with pytest.raises(TimeoutError):
            called.hear("BYE", 0.5)
        assert running.bridge.calls == 1
        hang_up(peer, tag_of(text))
        called.answer(called.hear("BYE"), 200)


def test_a_refusal_stays_when_the_call_is_given_up_behind_it(running, peer):
    peer.acknowledges = False
    invite = peer.request("INVITE", body=SDP, branch="z9hG4bKno")
    peer.send(invite.replace(b"Max-Forwards: 70", b"Max-Forwards: 0"))
    assert peer.final()[0] == 483
    peer.send(peer.request("CANCEL", branch="z9hG4bKno"))
    heard = {peer.final()[0] for _ in range(3)}
    peer.acknowledges = True
    assert peer.final()[0] == 483
    # The refusal is said again until it is acknowledged, and the CANCEL itself is answered.
    assert heard == {200, 483}


def test_a_late_copy_of_an_older_acknowledgement_says_nothing_of_a_newer_answer(stand_in):
    with between(stand_in) as (peer, running, called):
        _, _, to = answered(peer, called)
        (bridged,) = running.bridge.open_calls
        for number, port, late in ((2, 41000, 1), (3, 41002, 2)):
            # It asks for what we propose; its answer is in the ACK.
            peer.send(peer.request("INVITE", to=to, number=number))
            assert peer.final()[0] == 200
            moved = SDP.replace("40000", str(port))
            peer.send(peer.request("ACK", to=to, number=late, body=SDP.replace("40000", "40008")))
            # Until its own comes, the answer is said again.
            assert peer.final()[0] == 200
            peer.send(peer.request("ACK", to=to, number=number, body=moved))
            running.until(lambda there=port: bridged.caller.media.address[1] == there)
        hang_up(peer, to, number=4)
        called.answer(called.hear("BYE"), 200)

"""Whether the ends of a SIP call are still there: session timers, silence, late answers."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from sip_ends import OPUS_SDP, SDP, answered, between, hang_up, ring, set_up, tag_of

pytest.importorskip("aiosipua")

from aiosipua import SipDigestAuth

from rtsr import listening
from rtsr.call import engine as engine_module
from rtsr.call.sip import leg as leg_module
from rtsr.call.sip import tcp

pytestmark = pytest.mark.clocked


def origin(text):
    """The line of a description that says which version of it this is."""
    return text.split("\r\no=")[1].split("\r\n")[0]


TIMER = "Supported: timer\r\nSession-Expires: {}\r\n"


def call(peer, called, asked="", said=""):
    """A call with a session timer on either leg; the caller's answer and the tag of the bridge."""
    return answered(peer, called, asked=asked, said=said)[1:]


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (TIMER.format(60), 422, "Min-Se: 90\r\n"),
        (TIMER.format(1800), 200, "Session-Expires: 1800;refresher=uac\r\n"),
        (TIMER.format("1800;refresher=uas"), 200, "Session-Expires: 1800;refresher=uas\r\n"),
        # A proxy asks for a caller who does not know such timers: the rest is ours.
        ("x: 1800\r\n", 200, "Session-Expires: 1800;refresher=uas\r\n"),
        (TIMER.format("9" * 5000), 200, ""),
        (TIMER.format("soon"), 200, ""),
    ],
)
def test_how_long_a_callers_session_is(running, peer, asked, status, said):
    peer.send(peer.request("INVITE", body=SDP, more=asked))
    got, text = peer.final()
    assert got == status
    assert said in text if said else "Session-Expires" not in text
    peer.send(peer.request("ACK", to=tag_of(text)))
    if status == 200:
        assert ("Require: timer" in text) is (said != "" and "Supported" in asked)
        hang_up(peer, tag_of(text))


def test_a_session_that_nobody_refreshes_is_over(stand_in, short):
    with between(stand_in) as (peer, running, called):
        _, to = call(peer, called, TIMER.format("3;refresher=uac"))
        time.sleep(1.2)
        peer.send(peer.request("UPDATE", to=to, number=2, more=TIMER.format("3;refresher=uac")))
        status, text = peer.final()
        assert (status, "Session-Expires: 3;refresher=uac" in text) == (200, True)
        time.sleep(1.2)
        change = peer.request("INVITE", body=SDP, to=to, number=3, more=TIMER.format("3"))
        peer.send(change)
        status, text = peer.final()
        assert (status, "Session-Expires: 3;refresher=uac" in text) == (200, True)
        peer.send(peer.request("ACK", to=to, number=3))
        peer.send(peer.request("UPDATE", to=to, number=4, more=TIMER.format("1")))
        status, text = peer.final()
        assert (status, "Min-Se: 2" in text) == (422, True)
        time.sleep(1.0)
        assert running.bridge.calls == 1
        peer.answer(peer.asked("BYE"), 200)
        called.answer(called.hear("BYE"), 200)


def test_we_refresh_a_callers_session_by_what_it_takes(stand_in, short):
    with between(stand_in) as (peer, running, called):
        text, to = call(peer, called, TIMER.format("2;refresher=uas"))
        update = peer.asked("UPDATE")
        assert "Session-Expires: 2;refresher=uac\r\n" in update
        peer.answer(update, 405)
        # The other way; its description is the one before.
        invite = peer.asked("INVITE")
        assert origin(invite) == origin(text)
        # What comes from there meanwhile waits (RFC 3261, 14.2).
        peer.send(peer.request("INVITE", body=SDP, to=to, number=2))
        assert peer.final()[0] == 491
        peer.answer(invite, 422, more="Min-SE: 3\r\n")
        invite = peer.asked("INVITE")
        assert "Session-Expires: 3;refresher=uac\r\nMin-Se: 3\r\n" in invite
        moved = SDP.replace("40000", "40002")
        for _ in range(2):
            peer.answer(invite, 200, moved, "Session-Expires: 3;refresher=uac\r\n")
            assert (
                peer.asked("ACK").split("CSeq: ")[1].split()[0]
                == (invite.split("CSeq: ")[1].split()[0])
            )
        (bridged,) = running.bridge.open_calls
        assert bridged.caller.media.address == ("127.0.0.1", 40002)
        peer.answer(peer.asked("INVITE"), 491)
        hang_up(peer, to, number=3)
        called.answer(called.hear("BYE"), 200)


def test_we_refresh_the_called_ends_session_until_it_knows_the_call_no_more(stand_in, short):
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        assert "\r\nSupported: timer\r\n" in invite
        assert "Session-Expires: 1800\r\n" in invite
        called.answer(invite, 422, more="Min-SE: 2000\r\n")
        while "Session-Expires: 2000\r\n" not in (invite := called.hear("INVITE")):
            pass
        assert "\r\nSupported: timer\r\n" in invite
        called.answer(invite, 200, OPUS_SDP, "Allow: INVITE, ACK, BYE\r\nSession-Expires: 2\r\n")
        called.hear("ACK")
        status, text = peer.final()
        assert status == 200
        peer.send(peer.request("ACK", to=tag_of(text)))
        # It takes no UPDATE.
        again = called.hear("INVITE")
        assert origin(again) == origin(invite)
        called.answer(again, 200, OPUS_SDP, "Session-Expires: 2;refresher=uac\r\n")
        called.hear("ACK")
        called.answer(called.hear("INVITE"), 481)
        peer.answer(peer.asked("BYE"), 200)
        called.answer(called.hear("BYE"), 481)


def test_who_asks_for_the_password_within_a_call_gets_it(stand_in, short):
    with between(stand_in, auth=SipDigestAuth("me", "secret")) as (peer, _, called):
        to = call(peer, called, said="Session-Expires: 2\r\n")[1]
        update = called.hear("UPDATE")
        assert "Authorization" not in update
        challenge = 'WWW-Authenticate: Digest realm="there", nonce="{}"\r\n'
        called.answer(update, 401, more=challenge.format(1))
        update = called.hear("UPDATE")
        assert 'Authorization: Digest username="me"' in update
        assert "Session-Expires: 2;refresher=uac\r\n" in update
        called.answer(update, 200, more="Allow: INVITE\r\nSession-Expires: 2;refresher=uac\r\n")
        called.answer(called.hear("UPDATE"), 405)
        invite = called.hear("INVITE")
        called.answer(invite, 401, more=challenge.format(2))
        called.hear("ACK")
        again = called.hear("INVITE")
        assert 'Authorization: Digest username="me"' in again
        assert origin(again) == origin(invite)
        called.answer(again, 200, OPUS_SDP, "Session-Expires: 1800;refresher=uas\r\n")
        called.hear("ACK")
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 407, more=challenge.format(3).replace("WWW", "Proxy"))
        bye = called.hear("BYE")
        while "Proxy-Authorization" not in bye:
            bye = called.hear("BYE")
        # Who is not content with it is not asked for ever.
        called.answer(bye, 407, more=challenge.format(4).replace("WWW", "Proxy"))
        with pytest.raises(TimeoutError):
            called.hear("BYE", 0.3)


def test_a_refresh_that_is_refused_is_tried_again(stand_in, short):
    with between(stand_in) as (peer, _, called):
        to = call(peer, called, TIMER.format("4;refresher=uas"))[1]
        peer.answer(peer.asked("UPDATE"), 503)
        peer.answer(peer.asked("UPDATE", 1.5), 200, more="Session-Expires: 1800;refresher=uas\r\n")
        with pytest.raises(TimeoutError):
            peer.asked("BYE", 1.5)
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 200)


def test_who_asks_within_a_call_hears_whether_it_is_still_on(running, peer):
    _, _, to = set_up(peer)

    def asked(number, to):
        peer.send(peer.request("OPTIONS", to=to, number=number))
        return peer.final()[0]

    assert asked(2, to) == 200
    assert asked(3, ";tag=another") == 481
    assert asked(2, to) == 500
    hang_up(peer, to, number=4)
    assert asked(5, to) == 481
    assert asked(6, "") == 200


@pytest.fixture
def impatient(monkeypatch):
    """Who is silent for 0.2 s is asked whether it is there."""
    monkeypatch.setattr(engine_module, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(engine_module, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(leg_module, "ANSWER_SECONDS", 0.8)


@pytest.mark.parametrize("stays", ["caller", "called"])
def test_either_end_that_vanishes_frees_the_call_the_other_may_be_silent(
    stand_in, impatient, stays
):
    with between(stand_in) as (peer, running, called):
        answered(peer, called)
        for _ in range(16):
            peer.stay()
            called.stay()
            time.sleep(0.1)
        assert running.bridge.calls == 1
        staying = peer if stays == "caller" else called
        hear = peer.asked if stays == "caller" else called.hear
        end = time.monotonic() + 4.0
        while running.bridge.calls and time.monotonic() < end:
            staying.stay()
            time.sleep(0.05)
        assert running.bridge.calls == 0
        staying.answer(hear("BYE"), 200)


def test_an_end_that_does_not_know_the_call_any_more_is_hung_up_at_once(
    stand_in, impatient, monkeypatch
):
    monkeypatch.setattr(leg_module, "ANSWER_SECONDS", 30.0)
    with between(stand_in) as (peer, _, called):
        answered(peer, called)
        peer.stay()
        # Who has too much to do does not say that.
        called.answer(called.hear("OPTIONS"), 503)
        called.answer(called.hear("OPTIONS"), 481)
        peer.answer(peer.asked("BYE"), 200)
        called.answer(called.hear("BYE"), 481)


def test_an_end_that_answers_and_is_silent_for_half_an_hour_is_hung_up(
    stand_in, impatient, monkeypatch
):
    monkeypatch.setattr(engine_module, "HELD_SECONDS", 1.5)
    with between(stand_in) as (peer, running, called):
        answered(peer, called)
        end = time.monotonic() + 4.0
        while running.bridge.calls and time.monotonic() < end:
            peer.stay()
            called.stay()
        assert running.bridge.calls == 0


def test_an_end_on_hold_is_asked_after_half_an_hour_and_may_stay_there(
    stand_in, impatient, monkeypatch
):
    monkeypatch.setattr(engine_module, "HELD_SECONDS", 0.6)
    with between(stand_in) as (peer, running, called):
        to = answered(peer, called, answer=OPUS_SDP + "a=sendonly\r\n")[2]
        peer.send(peer.request("INVITE", body=SDP.replace("sendrecv", "inactive"), to=to, number=2))
        assert peer.final()[0] == 200
        peer.send(peer.request("ACK", to=to, number=2))
        questions = 0
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            called.stay()
            with contextlib.suppress(TimeoutError):
                peer.answer(peer.asked("OPTIONS", 0.01), 200)
                questions += 1
        assert running.bridge.calls == 1
        assert 2 <= questions <= 4
        end = time.monotonic() + 4.0
        while running.bridge.calls and time.monotonic() < end:
            called.stay()
        assert running.bridge.calls == 0


def test_a_second_telephone_that_answers_is_hung_up_and_the_first_has_the_call(stand_in):
    with between(stand_in) as (peer, running, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        called.answer(invite, 200, OPUS_SDP, tag="first")
        assert tag_of(called.hear("ACK")) == ";tag=first"
        status, text = peer.final()
        assert status == 200
        to = tag_of(text)
        peer.send(peer.request("ACK", to=to))
        for _ in range(2):
            called.answer(invite, 200, OPUS_SDP, tag="second")
            assert tag_of(called.hear("ACK")) == ";tag=second"
        bye = called.hear("BYE")
        assert tag_of(bye) == ";tag=second"
        called.answer(bye, 200)
        assert called.heard_nothing_but("BYE", 0.6)
        assert running.bridge.calls == 1
        # A copy of the answer that counts is acknowledged.
        called.answer(invite, 200, OPUS_SDP, tag="first")
        assert tag_of(called.hear("ACK")) == ";tag=first"
        hang_up(peer, to)
        bye = called.hear("BYE")
        assert tag_of(bye) == ";tag=first"
        called.answer(bye, 200)
        # One more, that has rung until now.
        called.answer(invite, 200, OPUS_SDP, tag="third")
        assert tag_of(called.hear("ACK")) == ";tag=third"
        called.answer(called.hear("BYE"), 200)


def test_who_answers_after_we_stopped_waiting_is_hung_up(stand_in):
    with between(stand_in, ring_seconds=1.0) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP))
        invite = called.hear("INVITE")
        assert peer.final()[0] == 480
        called.answer(invite, 200, OPUS_SDP)
        called.hear("ACK")
        called.answer(called.hear("BYE"), 200)


def test_a_change_before_the_answer_is_asked_to_come_later(stand_in):
    with between(stand_in) as (peer, _, called):
        invite, to = ring(peer, called)
        peer.send(peer.request("INVITE", body=SDP, to=to, number=2))
        status, text = peer.final()
        assert status == 500
        assert 0 <= int(text.split("Retry-After: ")[1].split()[0]) <= 10
        peer.send(peer.request("ACK", to=to, number=2))
        called.answer(invite, 200, OPUS_SDP)
        assert peer.final()[0] == 200
        hang_up(peer, to, number=3)
        called.answer(called.hear("BYE"), 200)


def is_closed(stream, seconds):
    """Whether the bridge closes a connection within so long."""
    stream.settimeout(seconds)
    try:
        return stream.recv(65535) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def over_tcp(stream, message):
    """Send a message over a connection; the answer's first line."""
    stream.settimeout(5.0)
    stream.sendall(message.replace(b"/UDP", b"/TCP"))
    return stream.recv(65535).decode().split("\r\n")[0]


def test_connections_that_bring_no_message_are_closed_those_of_calls_are_not(stand_in, monkeypatch):
    monkeypatch.setattr(tcp, "FIRST_MESSAGE_SECONDS", 0.3)
    monkeypatch.setattr(tcp, "IDLE_SECONDS", 0.6)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.1)
    with between(stand_in) as (peer, running, called):

        def connected():
            return socket.create_connection(("127.0.0.1", running.port), 5.0)

        with connected() as mute, connected() as half, connected() as idle, connected() as busy:
            half.sendall(b"INVITE sip:x@127.0.0.1 SIP/2.0\r\n")
            assert over_tcp(idle, peer.request("OPTIONS")) == "SIP/2.0 200 OK"
            busy.sendall(peer.request("INVITE", body=SDP).replace(b"/UDP", b"/TCP"))
            invite = called.hear("INVITE")
            called.answer(invite, 200, OPUS_SDP)
            called.hear("ACK")
            text = ""
            while "SIP/2.0 200" not in text:
                text += busy.recv(65535).decode()
            assert is_closed(mute, 1.0)
            assert is_closed(half, 1.0)
            assert is_closed(idle, 1.0)
            time.sleep(1.0)
            to = tag_of(text[text.index("SIP/2.0 200") :])
            bye = peer.request("BYE", to=to, number=2)
            assert over_tcp(busy, bye) == "SIP/2.0 200 OK"
            called.answer(called.hear("BYE"), 200)


def test_connections_are_limited_and_the_one_idle_for_longest_makes_room(
    running, peer, monkeypatch
):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 2)
    streams = []
    for _ in range(4):
        streams.append(socket.create_connection(("127.0.0.1", running.port), 5.0))
        assert over_tcp(streams[-1], peer.request("OPTIONS")) == "SIP/2.0 200 OK"
    assert is_closed(streams[0], 1.0)
    assert is_closed(streams[1], 1.0)
    assert over_tcp(streams[2], peer.request("OPTIONS")) == "SIP/2.0 200 OK"
    # Calls that are refused keep no connection open.
    for name, stream in zip("de", streams[2:], strict=True):
        refused = peer.request("INVITE", call=name, more="Require: precondition\r\n")
        stream.sendall(refused.replace(b"/UDP", b"/TCP"))
        text = ""
        while "SIP/2.0 420" not in text:
            text += stream.recv(65535).decode()
    streams.append(socket.create_connection(("127.0.0.1", running.port), 5.0))
    assert over_tcp(streams[4], peer.request("OPTIONS")) == "SIP/2.0 200 OK"
    assert is_closed(streams[2], 1.0)
    monkeypatch.setattr(running.bridge.agent.tcp.transport, "carries_call", lambda address: True)
    with socket.create_connection(("127.0.0.1", running.port), 5.0) as refused:
        assert is_closed(refused, 1.0)
    assert over_tcp(streams[3], peer.request("OPTIONS")) == "SIP/2.0 200 OK"
    for stream in streams:
        stream.close()


def test_who_has_left_answers_unread_keeps_no_connection_open(stand_in, monkeypatch):
    monkeypatch.setattr(tcp, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.1)
    monkeypatch.setattr(tcp, "MOST_UNREAD_BYTES", 1 << 30)
    with between(stand_in) as (peer, running, _), socket.socket() as stream:
        request = peer.request("OPTIONS").replace(b"/UDP", b"/TCP")
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.connect(("127.0.0.1", running.port))
        stream.sendall(request)
        accepted = running.bridge.agent.tcp.transport._open
        running.until(lambda: accepted)
        (connected,) = accepted
        connection = connected.writer.transport
        buffer = connection.get_extra_info("socket")
        buffer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        # More than what the system takes on its way.
        while connection.get_write_buffer_size() < 1 << 17:
            stream.sendall(100 * request)
            time.sleep(0.02)
        running.until(lambda: not connection.get_write_buffer_size())


def test_who_asks_without_reading_the_answers_is_cut_off(running, peer, monkeypatch):
    monkeypatch.setattr(tcp, "MOST_UNREAD_BYTES", 1 << 16)
    requests = 100 * peer.request("OPTIONS").replace(b"/UDP", b"/TCP")
    with socket.socket() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.settimeout(5.0)
        stream.connect(("127.0.0.1", running.port))

        def ask_on():
            for _ in range(1000):
                stream.sendall(requests)

        with pytest.raises(ConnectionError):
            ask_on()

"""SIP transactions: what is said again, for how long, and what is remembered."""

from __future__ import annotations

import asyncio

import pytest
from sip_ends import SDP, Peer, acknowledgement, between

pytest.importorskip("aiosipua")

from aiosipua import SipMessage, SipResponse

from rtsr.call.sip import transactions
from rtsr.call.sip.transactions import Transactions


class Transport:
    """Notes what is written."""

    reliable = False
    on_message = None

    def __init__(self):
        self.written = []

    def write(self, data, to):
        self.written.append(data)


class ReliableTransport(Transport):
    reliable = True


def request(method="INVITE", branch="b1", number=1, more=""):
    return SipMessage.parse(
        f"{method} sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch={branch}\r\n"
        f"From: <sip:a@b>;tag=1\r\nTo: <sip:x@b>\r\nCall-ID: c\r\n"
        f"CSeq: {number} {method}\r\n{more}\r\n"
    )


def answer(asked, status):
    response = SipResponse(status_code=status, reason_phrase="Whatever")
    for name in ("Via", "From", "To", "Call-ID", "CSeq"):
        response.headers.append(name, asked.headers.get_first(name))
    return response


HERE = ("127.0.0.1", 9)


def said_again(monkeypatch, seconds, asked, status, transport=None, after=None):
    """How often an answer is said again within some quick seconds; 1 s takes 10 ms."""
    for name in ("_T1", "_T2", "_TIMEOUT"):
        monkeypatch.setattr(transactions, name, getattr(transactions, name) / 100)
    transport = transport or Transport()

    async def run():
        watched = Transactions(transport)
        assert watched.receive_request(asked, HERE)
        watched.answer(answer(asked, status), HERE)
        if after is not None:
            after(watched)
        await asyncio.sleep(seconds / 100)
        watched.close()
        count = len(transport.written)
        await asyncio.sleep(0.1)
        assert len(transport.written) == count
        return count

    return asyncio.run(run())


def test_a_refusal_is_said_again_until_there_can_be_no_answer(monkeypatch):
    # After 0.5, 1.5, 3.5, 7.5 s, and every 4 s up to 31.5 (RFC 3261, 17.2.1), later where busy.
    assert 5 <= said_again(monkeypatch, 100.0, request(), 486) <= 10


def test_a_refusal_that_is_acknowledged_is_not_said_again(monkeypatch):
    ack = request("ACK")
    after = lambda watched: watched.receive_request(ack, HERE)  # noqa: E731
    assert said_again(monkeypatch, 20.0, request(), 486, after=after) == 0


def test_another_calls_acknowledgement_does_not_count(monkeypatch):
    ack = request("ACK", branch="b2")
    after = lambda watched: watched.receive_request(ack, HERE)  # noqa: E731
    assert said_again(monkeypatch, 20.0, request(), 486, after=after) > 0


@pytest.mark.parametrize(
    ("method", "status", "transport"),
    [
        ("INVITE", 100, Transport()),
        ("INVITE", 180, Transport()),
        ("INVITE", 200, Transport()),
        ("BYE", 481, Transport()),
        ("INVITE", 486, ReliableTransport()),
    ],
)
def test_nothing_else_is_said_again(monkeypatch, method, status, transport):
    assert said_again(monkeypatch, 20.0, request(method), status, transport) == 0


def asked_again(monkeypatch, method, provisional, transport=None, seconds=50.0):
    """How often a request is said again after an answer before the final one, and what ends it."""
    for name in ("_T1", "_T2", "_TIMEOUT"):
        monkeypatch.setattr(transactions, name, getattr(transactions, name) / 100)
    transport, ends = transport or Transport(), []
    transport.on_message = lambda message, address: ends.append(message.status_code)

    async def run():
        watched = Transactions(transport)
        asked = request(method)
        watched.ask(asked, HERE, repeat=not transport.reliable)
        if provisional:
            watched.receive_response(answer(asked, provisional), HERE)
        await asyncio.sleep(seconds / 100)
        watched.close()

    asyncio.run(run())
    return len(transport.written), ends


def test_a_request_is_said_again_until_its_final_answer_less_often_after_a_first_one(monkeypatch):
    # After 0.5 s, then every 4 s up to 32 (RFC 3261, 17.1.2.2), later where busy. Without the first
    # one after 0.5, 1.5, 3.5, 7.5 s and so on.
    count, ends = asked_again(monkeypatch, "BYE", 100)
    assert 4 <= count <= 9
    assert ends == [408]


def test_a_request_over_a_connection_is_given_up_in_time_whatever_came_first(monkeypatch):
    assert asked_again(monkeypatch, "BYE", 100, ReliableTransport()) == (0, [408])


def test_a_call_that_was_heard_of_is_not_said_again(monkeypatch):
    assert asked_again(monkeypatch, "INVITE", 100) == (0, [])


def test_a_final_answer_after_a_first_one_ends_the_request(monkeypatch):
    transport = Transport()
    written = transport.written

    async def run():
        watched = Transactions(transport)
        asked = request("BYE")
        watched.ask(asked, HERE, repeat=True)
        watched.receive_response(answer(asked, 100), HERE)
        watched.receive_response(answer(asked, 200), HERE)
        await asyncio.sleep(0.1)
        watched.close()

    monkeypatch.setattr(transactions, "_T1", 0.02)
    asyncio.run(run())
    assert not written


def test_a_caller_who_has_not_heard_the_refusal_hears_it_again(running, peer):
    peer.acknowledges = False
    peer.send(peer.request("INVITE", body=SDP.replace("RTP/AVP 0", "RTP/AVP 3")))
    refusals = [peer.final()[1] for _ in range(2)]
    assert refusals[0] == refusals[1]
    assert refusals[0].startswith("SIP/2.0 488 ")
    peer.send(acknowledgement(refusals[0]))
    with pytest.raises(TimeoutError):
        peer.hear(1.5)


@pytest.mark.parametrize(
    "to",
    [
        '"a;tag=b" <sip:x@127.0.0.1>',
        '"a\\";tag=b" <sip:x@127.0.0.1;tag=c>',
        "Desk <sip:x@127.0.0.1;tag=c>;x=y",
        "<sip:x@127.0.0.1>",
        "sip:x@127.0.0.1",
    ],
)
def test_a_name_that_looks_like_a_tag_is_none(running, peer, to):
    plain, named = b"<sip:x@127.0.0.1>", to.encode()
    for method in ("OPTIONS", "INVITE"):
        body = SDP if method == "INVITE" else ""
        request = peer.request(method, body=body).replace(b"To: " + plain, b"To: " + named)
        peer.send(request)
        status, text = peer.final()
        assert status == 200
        answered = text.split("\r\nTo: ")[1].split("\r\n")[0]
        assert answered.startswith(f"{to};tag=")
        assert ";tag=" not in answered[len(to) + 5 :]
    tag = answered[len(to) :]
    peer.send(peer.request("ACK", to=tag).replace(b"To: " + plain, b"To: " + named))
    peer.send(peer.request("BYE", to=tag, number=2).replace(b"To: " + plain, b"To: " + named))
    assert peer.final()[0] == 200


def test_two_callers_who_choose_the_same_branch_both_hear_answers(running, peer):
    other = Peer(running.port)
    for each in (peer, other):
        each.send(each.request("OPTIONS", branch="z9hG4bKsame"))
    for each in (peer, other):
        status, text = each.hear()
        assert status == 200
        assert f"Call-ID: c1-{each.port}\r\n" in text
        with pytest.raises(TimeoutError):
            each.hear(0.2)
    other.close()


@pytest.mark.parametrize("gives_up", [0, 1])
def test_of_two_callers_who_choose_the_same_branch_one_gives_up(stand_in, gives_up):
    with between(stand_in) as (peer, running, called):
        callers, invites = [peer, Peer(running.port)], []
        for each in callers:
            each.send(each.request("INVITE", body=SDP, branch="z9hG4bKsame"))
            invites.append(called.hear("INVITE"))
            called.answer(invites[-1], 180)
        callers[gives_up].send(callers[gives_up].request("CANCEL", branch="z9hG4bKsame"))
        cancel = called.hear("CANCEL")
        call_id = invites[gives_up].split("Call-ID: ")[1].split("\r\n")[0]
        assert f"Call-ID: {call_id}\r\n" in cancel
        called.answer(cancel, 200)
        called.answer(invites[gives_up], 487)
        # The CANCEL has an answer of its own.
        assert {callers[gives_up].final()[0] for _ in range(2)} == {200, 487}
        called.answer(invites[1 - gives_up], 486)
        assert callers[1 - gives_up].final()[0] == 486
        callers[1].close()


def test_who_does_not_know_the_branch_gives_no_call_up(stand_in):
    with between(stand_in) as (peer, _, called):
        peer.send(peer.request("INVITE", body=SDP, branch="z9hG4bKmine"))
        invite = called.hear("INVITE")
        peer.send(peer.request("CANCEL", branch="z9hG4bKguessed"))
        assert peer.final()[0] == 481
        called.answer(invite, 486)
        assert peer.final()[0] == 486


def test_the_oldest_transactions_are_forgotten(monkeypatch):
    monkeypatch.setattr(transactions, "MOST_REMEMBERED", 10)
    transport = Transport()

    async def run():
        watched = Transactions(transport)
        requests = [request("OPTIONS", branch=f"b{number}") for number in range(40)]
        for each in requests:
            assert watched.receive_request(each, HERE)
            watched.answer(answer(each, 200), HERE)
        assert len(watched._answered) <= 10
        # A copy of a new one gets its answer again; one of the oldest is new.
        assert not watched.receive_request(requests[-1], HERE)
        assert len(transport.written) == 1
        assert watched.receive_request(requests[0], HERE)
        watched.close()

    asyncio.run(run())


@pytest.mark.parametrize("what", ["proxies", "answer"])
def test_the_oldest_of_long_transactions_are_forgotten(monkeypatch, what):
    monkeypatch.setattr(transactions, "MOST_REMEMBERED_BYTES", 100_000)
    transport = Transport()

    async def run():
        watched = Transactions(transport)
        proxies = f"Record-Route: <sip:{'p' * 10_000}>\r\n" if what == "proxies" else ""
        requests = [request("INVITE", branch=f"b{number}", more=proxies) for number in range(40)]
        for each in requests:
            assert watched.receive_request(each, HERE)
            response = answer(each, 200)
            response.body = b"a" * 10_000 if what == "answer" else b""
            watched.answer(response, HERE)
        kept = list(watched._answered.values())
        assert 4 <= len(kept) <= 11
        assert sum(known.size for known in kept) == watched._answered_bytes <= 120_000
        assert not watched.receive_request(requests[-1], HERE)
        assert watched.receive_request(requests[0], HERE)
        watched.close()

    asyncio.run(run())


def test_proxies_of_what_sets_no_call_up_are_not_kept():
    async def run():
        watched = Transactions(Transport())
        watched.receive_request(request("OPTIONS", more="Record-Route: <sip:p>\r\n"), HERE)
        assert [known.proxies for known in watched._answered.values()] == [[]]

    asyncio.run(run())


def test_a_refusal_that_is_forgotten_is_not_said_again(monkeypatch):
    monkeypatch.setattr(transactions, "MOST_REMEMBERED", 10)
    after = lambda watched: [  # noqa: E731
        watched.receive_request(request("OPTIONS", branch=f"o{number}"), HERE)
        for number in range(40)
    ]
    assert said_again(monkeypatch, 20.0, request(), 486, after=after) == 0


def test_what_we_have_asked_and_was_answered_is_forgotten(monkeypatch):
    monkeypatch.setattr(transactions, "MOST_REMEMBERED", 10)

    async def run():
        watched = Transactions(Transport())
        waiting = request("OPTIONS", branch="waits")
        watched.ask(waiting, HERE, repeat=False)
        for number in range(40):
            asked = request("OPTIONS", branch=f"b{number}")
            watched.ask(asked, HERE, repeat=False)
            watched.receive_response(answer(asked, 200), HERE)
        assert len(watched._asked) <= 12
        # What still waits stays, however old it is.
        assert any(known.request is waiting for known in watched._asked.values())
        watched.close()

    asyncio.run(run())


def test_a_second_refusal_takes_the_place_of_the_first(monkeypatch):
    asked = request()

    def after(watched):
        watched.answer(answer(asked, 487), HERE)
        watched.receive_request(request("ACK"), HERE)

    assert said_again(monkeypatch, 20.0, asked, 486, after=after) == 0

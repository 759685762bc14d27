"""What a request needs and we have not is refused before anything else (RFC 3261, 8.2)."""

from __future__ import annotations

import pytest

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from sip_ends import SDP, hang_up, set_up

REQUIRED = "Require: timer,foo\r\nRequire: bar\r\n"
ZIPPED = "Content-Encoding: gzip\r\n"


@pytest.mark.parametrize(
    ("method", "change", "more", "status", "said"),
    [
        ("INVITE", (b"sip:x@127.0.0.1 SIP", b"http://x SIP"), "", 416, ""),
        ("INVITE", (b"sip:x@127.0.0.1 SIP", b"tel:+49123 SIP"), "", 200, ""),
        ("INVITE", None, REQUIRED, 420, "Unsupported: bar, foo\r\n"),
        ("INVITE", None, "Require: Timer, 100rel\r\n", 200, ""),
        ("OPTIONS", None, REQUIRED, 420, "Unsupported: bar, foo\r\n"),
        ("INVITE", None, ZIPPED, 415, "Accept-Encoding: identity\r\n"),
        ("INVITE", None, "Content-Encoding: identity\r\n", 200, ""),
        ("OPTIONS", None, ZIPPED, 200, ""),
        ("OPTIONS", (b"1 OPTIONS", b"1 INVITE"), "", 400, ""),
        ("OPTIONS", (b"127.0.0.1 SIP/2.0", b"127.0.0.1 SIP/7.0"), "", 505, ""),
        ("OPTIONS", (b"127.0.0.1 SIP/2.0", b"127.0.0.1 sip/2.0"), "", 200, ""),
        # What is not done at all is told before what it requires.
        ("PUBLISH", None, REQUIRED, 405, ""),
    ],
)
def test_what_a_request_needs(running, peer, method, change, more, status, said):
    body = SDP if method == "INVITE" else ""
    request = peer.request(method, body=body, more=more)
    if change is not None:
        assert change[0] in request
        request = request.replace(*change)
    for _ in range(2):
        # A copy is answered alike.
        peer.send(request)
        got, text = peer.final()
        assert got == status
        assert said in text
    if method == "INVITE" and status == 200:
        hang_up(peer, ";tag=" + text.split("\r\nTo: ")[1].split(";tag=")[1].split("\r\n")[0])


def test_a_request_of_another_method_than_its_number_is_answered_once(running, peer):
    peer.send(peer.request("OPTIONS").replace(b"1 OPTIONS", b"1 INVITE"))
    assert peer.final()[0] == 400
    # As the refusal of an INVITE it would be said again.
    with pytest.raises(TimeoutError):
        peer.hear(1.0)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "BYE"])
def test_what_is_required_within_a_call_and_is_not_there_changes_nothing(running, peer, method):
    _, _, to = set_up(peer)
    peer.send(peer.request("ACK", to=to))
    body = SDP if method == "INVITE" else ""
    peer.send(peer.request(method, to=to, number=2, body=body, more=REQUIRED))
    status, text = peer.final()
    assert (status, "Unsupported: bar, foo\r\n" in text) == (420, True)
    assert running.bridge.calls == 1
    # Neither of these two may be refused for that (RFC 3261, 8.2.2.3).
    peer.send(peer.request("ACK", to=to, more=REQUIRED))
    hang_up(peer, to, number=3)


def test_a_cancel_is_done_whatever_it_requires(running, peer, monkeypatch):
    monkeypatch.setattr(running.callee, "_silent", True)
    peer.send(peer.request("INVITE", body=SDP, branch="z9hG4bKneeds"))
    peer.send(peer.request("CANCEL", branch="z9hG4bKneeds", more=REQUIRED))
    assert {peer.final()[0], peer.final()[0]} == {200, 487}

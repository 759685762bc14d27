"""SIP transactions, which aiosipua leaves out.

aiosipua 0.7 sends a request once and hands every copy of one on. Both must be seen to (RFC 3261,
17): over UDP requests are repeated until something answers, repeated requests get the same answer
again, refusals of an INVITE are acknowledged, and what cannot be read is answered with 400.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass
from typing import Any

from aiosipua import SipMessage, SipRequest, SipResponse
from aiosipua.headers import CSeq, stringify_cseq
from aiosipua.transport import SipTransport
from aiosipua.utils import generate_tag

from rtsr.call.sip.bodies import drop_unreadable, unwrap
from rtsr.call.sip.description import description_in, has_too_many_media
from rtsr.call.sip.destinations import asks_for_sips, is_within_call, note_source
from rtsr.call.sip.framing import LONGEST_BODY, LONGEST_HEAD
from rtsr.call.sip.warning import warning

__all__ = ["EXTENSIONS", "METHODS", "Transactions", "receive", "served_key"]

_log = logging.getLogger(__name__)

#: What may be asked of us, as headers name it.
METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "PRACK", "UPDATE")
#: What calls may require of us (RFC 3261, 8.2.2.3): session timers, and answers that are
#: acknowledged, which need not be used where nothing is said before the final one.
EXTENSIONS = ("100rel", "timer")
#: What we can do in calls that we make. An answer that would have to be acknowledged before the
#: final one is not among it: aiosipua sends a PRACK past the proxies, and to none of several ends.
OWN_EXTENSIONS = ("timer",)

# RFC 3261, 17.1.1.1.
_T1, _T2, _TIMEOUT = 0.5, 4.0, 32.0
MOST_REMEMBERED = 4096
# An address between angle brackets and a name before it, either of which may hold what looks like a
# parameter (RFC 3261, 20.10).
_NAMED = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*|[^"<]*)<[^<>]*>')
MOST_REMEMBERED_BYTES = 16 << 20
# Of one header; there are no more hops than that.
_MOST_VALUES = 70


@dataclass
class _Asked:
    """A request that we have sent: to where, and whether it was said to be worked at (1xx)."""

    request: SipRequest
    to: tuple[str, int]
    is_proceeding: bool = False


@dataclass
class _Answered:
    """A request that came: from where, through which proxies, and its answer so far."""

    at: float
    source: tuple[str, int]
    proxies: list[str]
    is_secure: bool
    data: bytes | None = None
    to: tuple[str, int] = ("", 0)
    repeats: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """How many bytes of the request and its answer are kept."""
        return sum(map(len, self.proxies)) + len(self.data or b"")

    def stop(self) -> None:
        """Repeat the answer no longer by itself."""
        if self.repeats is not None:
            self.repeats.cancel()
            self.repeats = None


class Transactions:
    """Recent requests and responses of one transport."""

    def __init__(self, transport: SipTransport) -> None:
        self._transport = transport
        self._asked: dict[tuple[str, str], _Asked] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._answered: dict[tuple[str, str, str], _Answered] = {}
        self._answered_bytes = 0

    def close(self) -> None:
        """Repeat nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for known in self._answered.values():
            known.stop()

    def ask(self, request: SipRequest, to: tuple[str, int], repeat: bool) -> None:
        """Watch over a request that is sent."""
        key = _asked_key(request)
        if request.method == "ACK" or key is None:
            return
        if request.method == "INVITE":
            # aiosipua names what it can do by itself, again where it repeats one with a password.
            request.headers.set_single("Supported", ", ".join(OWN_EXTENSIONS))
        self._asked[key] = _Asked(request, to)
        self._forget_old()
        deadline = time.monotonic() + _TIMEOUT
        self._set_timer(key, _T1, deadline, repeat)

    def _set_timer(self, key: tuple[str, str], wait: float, deadline: float, repeat: bool) -> None:
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(wait, self._on_timer, key, wait, deadline, repeat)

    def _on_timer(self, key: tuple[str, str], waited: float, deadline: float, repeat: bool) -> None:
        self._timers.pop(key, None)
        known = self._asked.get(key)
        if known is None:
            return
        request, to = known.request, known.to
        if time.monotonic() >= deadline:
            if self._transport.on_message is not None:
                self._transport.on_message(_no_answer(request, 408, "Request Timeout"), to)
            return
        if repeat:
            self._write(bytes(request), to)
        if known.is_proceeding:
            wait = _T2
        else:
            wait = 2.0 * waited if request.method == "INVITE" else min(2.0 * waited, _T2)
        left = max(0.1, deadline - time.monotonic())
        self._set_timer(key, min(wait, left), deadline, repeat)

    def receive_response(self, response: SipResponse, source: tuple[str, int]) -> None:
        """Stop repeating the request of a response that came, and acknowledge a refusal.

        An answer before the final one (1xx) is enough for an INVITE alone. Other requests are still
        repeated behind it, less often, and given up in the same time (RFC 3261, 17.1.2.2).
        """
        key = _asked_key(response)
        if key is None:
            return
        known = self._asked.get(key)
        if known is not None and key[1] != "INVITE" and response.status_code < 200:
            known.is_proceeding = True
            return
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if known is not None and key[1] == "INVITE" and response.status_code >= 300:
            # A connection over which something came lives.
            to = source if self._transport.reliable else known.to
            self._write(bytes(_acknowledgement(known.request, response)), to)

    def fail_request(self, data: bytes) -> None:
        """Answer for the other end where a request cannot be sent.

        Outside a call that is 503 (RFC 3261, 8.1.3.1). Within one the end is as good as gone, which
        is what 408 says (12.2.1.2), and 503 does not.
        """
        try:
            message = SipMessage.parse(data)
        except ValueError:
            # Line breaks that keep a connection alive are no message.
            return
        key = _asked_key(message)
        if key is not None:
            self._give_up(key)

    def fail_address(self, address: tuple[str, int]) -> None:
        """Answer so for all requests that wait for an answer from an address."""
        for key in list(self._timers):
            known = self._asked.get(key)
            if known is not None and known.to == address:
                self._give_up(key)

    def _give_up(self, key: tuple[str, str]) -> None:
        timer, known = self._timers.pop(key, None), self._asked.get(key)
        if timer is None or known is None:
            return
        timer.cancel()
        status = 408 if is_within_call(known.request) else 503
        if self._transport.on_message is not None:
            answer = _no_answer(known.request, status, "No Connection")
            self._transport.on_message(answer, known.to)

    def receive_request(self, request: SipRequest, source: tuple[str, int]) -> bool:
        """Whether a request is new; one that was answered gets the same answer again."""
        key = served_key(request)
        if key is not None and key[2] == "ACK":
            # That of a refusal has the branch of its INVITE (RFC 3261, 17.1.1.3).
            refused = self._answered.get((*key[:2], "INVITE"))
            if refused is not None:
                refused.stop()
            return True
        if key is None:
            return True
        known = self._answered.get(key)
        if known is None:
            # Only answers to an INVITE name them.
            proxies = request.headers.get("record-route") if key[2] == "INVITE" else []
            known = _Answered(time.monotonic(), source, proxies, asks_for_sips(request))
            self._answered[key] = known
            self._answered_bytes += known.size
            self._forget_old()
            return True
        known.source = source
        if known.data is not None:
            self._write(known.data, source if self._transport.reliable else known.to)
        return False

    def source_of(self, response: SipResponse) -> tuple[str, int] | None:
        """From where the newest copy of a response's request came, if that is remembered."""
        key = served_key(response)
        known = None if key is None else self._answered.get(key)
        return None if known is None else known.source

    def asked_for_sips(self, response: SipResponse) -> bool:
        """Whether a response's request wants every hop encrypted."""
        key = served_key(response)
        known = None if key is None else self._answered.get(key)
        return known is not None and known.is_secure

    def answer(self, response: SipResponse, to: tuple[str, int]) -> None:
        """Remember a response that is sent: it answers every copy of its request."""
        _keep_one_tag(response)
        _name_abilities(response)
        key = served_key(response)
        known = None if key is None else self._answered.get(key)
        if known is not None:
            if key is not None and key[2] == "INVITE" and 100 < response.status_code < 300:
                _name_proxies(response, known.proxies)
            self._answered_bytes -= known.size
            known.at, known.data, known.to = time.monotonic(), bytes(response), to
            self._answered_bytes += known.size
            known.stop()
            if key is not None and key[2] == "INVITE" and response.status_code >= 300:
                self._repeat_later(known, _T1)

    def _repeat_later(self, known: _Answered, wait: float) -> None:
        """Say a refusal again until it is acknowledged (RFC 3261, 17.2.1, timers G and H).

        Who was told 100 does not ask again, and would never hear of it if that one were lost.
        """
        if not self._transport.reliable:
            loop = asyncio.get_running_loop()
            known.repeats = loop.call_later(wait, self._repeat, known, wait)

    def _repeat(self, known: _Answered, waited: float) -> None:
        assert known.data is not None
        known.repeats = None
        if time.monotonic() - known.at < _TIMEOUT:
            self._write(known.data, known.to)
            self._repeat_later(known, min(2.0 * waited, _T2))

    def _write(self, data: bytes, to: tuple[str, int]) -> None:
        try:
            self._transport.write(data, to)  # type: ignore[attr-defined]
        except (OSError, RuntimeError) as error:
            _log.warning("a SIP message was not sent", extra={"reason": str(error)})

    def _forget_old(self) -> None:
        is_much = self._answered_bytes > MOST_REMEMBERED_BYTES
        if is_much or len(self._answered) > MOST_REMEMBERED:
            for key in list(self._answered)[: len(self._answered) // 2]:
                known = self._answered.pop(key)
                known.stop()
                self._answered_bytes -= known.size
        if len(self._asked) > MOST_REMEMBERED:
            for asked in [each for each in self._asked if each not in self._timers]:
                del self._asked[asked]


def receive(transport: Any, data: bytes, address: tuple[str, int]) -> None:
    """Parse a message and hand it on once; nothing that a peer sends gets further."""
    # Line breaks keep the binding of an address translator (RFC 5626, 4.4). Those in a stream come
    # with the message after them (RFC 3261, 7.5).
    data = data.lstrip(b"\r\n\0 ")
    if not data:
        return
    if data.find(b"\r\n\r\n", 0, LONGEST_HEAD) < 0 and len(data) > LONGEST_HEAD:
        _log.info("a SIP message could not be read", extra={"reason": "too long"})
        return
    try:
        message = SipMessage.parse(data)
        if isinstance(message, SipRequest):
            note_source(message, address)
    except Exception as error:
        _log.info("a SIP message could not be read", extra={"reason": type(error).__name__})
        return
    refusal = _refusal(message)
    if refusal is not None and (isinstance(message, SipResponse) or message.method == "ACK"):
        # Neither is answered: the call goes on as without a description.
        message.body, refusal = b"", None
    transactions: Transactions = transport.transactions
    try:
        if transport.reliable:
            transport.on_heard(message, address)
        if isinstance(message, SipResponse):
            transactions.receive_response(message, address)
        elif (misread := _misread(message, data)) is not None:
            if message.method != "ACK":
                _refuse(transport, message, *misread)
            return
        elif not transactions.receive_request(message, address):
            return
        elif refusal is not None:
            _refuse(transport, message, *refusal)
            return
        if transport.on_message is not None:
            transport.on_message(message, address)
    except Exception as error:
        _log.info("a SIP message was not usable", extra={"reason": type(error).__name__})
        if isinstance(message, SipRequest) and message.method != "ACK":
            _refuse(transport, message, 400, "Bad Request", _trouble(message))


def _trouble(request: SipRequest) -> str:
    """Say what about a request is not usable."""
    try:
        description_in(request)
    except Exception:
        return "The description of sound (SDP) cannot be read."
    return "The request cannot be read."


def _misread(request: SipRequest, data: bytes) -> tuple[int, str] | None:
    """Return the answer to what begins no transaction: of another version, or misnamed in CSeq.

    RFC 3261, 8.1.1.5 and 21.5.6; ``data`` is what the request was parsed from.
    """
    version = data.partition(b"\n")[0].split()[-1].upper()
    if version.startswith(b"SIP/") and version != b"SIP/2.0":
        return 505, "Version Not Supported"
    cseq = request.cseq
    is_another = cseq is not None and cseq.method.upper() != request.method.upper()
    return (400, "Bad Request") if is_another else None


def _refusal(message: SipRequest | SipResponse) -> tuple[int, str] | None:
    """Return the answer to what would take too long to read while all calls wait.

    Of a body that is not too long its description of sound is left, without what is not needed.
    """
    longest = max((len(values) for _, values in message.headers.items()), default=0)
    if longest > _MOST_VALUES or len(message.body) > LONGEST_BODY:
        return 513, "Message Too Large"
    unwrap(message)
    if has_too_many_media(message):
        return 488, "Not Acceptable Here"
    drop_unreadable(message)
    return None


def _refuse(
    transport: Any, request: SipRequest, status: int, reason: str, trouble: str = ""
) -> None:
    response = SipResponse(status_code=status, reason_phrase=reason)
    if trouble:
        response.headers.set_single("Warning", warning(trouble))
    for value in request.headers.get("via"):
        response.headers.append("Via", value)
    _copy_headers(request, response)
    to = response.headers.get_first("to")
    if to is not None and ";tag=" not in to:
        # RFC 3261, 8.2.6.2.
        response.headers.set_single("To", f"{to};tag={generate_tag()}")
    try:
        transport.send_reply(response)
    except Exception as error:
        _log.info("a SIP message got no answer", extra={"reason": type(error).__name__})


def _keep_one_tag(response: SipResponse) -> None:
    """Leave a To header the tag that it came with; aiosipua adds another to some of them."""
    value = response.headers.get_first("to") or ""
    named = _NAMED.match(value)
    start = 0 if named is None else named.end()
    before, *tags = value[start:].split(";tag=")
    if len(tags) > 1:
        response.headers.set_single("To", f"{value[:start]}{before};tag={tags[0]}")


def _name_abilities(response: SipResponse) -> None:
    """Say what may be asked of us, as answers to INVITE and OPTIONS should and 405 must.

    RFC 3261, 8.2.1, 11.2 and 13.3.1.4.
    """
    method = response.cseq.method.upper() if response.cseq is not None else ""
    accepts = 200 <= response.status_code < 300 and method in ("INVITE", "OPTIONS")
    if accepts or response.status_code == 405:
        response.headers.set_single("Allow", ", ".join(METHODS))
    if accepts:
        response.headers.set_single("Supported", ", ".join(EXTENSIONS))
    if accepts and method == "OPTIONS":
        response.headers.set_single("Accept", "application/sdp")


def _name_proxies(response: SipResponse, proxies: list[str]) -> None:
    """Repeat the proxies that want to stay on a call's way (RFC 3261, 12.1.1)."""
    if not response.headers.get("record-route"):
        for proxy in proxies:
            response.headers.append("Record-Route", proxy)


def served_key(message: SipMessage) -> tuple[str, str, str] | None:
    """Return what names a transaction that others have begun (RFC 3261, 17.2.3).

    That is the branch of the newest Via, who has written it, since two may choose the same, and the
    method.
    """
    try:
        via, cseq = message.via, message.cseq
    except Exception:
        return None
    if not via or not via[0].branch or cseq is None:
        return None
    return via[0].branch, f"{via[0].host.lower()}:{via[0].port or ''}", cseq.method.upper()


def _asked_key(message: SipMessage) -> tuple[str, str] | None:
    """Return what names a transaction of ours: its branch and method (RFC 3261, 17.1.3)."""
    key = served_key(message)
    return None if key is None else (key[0], key[2])


def _no_answer(request: SipRequest, status: int, reason: str) -> SipResponse:
    response = SipResponse(status_code=status, reason_phrase=reason)
    response.headers.append("Via", request.headers.get("via")[0])
    _copy_headers(request, response)
    return response


def _copy_headers(request: SipRequest, response: SipResponse) -> None:
    """Return the headers that every response repeats of its request (RFC 3261, 8.2.6.2)."""
    for name in ("From", "To", "Call-ID", "CSeq"):
        value = request.headers.get_first(name)
        if value:
            response.headers.set_single(name, value)


def _acknowledgement(request: SipRequest, response: SipResponse) -> SipRequest:
    """Make the ACK of a refusal, in the INVITE's own transaction (RFC 3261, 17.1.1.3)."""
    ack = SipRequest(method="ACK", uri=request.uri)
    ack.headers.append("Via", request.headers.get("via")[0])
    for name, source in (("From", request), ("To", response), ("Call-ID", request)):
        value = source.headers.get_first(name)
        if value:
            ack.headers.set_single(name, value)
    cseq = request.cseq
    ack.headers.set_single("CSeq", stringify_cseq(CSeq(seq=cseq.seq if cseq else 1, method="ACK")))
    ack.headers.set_single("Max-Forwards", "70")
    for route in request.headers.get("route"):
        ack.headers.append("Route", route)
    return ack

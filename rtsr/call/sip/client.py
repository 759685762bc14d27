"""Calls that are made, and requests within calls, with what aiosipua leaves out of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from aiosipua import (
    Dialog,
    DialogState,
    OutgoingCall,
    SdpMessage,
    SipDigestAuth,
    SipRequest,
    SipResponse,
    SipUAC,
    serialize_sdp,
)
from aiosipua.auth import answer_challenge, build_credentials
from aiosipua.headers import parse_auth
from aiosipua.transport import SipTransport
from aiosipua.uac_responses import _send_ack

from rtsr.call.sip.description import description_in
from rtsr.call.sip.destinations import contact_in
from rtsr.call.sip.session_timer import SESSION_SECONDS, SessionTerms, answered
from rtsr.call.sip.transactions import METHODS

__all__ = ["Address", "Client", "refresh_target"]

Address = tuple[str, int]

_ABILITIES = {
    "Allow": ", ".join(METHODS),
    "Session-Expires": str(SESSION_SECONDS),
}


@dataclass
class _Question:
    """A request within a call that waits for its answer."""

    request: SipRequest
    dialog: Dialog
    address: Address
    on_answer: Callable[[SipResponse], None]
    headers: dict[str, str] = field(default_factory=dict)
    is_answered: bool = False
    passwords: int = 0


class Client(SipUAC):
    """Makes calls, gives them up, and asks within calls.

    A CANCEL waits for the first response to its INVITE: without one, the other end may not know the
    call yet (RFC 3261, 9.1), nor one that is repeated with a password. Who answers a call that is
    not wanted any more, or that somebody else has answered, is acknowledged and hung up (13.2.2.4).
    A request within a call that is refused for want of a password is repeated with it. So is one
    once more whose password was right, and the question older than the other end remembers.
    """

    def __init__(self, transport: SipTransport) -> None:
        super().__init__(transport)
        self._made: dict[str, OutgoingCall] = {}
        self._heard_of: set[str] = set()
        self._given_up: set[str] = set()
        self._hung_up: set[tuple[str, str]] = set()
        self._terms: dict[str, SessionTerms | None] = {}
        self._questions: dict[tuple[str, int], _Question] = {}
        self._reasons: dict[str, dict[str, str]] = {}

    def call(
        self,
        from_uri: str,
        to_uri: str,
        address: Address,
        offer: SdpMessage,
        *,
        auth: SipDigestAuth | None,
        user_agent: str,
        headers: dict[str, str],
    ) -> OutgoingCall:
        """Call somebody, with a session timer if they know such; as aiosipua's ``send_invite``."""
        call = self.send_invite(
            from_uri,
            to_uri,
            address,
            offer,
            extra_headers={**headers, **_ABILITIES},
            user_agent=user_agent,
            auth=auth,
        )
        # aiosipua itself names the timer in a call that it makes anew; in the first one it would
        # change what has been sent and may be sent again.
        call._session_expires_requested = SESSION_SECONDS
        self._made[call.call_id] = call
        return call

    def has_made(self, call_id: str) -> bool:
        """Whether a call is one that we have made."""
        return call_id in self._made

    def terms_of(self, call_id: str) -> SessionTerms | None:
        """Return how long the session is that the answer to a call has begun."""
        return self._terms.get(call_id)

    def ask(
        self,
        dialog: Dialog,
        address: Address,
        method: str,
        on_answer: Callable[[SipResponse], None],
        headers: dict[str, str] | None = None,
        offer: SdpMessage | None = None,
    ) -> None:
        """Send a request within a call; ``on_answer`` gets its final answer, 408 if none comes."""
        for key, question in list(self._questions.items()):
            if key[0] == dialog.call_id and question.is_answered:
                del self._questions[key]
        request = self._send_in_dialog(
            dialog,
            method,
            address,
            body="" if offer is None else serialize_sdp(offer),
            content_type="" if offer is None else "application/sdp",
            extra_headers=headers,
        )
        question = _Question(request, dialog, address, on_answer, headers or {})
        self._questions[dialog.call_id, dialog.local_cseq] = question

    def send_bye(self, dialog: Dialog, remote_addr: Address) -> SipRequest:
        """Hang a call up, for the reason that :meth:`explain` has got."""
        headers = self._reasons.get(dialog.call_id)
        bye = self._send_in_dialog(dialog, "BYE", remote_addr, extra_headers=headers)
        self._end(dialog)
        question = _Question(bye, dialog, remote_addr, lambda response: None, headers or {})
        self._questions[dialog.call_id, dialog.local_cseq] = question
        return bye

    def waits_for_an_answer(self, call_id: str) -> bool:
        """Whether an INVITE within a call has not been answered yet."""
        return any(
            key[0] == call_id and not each.is_answered and each.request.method == "INVITE"
            for key, each in self._questions.items()
        )

    def send_cancel(self, call: OutgoingCall) -> SipRequest:
        """Give a call up, now or as soon as the other end is known to know it."""
        self._given_up.add(call.call_id)
        return self._cancel(call) if call.call_id in self._heard_of else call.invite

    def explain(self, call_id: str, reason: str) -> None:
        """Say why a call is given up or hung up, if at all (RFC 3326), before that is done."""
        if reason:
            self._reasons[call_id] = {"Reason": reason}

    def _cancel(self, call: OutgoingCall) -> SipRequest:
        """Give a call up that the other end knows, as aiosipua does, and say why."""
        invite, asked = call.invite, call.invite.cseq
        cancel = SipRequest(method="CANCEL", uri=invite.uri)
        cancel.headers.append("Via", invite.headers.get_first("via") or "")
        for name in ("From", "To", "Call-ID"):
            cancel.headers.set_single(name, invite.headers.get_first(name) or "")
        cancel.headers.set_single("CSeq", f"{1 if asked is None else asked.seq} CANCEL")
        cancel.headers.set_single("Max-Forwards", "70")
        for route in invite.headers.get("route"):
            cancel.headers.append("Route", route)
        for name, value in self._reasons.get(call.call_id, {}).items():
            cancel.headers.set_single(name, value)
        self.transactions.create_client(cancel)
        self.transport.send(cancel, call.remote_addr)
        self._end(call.dialog)
        return cancel

    def _end(self, dialog: Dialog) -> None:
        dialog.terminate()
        call = self._calls.pop(dialog.call_id, None)
        if call is not None:
            call._cancel_session_timer()

    def handle_response(self, response: SipResponse, addr: Address) -> None:
        """Take a response to one of our requests."""
        _put_known_challenge_first(response)
        cseq, name = response.cseq, response.call_id or ""
        question = None if cseq is None else self._questions.get((name, cseq.seq))
        if question is not None and cseq is not None and cseq.method == question.request.method:
            self._take_answer((name, cseq.seq), question, response)
            return
        call = self._made.get(name)
        if call is None or cseq is None or cseq.method.upper() != "INVITE":
            super().handle_response(response, addr)
            return
        asked = call.invite.cseq
        if asked is not None and cseq.seq != asked.seq:
            # A copy of the question who calls, which the INVITE in force has answered.
            return
        self._heard_of.add(name)
        # Who numbers an answer all the same has not read that we acknowledge none.
        response.headers.remove("RSeq")
        if 200 <= response.status_code < 300:
            self._take_call(call, response, addr)
            return
        description = _checked_description(response)
        if 100 < response.status_code < 200 and description is not None:
            # Sound before the answer, as an announcement.
            call.sdp_answer = description
        if name not in self._given_up:
            if call._auth_attempts == 1 and _is_stale(response):
                call._auth_attempts = 0
                super().handle_response(response, addr)
                # Once more, and no more.
                call._auth_attempts = 2
            else:
                super().handle_response(response, addr)
            if response.status_code in (181, 182) and call.on_ringing is not None:
                # aiosipua tells of 180 and 183 alone.
                call.on_ringing(call)
            if response.status_code in (401, 407, 422):
                self._heard_of.discard(name)
        elif response.status_code >= 200:
            # Nobody is called anew who is not wanted any more.
            call._auth, call._se_retried = None, True
            super().handle_response(response, addr)
        elif name in self._calls:
            self._cancel(call)

    def _take_call(self, call: OutgoingCall, response: SipResponse, address: Address) -> None:
        """Take the answer of a telephone that was called; of several, the first has the call."""
        name, is_first = call.call_id, not call._answered.is_set()
        tag = "" if response.to_addr is None else response.to_addr.tag or ""
        _checked_description(response)
        is_over = name not in self._calls
        if name in self._given_up or (is_first and is_over):
            self._calls.pop(name, None)
            self._hang_up(call, response, tag)
        elif not is_first and tag != call.dialog.remote_tag:
            self._hang_up(call, response, tag)
        elif is_over:
            _send_ack(self, call, response)
        else:
            if is_first:
                call.dialog = _dialog_with(call.dialog, response, tag)
                self._terms[name] = answered(response)
            # aiosipua's own timer would end the call, since it does not see all refreshes.
            response.headers.remove("Session-Expires")
            super().handle_response(response, address)

    def _hang_up(self, call: OutgoingCall, response: SipResponse, tag: str) -> None:
        """Acknowledge an answer that is not wanted, and every copy of it, and hang up once."""
        dialog = replace(_dialog_with(call.dialog, response, tag), state=DialogState.CONFIRMED)
        _send_ack(self, self._as_call(dialog, call.invite, call.remote_addr), response)
        if (call.call_id, tag) not in self._hung_up:
            self._hung_up.add((call.call_id, tag))
            headers = self._reasons.get(call.call_id)
            self._send_in_dialog(
                dialog, "BYE", call.remote_addr, contact=False, extra_headers=headers
            )

    def _take_answer(
        self, key: tuple[str, int], question: _Question, response: SipResponse
    ) -> None:
        if response.status_code < 200:
            return
        if response.status_code < 300 and not question.is_answered:
            # A copy of an older answer does not take a newer one's Contact back.
            refresh_target(question.dialog, response)
        if question.request.method == "INVITE" and response.status_code < 300:
            call = self._as_call(question.dialog, question.request, question.address)
            _send_ack(self, call, response)
        if question.is_answered:
            return
        question.is_answered = True
        if question.request.method != "INVITE":
            del self._questions[key]
        if not self._ask_with_password(key, question, response):
            _checked_description(response)
            question.on_answer(response)

    def _ask_with_password(
        self, key: tuple[str, int], question: _Question, response: SipResponse
    ) -> bool:
        """Repeat a request that the other end wants a password with; return whether we have one."""
        call, status, request = self._made.get(key[0]), response.status_code, question.request
        if status not in (401, 407) or call is None or call._auth is None:
            return False
        if question.passwords > int(_is_stale(response)):
            return False
        credentials = answer_challenge(call._auth, response, status, request.method, request.uri)
        if credentials is None:
            return False
        dialog, headers = question.dialog, {**question.headers, credentials[0]: credentials[1]}
        repeated = self._send_in_dialog(
            dialog,
            request.method,
            question.address,
            body=request.text,
            content_type=request.content_type or "",
            contact=request.method != "BYE",
            extra_headers=headers,
        )
        self._questions.pop(key, None)
        self._questions[key[0], dialog.local_cseq] = replace(
            question, request=repeated, is_answered=False, passwords=question.passwords + 1
        )
        return True

    def _as_call(self, dialog: Dialog, invite: SipRequest, address: Address) -> OutgoingCall:
        return OutgoingCall(dialog, invite, transport=self.transport, remote_addr=address)

    def _build_invite(
        self, dialog: Dialog, *, sdp_offer: SdpMessage | None, user_agent: str | None
    ) -> SipRequest:
        """Build an INVITE; a call that is repeated with a password may still go as many hops."""
        invite = super()._build_invite(dialog, sdp_offer=sdp_offer, user_agent=user_agent)
        first = self.get_call(dialog.call_id)
        hops = first.invite.headers.get_first("max-forwards") if first is not None else None
        if hops is not None:
            invite.headers.set_single("Max-Forwards", hops)
        return invite

    def remove_call(self, call_id: str) -> None:
        """Forget a call."""
        super().remove_call(call_id)
        self._made.pop(call_id, None)
        self._terms.pop(call_id, None)
        self._reasons.pop(call_id, None)
        self._heard_of.discard(call_id)
        self._given_up.discard(call_id)
        self._hung_up = {each for each in self._hung_up if each[0] != call_id}
        for key in [each for each in self._questions if each[0] == call_id]:
            del self._questions[key]


def refresh_target(dialog: Dialog, message: SipRequest | SipResponse) -> None:
    """Take note of an end's new Contact in what may change it (RFC 3261, 12.2; RFC 3311, 5).

    That is a 2xx to a request of ours, or the other end's request that we answer with 2xx: what is
    refused changes nothing (RFC 3261, 12.2.2). A Contact that cannot be used changes nothing.
    """
    cseq, contact = message.cseq, contact_in(message)
    if cseq is not None and cseq.method in ("INVITE", "UPDATE") and contact is not None:
        dialog.remote_target = contact


def _put_known_challenge_first(response: SipResponse) -> None:
    """Let aiosipua, which reads the first challenge alone, read one that it can answer.

    Servers name their strongest one first, and the older ones behind it (RFC 8760, 2.4).
    """
    for name in ("WWW-Authenticate", "Proxy-Authenticate"):
        challenges = response.headers.get(name)
        known = next((each for each in challenges if _can_be_answered(each)), None)
        if known is not None and len(challenges) > 1:
            response.headers.set_single(name, known)


def _is_stale(response: SipResponse) -> bool:
    """Whether a password was right, and only the nonce is too old by now (RFC 7616, 3.3)."""
    name = "WWW-Authenticate" if response.status_code == 401 else "Proxy-Authenticate"
    challenge = response.get_header(name)
    if response.status_code not in (401, 407) or not challenge:
        return False
    return (parse_auth(challenge).params.get("stale") or "").lower() == "true"


def _can_be_answered(challenge: str) -> bool:
    try:
        found = build_credentials(SipDigestAuth("", ""), parse_auth(challenge), "INVITE", "sip:x")
    except ValueError:
        return False
    return found is not None


def _dialog_with(dialog: Dialog, response: SipResponse, tag: str) -> Dialog:
    """Return the dialog that an answer opens (RFC 3261, 12.1.2)."""
    target = contact_in(response) or dialog.remote_target
    route = list(reversed(response.headers.get("record-route")))
    return replace(dialog, remote_tag=tag, remote_target=target, route_set=route)


def _checked_description(response: SipResponse) -> SdpMessage | None:
    """Return a response's description, and leave its type as aiosipua knows it.

    One that cannot be read counts as none: the call is then without one.
    """
    try:
        description = description_in(response)
    except ValueError:
        description = None
    response.headers.remove("Content-Type")
    if description is not None:
        response.content_type = "application/sdp"
    return description

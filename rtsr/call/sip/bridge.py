"""Two legs of a call with different codecs, and the engine between them."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aiosipua import (
    Dialog,
    DialogState,
    IncomingCall,
    OutgoingCall,
    SdpMessage,
    SipDigestAuth,
    SipRequest,
    serialize_sdp,
)

from rtsr.call.engine import BusyError, CallEngine
from rtsr.call.formats import G722, OPUS, PCMA, PCMU, PayloadFormat
from rtsr.call.kept_colours import KeptColours
from rtsr.call.receiver import Receiver
from rtsr.call.sender import Sender
from rtsr.call.sip.addresses import AddressError, parse_address, user_of
from rtsr.call.sip.agent import USER_AGENT, Agent, Target, cseq_number
from rtsr.call.sip.client import refresh_target
from rtsr.call.sip.description import (
    KEY_BYTES,
    SENT_IN_STEREO,
    TAKEN_IN_STEREO,
    Media,
    Unacceptable,
    answer,
    description_in,
    offer,
    read_answer,
    read_offer,
)
from rtsr.call.sip.leg import Leg
from rtsr.call.sip.media_socket import MediaSocket
from rtsr.call.sip.ports import PortRange
from rtsr.call.sip.session_timer import SessionTerms, TooShort, requested
from rtsr.call.sip.warning import warning
from rtsr.colour.auto import AutoColour
from rtsr.errors import AudioFormatError, RtsrError

__all__ = ["Bridge", "BridgeSettings"]

_log = logging.getLogger(__name__)

# What a message may carry (RFC 3261, 8.2.3).
_ACCEPTED = {"Accept": "application/sdp, multipart/mixed"}
# RFC 3261, 13.3.1.4.
ACK_SECONDS = 32.0
# RFC 3261, 14.2: seconds.
_LONGEST_RETRY = 10
_LONGEST_REASON = 1000
# RFC 3261, 20.22.
_MOST_HOPS = 255
# Who does not want to be known: what stands for a name then (RFC 3323, 4.1.1.3, and what networks
# write), and what asks for it (RFC 3323, 4.2; RFC 3325, 9.3).
_NOBODY = frozenset({"anonymous", "private", "restricted", "unavailable", "unknown"})
_HIDDEN = frozenset({"header", "id", "user"})
# What a user's name may consist of in an address (RFC 3261, 25.1).
_USER = re.compile(r"[\w.!~*'()%&=+$,;?/-]+", re.ASCII)

_REASONS = {
    404: "Not Found",
    408: "Request Timeout",
    415: "Unsupported Media Type",
    422: "Session Interval Too Small",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    500: "Server Internal Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    603: "Decline",
}


@dataclass(frozen=True)
class BridgeSettings:
    """How calls are passed on.

    Attributes:
        target: the address that is called for every caller.
        forms: codecs that are offered there, the best first.
        bitrate: of Opus, bits per second.
        secure: offer SRTP there.
        auth: for a target that asks who calls.
        ring_seconds: after that an unanswered call is given up.
        ports: where sound comes in; ``None`` leaves it to the system.
        bind: the address of those ports, where it is not the advertised one.
        shown: the address that descriptions of sound name, where the advertised one is a name.
        dtx: whether Opus sends no silence; ``None`` does as each end asks.
        kept_colours: where the colour of whoever's sound is enhanced outlasts the call.
    """

    target: Target
    forms: Sequence[PayloadFormat] = (OPUS,)
    bitrate: int = 64_000
    secure: bool = False
    auth: SipDigestAuth | None = field(default=None, repr=False)
    ring_seconds: float = 60.0
    ports: range | None = None
    bind: str | None = None
    shown: str | None = None
    dtx: bool | None = None
    kept_colours: KeptColours | None = None

    def sends_dtx(self, media: Media) -> bool:
        """Whether silence is not sent to an end with this description."""
        return media.wants_dtx if self.dtx is None else self.dtx


class Bridge:
    """Takes calls on an agent and passes each on to the target (a back-to-back user agent).

    Args:
        agent: not started yet.
        engine: running; a call takes one of its places.
        settings: where to, and how.

    Attributes:
        agent: likewise.
        ports: where sound comes in; ``None`` leaves it to the system.
    """

    def __init__(self, agent: Agent, engine: CallEngine, settings: BridgeSettings) -> None:
        self.agent = agent
        self._engine = engine
        self.settings = settings
        self.ports = None if settings.ports is None else PortRange(settings.ports)
        self._calls: dict[str, _BridgedCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def calls(self) -> int:
        """Calls that are on or being set up."""
        return len(self.open_calls)

    @property
    def open_calls(self) -> tuple[_BridgedCall, ...]:
        """Those calls, oldest first; one has a name for each of its dialogs."""
        return tuple(dict.fromkeys(self._calls.values()))

    async def start(self) -> None:
        """Listen.

        Raises:
            RtsrError: the address is not available.
        """
        await self.agent.start(
            {
                "on_invite": self._on_invite,
                "on_bye": self._on_bye,
                "on_cancel": self._on_cancel,
                "on_reinvite": self._on_reinvite,
                "on_ack_timeout": self._on_lost,
            }
        )
        self.agent.on_update(self._on_update)
        self.agent.on_ack(self._on_ack)

    async def stop(self) -> None:
        """Hang up everywhere."""
        for call in self.open_calls:
            call.end("the bridge stops")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
        await self.agent.stop()

    def _on_invite(self, incoming: IncomingCall) -> None:
        known = self._calls.get(incoming.call_id)
        if known is not None:
            to = incoming.invite.to_addr
            if to is not None and to.tag == known.incoming.dialog.local_tag:
                # A change before the call is answered (RFC 3261, 14.2).
                _refuse(incoming, 500, {"Retry-After": str(secrets.randbelow(_LONGEST_RETRY + 1))})
            else:
                # The same call over another way (RFC 3261, 8.2.2.2); the first one stays.
                _refuse(incoming, 482)
            self.agent.keep(known.incoming, incoming)
            return
        try:
            self._take(incoming)
        except Exception:
            # What cannot be read is answered where it was received.
            self.agent.drop_later(incoming.call_id)
            raise

    def _take(self, incoming: IncomingCall) -> None:
        to = incoming.invite.to_addr
        if to is not None and to.tag:
            # A change of a call that is over (RFC 3261, 12.2.2).
            self._decline(incoming, 481)
            return
        if _hops_left(incoming) < 1:
            self._decline(incoming, 483)
            return
        try:
            requested(incoming.invite)
        except TooShort as error:
            self._decline(incoming, 422, error.headers)
            return
        # aiosipua has read a description whose type is written as it knows it.
        incoming.sdp_offer = incoming.sdp_offer or description_in(incoming.invite)
        if incoming.invite.body and incoming.sdp_offer is None:
            self._decline(incoming, 415, _ACCEPTED)
            return
        if self.calls >= self._engine.capacity:
            self._engine.count_refused()
            self._decline(incoming, 503, {"Retry-After": "10"})
            return
        call = _BridgedCall(self, self.agent, self._engine, incoming)
        self._calls[incoming.call_id] = call
        task = asyncio.get_running_loop().create_task(call.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _decline(
        self, incoming: IncomingCall, status: int, headers: dict[str, str] | None = None
    ) -> None:
        _refuse(incoming, status, headers)
        self.agent.drop_later(incoming.call_id)

    def _on_bye(self, leg: IncomingCall, request: SipRequest) -> None:
        call = self._calls.get(request.call_id or "")
        if call is not None:
            if leg is call.incoming and not leg._answered:
                # The INVITE itself waits for an answer, too (RFC 3261, 15.1.2).
                _refuse(leg, 487)
            call.end("hung up", by=request.call_id, why=_reason_in(request))

    def _on_cancel(self, request: SipRequest, address: tuple[str, int]) -> None:
        call = self._calls.get(request.call_id or "")
        if call is not None:
            call.end("given up by the caller", by=request.call_id, why=_reason_in(request))

    def _on_lost(self, leg: IncomingCall) -> None:
        call = self._calls.get(leg.call_id)
        if call is not None:
            # aiosipua counts the call as over; the other end is still told (RFC 3261, 13.3.1.4).
            leg.dialog.state = DialogState.CONFIRMED
            call.end("never acknowledged")

    def _on_reinvite(self, leg: IncomingCall) -> None:
        call = self._calls.get(leg.call_id)
        if call is None:
            leg.reject(481)
            return
        try:
            terms = requested(leg.invite)
        except TooShort as error:
            leg._send_response(422, _REASONS[422], extra_headers=error.headers)
            return
        call.change(leg, terms)

    def _on_update(self, leg: IncomingCall) -> None:
        call = self._calls.get(leg.call_id)
        if call is None or leg.invite.body:
            self._on_reinvite(leg)
            return
        try:
            call.refresh(leg, requested(leg.invite))
        except TooShort as error:
            leg._send_response(422, _REASONS[422], extra_headers=error.headers)

    def _on_ack(self, call_id: str, number: int, sdp: SdpMessage | None) -> None:
        call = self._calls.get(call_id)
        if call is not None:
            call.acknowledged(call_id, number, sdp)

    def remember(self, call_id: str, call: _BridgedCall) -> None:
        """Note that a call has a second leg."""
        self._calls[call_id] = call

    def forget(self, call: _BridgedCall) -> None:
        """Forget a call that is over."""
        for call_id in [name for name, each in self._calls.items() if each is call]:
            del self._calls[call_id]
            self.agent.drop_later(call_id)


class _BridgedCall:
    def __init__(
        self, bridge: Bridge, agent: Agent, engine: CallEngine, incoming: IncomingCall
    ) -> None:
        self.name = secrets.token_urlsafe(6)
        self._bridge = bridge
        self._agent = agent
        self._engine = engine
        self.incoming = incoming
        self._number = cseq_number(incoming.invite)
        self._outgoing: OutgoingCall | None = None
        self.caller = Leg(self.end, self._take_answer)
        self.callee = Leg(self.end, self._take_answer)
        client = agent.client_of(incoming.transport)
        self.caller.reach(client, lambda: incoming.dialog, lambda: incoming.source_addr)
        self._over = asyncio.Event()
        self._ended = False
        self._started = 0.0
        # Set when the target has described sound before its answer, each time something else.
        self._early = asyncio.Event()
        self._early_description: SdpMessage | None = None
        self._early_answer: SdpMessage | None = None
        self._acknowledged = asyncio.Event()
        self._caller_answer: SdpMessage | None = None
        # Whose sound is enhanced, and what is learnt of people, where that outlasts the call.
        self._enhanced: Leg | None = None
        self._turning: asyncio.Task[None] | None = None
        self._colours: list[tuple[str | None, AutoColour]] = []
        #: Legs that were sent a proposal of ours, by the call's name, with the number of what asked
        #: for it; the answer is in the ACK of that number.
        self._proposed_to: dict[str, tuple[Leg, int]] = {}

    async def run(self) -> None:
        """Set the call up and stay until it is over."""
        try:
            if await self._set_up():
                await self._over.wait()
        except Unacceptable as error:
            self._refuse(488, str(error))
        except BusyError as error:
            self._refuse(503, str(error))
        except RtsrError as error:
            self._refuse(502, str(error))
        except Exception:
            _log.exception("a call failed", extra={"call": self.name})
            self._refuse(500, "an error")
        finally:
            self.end("over")
            # What was opened after the call had been given up.
            self.caller.close()
            self.callee.close()
            await self._keep_colours()

    async def _set_up(self) -> bool:
        """Connect the two ends; return whether it worked, else the caller got the reason."""
        settings, ports = self._bridge.settings, self._bridge.ports
        # Where the other end is narrow, this one should be wide.
        preferred = () if OPUS in settings.forms else (OPUS,)
        has_offer = bool(self.incoming.invite.body)
        if has_offer:
            media = read_offer(self.incoming.sdp_offer, preferred)
        host = settings.bind or self._agent.host
        for leg in (self.caller, self.callee):
            try:
                leg.socket = await MediaSocket.open(host, leg.take, leg.reports, ports)
            except OSError as error:
                raise BusyError(f"There is no port left for sound: {error}.") from None
        if has_offer:
            self.caller.agree(media)
        key = secrets.token_bytes(KEY_BYTES) if settings.secure else None
        if not await self._call(key):
            return False
        if not has_offer and not await self._offer_to_caller(preferred):
            return False
        await self._connect_ends(key)
        if self._ended:
            return False
        assert self.caller.media is not None
        assert self.callee.media is not None
        if has_offer:
            # What the caller was told before the answer stays true (RFC 3261, 13.2.1).
            description = self._early_answer or self._answer(self.caller, media)
            self.caller.accept(self.incoming, description, requested(self.incoming.invite))
        self.caller.watch()
        self.callee.watch()
        self._started = asyncio.get_running_loop().time()
        ends = self.caller.media.form, self.callee.media.form
        codecs = {"call": self.name, "codec": " ".join(form.name for form in ends)}
        _log.info("sip call taken", extra=codecs)
        if all(form.sample_rate == PCMU.sample_rate for form in ends):
            _log.warning("sip call has no codec that carries a wider band", extra=codecs)
        return True

    async def _offer_to_caller(self, preferred: Sequence[PayloadFormat]) -> bool:
        """Propose codecs to a caller who has proposed none; return whether there was an answer."""
        assert self.caller.socket is not None
        forms = dict.fromkeys((*preferred, PCMU, PCMA, G722, OPUS))
        proposal = offer(
            self._shown(self.caller.socket),
            tuple(forms),
            None,
            self._bridge.settings.bitrate,
            self.caller.session,
            self.caller.socket.control_port,
            self._stereo(self.caller),
        )
        self.caller.described = proposal
        self.caller.accept(self.incoming, proposal, requested(self.incoming.invite))
        waiting = [asyncio.ensure_future(e.wait()) for e in (self._acknowledged, self._over)]
        await asyncio.wait(waiting, timeout=ACK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        if self._ended or not self._acknowledged.is_set():
            return False
        self.caller.agree(read_answer(self._caller_answer, None, proposal))
        return True

    def acknowledged(self, call_id: str, number: int, sdp: SdpMessage | None) -> None:
        """Take the answer to a proposal of ours that comes with the ACK of that number."""
        is_first = call_id == self.incoming.call_id and number == self._number
        if is_first and not self._acknowledged.is_set():
            self._caller_answer = sdp
            self._acknowledged.set()
        leg, asked = self._proposed_to.get(call_id, (None, 0))
        if leg is not None and number >= asked:
            del self._proposed_to[call_id]
            if sdp is not None and number == asked:
                self._take_answer(leg, sdp)

    def _take_answer(self, leg: Leg, sdp: SdpMessage) -> None:
        if leg.media is None or leg.line is None:
            return
        try:
            self._agree(leg, read_answer(sdp, leg.media.our_key, leg.described))
        except (Unacceptable, AudioFormatError) as error:
            _log.info("an answer does not fit", extra={"call": self.name, "reason": str(error)})
        leg.watch()

    async def _call(self, key: bytes | None) -> bool:
        """Call the target; return whether it was answered."""
        settings = self._bridge.settings
        target = settings.target
        try:
            address = await self._agent.find(target)
        except RtsrError:
            # Its sentence names the host, which is not for the log.
            self._refuse(502, "the target's name is not known")
            return False
        if self._ended:
            # Given up while the ports were opened or the name was looked up.
            return False
        client = self._agent.client_of(self._agent.by(target.transport).transport)
        assert self.callee.socket is not None
        description = offer(
            self._shown(self.callee.socket),
            settings.forms,
            key,
            settings.bitrate,
            self.callee.session,
            self.callee.socket.control_port,
            self._stereo(self.callee),
        )
        user = self._agent.host if ":" not in self._agent.host else f"[{self._agent.host}]"
        self.callee.described = description
        outgoing = client.call(
            f"{target.scheme}:{self._shown_caller}@{user}",
            target.uri,
            address,
            description,
            auth=settings.auth,
            user_agent=USER_AGENT,
            headers={"Max-Forwards": str(_hops_left(self.incoming) - 1)},
        )
        self._outgoing = outgoing
        self.callee.reach(client, lambda: outgoing.dialog, lambda: outgoing.remote_addr)
        self._bridge.remember(outgoing.call_id, self)
        outgoing.on_ringing = self._ringing
        answered: asyncio.Future[None] = asyncio.ensure_future(
            outgoing.wait_answered(settings.ring_seconds)
        )
        given_up: asyncio.Future[bool] = asyncio.ensure_future(self._over.wait())
        try:
            while not answered.done() and not self._ended:
                early: asyncio.Future[bool] = asyncio.ensure_future(self._early.wait())
                waiting: set[asyncio.Future[Any]] = {answered, given_up, early}
                try:
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    early.cancel()
                if self._early.is_set() and not answered.done() and not self._ended:
                    self._early.clear()
                    await self._connect_early(key)
            if not answered.done():
                return False
        finally:
            answered.cancel()
            given_up.cancel()
        error = answered.exception()
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            self._refuse(480, "no answer")
            return False
        if error is not None:
            self._refuse(_passed_on(outgoing._reject_code), "refused by the other end")
            return False
        self.callee.begin_session(client.terms_of(outgoing.call_id))
        return True

    async def _connect_early(self, key: bytes | None) -> None:
        """Let the ends hear each other before the call is answered, as for announcements."""
        try:
            await self._connect_ends(key)
        except (Unacceptable, AudioFormatError):
            # Another one, or the answer, may still fit.
            self.incoming.ringing()
            return
        if not self._ended and self._early_answer is None:
            assert self.caller.media is not None
            self._early_answer = self._answer(self.caller, self.caller.media)
            self.incoming._send_response(
                183,
                "Session Progress",
                body=serialize_sdp(self._early_answer),
                content_type="application/sdp",
            )

    async def _connect_ends(self, key: bytes | None) -> None:
        """Connect the two legs by the target's newest answer."""
        assert self._outgoing is not None
        media = read_answer(self._outgoing.sdp_answer, key, self.callee.described)
        if self.caller.line is not None and self.callee.line is not None:
            self._agree(self.callee, media)
            return
        self.callee.agree(media)
        await self._open_lines()

    async def _open_lines(self) -> None:
        """Connect the two legs: what goes from narrow to wide is enhanced."""
        caller, callee = self.caller, self.callee
        assert caller.media is not None
        assert callee.media is not None
        self._enhanced = self._narrow_end
        await self._connect(caller, callee, enhance=self._enhanced is caller)
        await self._connect(callee, caller, enhance=self._enhanced is callee)

    @property
    def _narrow_end(self) -> Leg:
        """The end whose sound is to be enhanced for the other one."""
        assert self.callee.media is not None
        return self.caller if self.callee.media.form is OPUS else self.callee

    def _turn(self) -> None:
        """Have the other direction enhanced where another end is the narrow one now."""
        # Two channels are for Opus alone: the other direction has one.
        is_other = self._enhanced is not self._narrow_end and self._engine.channels == 1
        if is_other and (self._turning is None or self._turning.done()):
            self._turning = asyncio.ensure_future(self._turned())

    async def _turned(self) -> None:
        try:
            while not self._ended and self._enhanced is not (source := self._narrow_end):
                plain = source.line
                enhanced = (self.callee if source is self.caller else self.caller).line
                if plain is None or enhanced is None or source.media is None:
                    return
                self._enhanced = source
                colour = plain.path.stream.colour or await self._known_colour(source)
                rate = source.media.form.sample_rate
                await self._engine.exchange(enhanced, plain, rate=rate, colour=colour)
        except RtsrError as error:
            reason = {"call": self.name, "reason": str(error)}
            _log.warning("sip call goes on without a wider band", extra=reason)
        except Exception:
            _log.exception("a call goes on without a wider band", extra={"call": self.name})

    async def _connect(self, source: Leg, sink: Leg, enhance: bool) -> None:
        assert source.media is not None
        assert sink.media is not None
        assert sink.socket is not None
        media = sink.media
        channels = self._engine.channels if enhance and media.form is OPUS else 1
        sender = Sender(
            media.form,
            media.payload_type,
            channels,
            media.bitrate(self._bridge.settings.bitrate),
            media.event_type,
            media.event_rate,
            self._bridge.settings.sends_dtx(media),
        )
        sender.is_held = not media.hears
        receiver = Receiver(source.media.incoming_formats, channels)
        options: dict[str, Any] = {
            "name": self.name,
            "event_rates": source.media.incoming_event_rates,
        }
        if enhance and channels == self._engine.channels:
            colour = await self._known_colour(source)
            source.line = await self._engine.open(
                receiver,
                sender,
                sink.socket.send,
                rate=source.media.form.sample_rate,
                colour=colour,
                **options,
            )
        else:
            source.line = self._engine.open_plain(receiver, sender, sink.socket.send, **options)
        source.line.path.far = sink.far
        if self._ended:
            source.line.close()

    async def _known_colour(self, leg: Leg) -> AutoColour | None:
        """Return what is known of the person at an end; ``None`` leaves it to the engine."""
        kept = self._bridge.settings.kept_colours
        if kept is None:
            return None
        if leg is self.caller:
            wishes = ",".join(self.incoming.invite.headers.get("privacy")).lower()
            hidden = _HIDDEN & set(re.split(r"[;,\s]+", wishes))
            address = None if hidden else _person(self.incoming.caller)
        else:
            address = _person(self._bridge.settings.target.uri)
        colour = await asyncio.to_thread(kept.of, address, self._engine.batch.model.metadata)
        self._colours.append((address, colour))
        return colour

    async def _keep_colours(self) -> None:
        kept = self._bridge.settings.kept_colours
        if self._turning is not None:
            await self._turning
        for address, colour in self._colours:
            assert kept is not None
            await asyncio.to_thread(kept.keep, address, colour)

    def refresh(self, leg: IncomingCall, terms: SessionTerms | None) -> None:
        """One end says that the call is still on (UPDATE without a description)."""
        mine = self._leg_of(leg)
        mine.touch()
        self._accept(mine, leg, None, terms)

    def change(self, leg: IncomingCall, terms: SessionTerms | None) -> None:
        """One end wants something else within the call: other codecs, another address, a pause."""
        mine = self._leg_of(leg)
        old = mine.media
        is_set_up = self.caller.line is not None and self.callee.line is not None
        if old is None or not is_set_up or mine.waits_for_an_answer:
            # The call is not yet set up whole, or ours is under way (RFC 3261, 14.2).
            leg._send_response(491, "Request Pending")
            return
        if not leg.invite.body:
            # It asks what we propose: what was agreed, without a pause (RFC 3261, 14.2).
            self._proposed_to[leg.call_id] = mine, cseq_number(leg.invite)
            self._accept(mine, leg, self._answer(mine, replace(old, direction="sendrecv")), terms)
            return
        proposal = description_in(leg.invite)
        if proposal is None:
            leg._send_response(415, _REASONS[415], extra_headers=_ACCEPTED)
            return
        try:
            media = read_offer(proposal, () if old.form not in (OPUS,) else (OPUS,))
            if old.is_secure:
                if not media.is_secure:
                    raise Unacceptable("What was encrypted stays so.")
                media.our_key = old.our_key
            self._agree(mine, media)
        except (Unacceptable, AudioFormatError):
            leg.reject(488)
            # The refusal is of the change; the call goes on.
            leg.dialog.state = DialogState.CONFIRMED
            return
        mine.watch()
        self._accept(mine, leg, self._answer(mine, media), terms)
        _log.info("sip call changed", extra={"call": self.name, "codec": media.form.name})

    def _accept(
        self,
        mine: Leg,
        leg: IncomingCall,
        description: SdpMessage | None,
        terms: SessionTerms | None,
    ) -> None:
        """Answer a request within the call with 200; what we ask goes to its Contact from now on.

        A request that is refused moves nothing (RFC 3261, 12.2.2).
        """
        mine.accept(leg, description, terms)
        refresh_target(
            self.incoming.dialog if mine is self.caller else self._callee_dialog, leg.invite
        )

    def _agree(self, mine: Leg, media: Media) -> None:
        """Go by another description of one end.

        Raises:
            AudioFormatError: its codec does not carry the call's channels.
            Unacceptable: our packets do not reach its address.
        """
        mine.check(media)
        other = self.callee if mine is self.caller else self.caller
        assert mine.line is not None
        assert other.line is not None
        sender = other.line.path.sender
        assert sender is not None
        sender.change(
            media.form,
            media.payload_type,
            self._bridge.settings.sends_dtx(media),
            event_type=media.event_type,
            event_rate=media.event_rate,
            bitrate=media.bitrate(self._bridge.settings.bitrate),
        )
        sender.is_held = not media.hears
        mine.agree(media)
        mine.line.path.receiver.formats = media.incoming_formats
        mine.line.path.event_rates = media.incoming_event_rates
        self._turn()

    @property
    def _shown_caller(self) -> str:
        """The caller's name or number as the target sees it; an account's own, if there is one."""
        auth = self._bridge.settings.auth
        name = auth.username if auth is not None else user_of(self.incoming.caller)
        return name if name and _USER.fullmatch(name) else "anonymous"

    @property
    def _callee_dialog(self) -> Dialog:
        assert self._outgoing is not None
        return self._outgoing.dialog

    def _leg_of(self, call: IncomingCall) -> Leg:
        return self.caller if call.call_id == self.incoming.call_id else self.callee

    def end(self, reason: str, by: str | None = None, why: str = "") -> None:
        """Hang up both legs but the one that ended it. May be called twice.

        Args:
            reason: for the log.
            by: the name of the leg that ended it.
            why: what that has said of it, for the other one.
        """
        if self._ended:
            return
        self._ended = True
        self._over.set()
        self.caller.close()
        self.callee.close()
        incoming, outgoing = self.incoming, self._outgoing
        incoming._stop_retransmissions()
        if by != incoming.call_id:
            if incoming._answered:
                _hang_up(incoming, why)
            elif incoming.dialog.state.value == "early":
                incoming.reject(480)
        if outgoing is not None and by != outgoing.call_id:
            way = self._agent.by(self._bridge.settings.target.transport)
            client = self._agent.client_of(way.transport)
            client.explain(outgoing.call_id, why)
            if outgoing.dialog.state.value == "confirmed":
                outgoing.hangup(client)
            else:
                outgoing.cancel(client)
        self._bridge.forget(self)
        seconds = asyncio.get_running_loop().time() - self._started if self._started else 0.0
        _log.info(
            "sip call over",
            extra={"call": self.name, "seconds": round(seconds, 1), "reason": reason},
        )

    def _ringing(self, outgoing: OutgoingCall) -> None:
        required = ",".join(self.incoming.invite.headers.get("require")).lower()
        if self._ended or self.incoming._answered or "100rel" in required:
            return
        # Where several telephones or servers say something, the newest is heard.
        is_new = outgoing.sdp_answer not in (None, self._early_description)
        if is_new and self.caller.media is not None:
            self._early_description = outgoing.sdp_answer
            self._early.set()
        else:
            self.incoming.ringing()

    def _answer(self, leg: Leg, media: Media) -> SdpMessage:
        assert leg.socket is not None
        shown = self._shown(leg.socket)
        leg.described = answer(
            shown,
            media,
            self._bridge.settings.bitrate,
            leg.session,
            leg.socket.control_port,
            self._stereo(leg),
        )
        return leg.described

    def _stereo(self, leg: Leg) -> str:
        """Return what an end is told of two channels: that they come there, or are taken."""
        if self._engine.channels == 1:
            return ""
        other = self.callee.media
        is_narrow = leg is self.caller and (other is None or other.form is OPUS)
        return TAKEN_IN_STEREO if is_narrow else SENT_IN_STEREO

    def _shown(self, socket: MediaSocket) -> tuple[str, int]:
        return self._bridge.settings.shown or self._agent.host, socket.address[1]

    def _refuse(self, status: int, reason: str) -> None:
        if not self._ended and not self.incoming._answered:
            # Whoever looks for the fault in a telephone has no log of ours.
            _refuse(self.incoming, status, {"Warning": warning(reason)} if status == 488 else None)
            _log.info(
                "sip call refused",
                extra={"call": self.name, "status": status, "reason": reason},
            )


def _refuse(incoming: IncomingCall, status: int, headers: dict[str, str] | None = None) -> None:
    incoming._send_response(status, _REASONS.get(status, "Refused"), extra_headers=headers)
    incoming.dialog.terminate()


def _hang_up(incoming: IncomingCall, why: str) -> None:
    """Hang a caller up, as aiosipua does, and say why."""
    if incoming.dialog.state is not DialogState.CONFIRMED or incoming.transport is None:
        return
    host, port = incoming._signaling_addr()
    bye = incoming.dialog.create_request("BYE", via_host=host, via_port=port)
    if why:
        bye.headers.set_single("Reason", why)
    incoming.dialog.terminate()
    incoming.transport.send(bye, incoming.source_addr)


def _reason_in(request: SipRequest) -> str:
    """Return why an end says that it hangs up (RFC 3326); too much of it is not passed on."""
    reason = ", ".join(each.strip() for each in request.headers.get("reason"))
    return reason if len(reason) <= _LONGEST_REASON and reason.isprintable() else ""


def _person(uri: str) -> str | None:
    """Return whose address it is, without what changes from call to call; nobody's is ``None``."""
    try:
        host = parse_address(uri).host.lower()
    except AddressError:
        return None
    user = user_of(uri) or ""
    if not user or user.lower() in _NOBODY or f".{host}".endswith(".invalid"):
        return None
    return f"{user}@{host}"


def _hops_left(incoming: IncomingCall) -> int:
    """Return how often a call may still be passed on (RFC 3261, 8.1.1.6)."""
    value = (incoming.invite.headers.get_first("max-forwards") or "70").strip()
    # What is no number, or one much too long, counts as absent: it is not passed on.
    is_number = len(value) <= 3 and value.isdecimal()
    return min(int(value), _MOST_HOPS) if is_number else 70


def _passed_on(status: int) -> int:
    """Return the caller's response when the target refuses: its own code, where that fits."""
    if status in (401, 407) or not 400 <= status < 700:
        return 502
    return status

"""One end of a call: its sound, and whether it is still there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from aiosipua import Dialog, IncomingCall, SdpMessage, SipResponse

from rtsr.call import engine
from rtsr.call.engine import Line
from rtsr.call.formats import Packet
from rtsr.call.reports import FarReports
from rtsr.call.sip.client import Address, Client
from rtsr.call.sip.control import ReportWriter
from rtsr.call.sip.description import Media, Session, Unacceptable, description_in
from rtsr.call.sip.media_socket import MediaSocket
from rtsr.call.sip.session_timer import SessionTerms, SessionTimer, answered

__all__ = ["Leg"]

#: Who is silent and does not say within this that the call is still on has gone.
ANSWER_SECONDS = 10.0
# Answers of those who do not know the call, and of proxies that do not find its end. Who has too
# much to do (503) does not say that.
_GONE = frozenset({404, 408, 410, 480, 481, 502, 504})
_NOT_SUPPORTED = frozenset({405, 501})
# RFC 3261, 14.1: who made the call waits for longer.
_GLARE_SECONDS = (2.1, 4.0)
# A refresh that was refused is tried again after this part of the session's time.
_TRY_AGAIN_AFTER = 1 / 8
_MOST_DIGITS = 9


class Leg:
    """One end's media and its dialog: what was agreed, what it reports, how long it may be silent.

    An end that sends neither packets nor reports may have nothing to say: it is asked (OPTIONS
    within the call), and has gone if it does not answer. One that has agreed to send nothing, as on
    hold, is asked later and may go on so for as long as it answers.

    Args:
        on_gone: called with the reason when the end has vanished.
        on_answer: called with the description in the answer to a refresh of ours.

    Attributes:
        far: what the end reports of what it hears.
        session: names our descriptions; ``described`` is the newest.
        line: the direction whose sound comes from here.
        socket, media: where its packets come and go, and how.
    """

    def __init__(
        self,
        on_gone: Callable[[str], None],
        on_answer: Callable[[Leg, SdpMessage], None],
    ) -> None:
        self.far = FarReports()
        self.reports = ReportWriter(self.far)
        self.session = Session()
        self.described: SdpMessage | None = None
        self.line: Line | None = None
        self.socket: MediaSocket | None = None
        self.media: Media | None = None
        self._on_gone = on_gone
        self._on_answer = on_answer
        self._timer = SessionTimer(self._refresh, self._expire)
        self._way: tuple[Client, Callable[[], Dialog], Callable[[], Address]] | None = None
        self._takes_update = True
        self._shortest = 0
        self._waiting: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None

    def take(self, packet: Packet) -> None:
        """Take a packet of this end's."""
        if self.line is not None:
            self.line.receive(packet)

    def _count_unusable(self) -> None:
        if self.line is not None:
            self.line.path.receiver.counts.malformed += 1

    def touch(self) -> None:
        """Take note that the end is there."""
        if self.line is not None:
            self.line.touch()

    def check(self, media: Media) -> None:
        """Raise :class:`Unacceptable` where packets from here do not reach a description's address.

        A socket of IPv4 sends nothing to an address of IPv6, nor the other way round.
        """
        ours = "" if self.socket is None else self.socket.address[0]
        theirs = media.address[0]
        if ours and media.has_address and (":" in ours) != (":" in theirs):
            # Without the addresses, for the log.
            own, other = ("IPv6", "IPv4") if ":" in ours else ("IPv4", "IPv6")
            raise Unacceptable(f"Sound leaves over {own} and reaches no address of {other}.")

    def agree(self, media: Media) -> None:
        """Packets go by this description from now on.

        Raises:
            Unacceptable: as for :meth:`check`.
        """
        self.check(media)
        self.media = media
        self.reports.formats = media.incoming_formats
        if self.socket is not None and media.has_address:
            control = None if media.shares_port else media.control
            self.socket.on_report, self.socket.on_unusable = self.touch, self._count_unusable
            self.socket.set_peer(media.address, control, media.our_key, media.their_key)

    def reach(
        self, client: Client, dialog: Callable[[], Dialog], address: Callable[[], Address]
    ) -> None:
        """Say how the end is reached within the call."""
        self._way = client, dialog, address

    def accept(
        self, call: IncomingCall, description: SdpMessage | None, terms: SessionTerms | None
    ) -> None:
        """Answer a request of this end's with 200; the session lasts as long as ``terms`` say."""
        if terms is not None:
            call.session_interval = terms.seconds
            call.session_refresher_us = not terms.far_refreshes
        call.accept(description)
        # Else aiosipua starts a timer of its own when the answer is acknowledged.
        call.session_interval = None
        self.begin_session(terms)

    def begin_session(self, terms: SessionTerms | None) -> None:
        """Begin the session anew; without terms nothing ends it."""
        if self._again is not None:
            self._again.cancel()
        if terms is not None:
            self._takes_update = terms.takes_update
        self._timer.start(terms)

    def watch(self) -> None:
        """Look from now on whether the end is still there; on hold it may be silent for long."""
        if self.line is not None and self.media is not None:
            self.line.touch()
            self.line.is_held = self.media.direction != "sendrecv"
            self.line.on_silence = self._on_silence

    def close(self) -> None:
        """Close the sound and stop all timers. May be called twice."""
        self._timer.cancel()
        for timer in (self._waiting, self._again):
            if timer is not None:
                timer.cancel()
        if self.line is not None:
            self.line.close()
        if self.socket is not None:
            self.socket.close()

    @property
    def waits_for_an_answer(self) -> bool:
        """Whether an INVITE of ours within the call has not been answered yet."""
        if self._way is None:
            return False
        client, dialog, _ = self._way
        return client.waits_for_an_answer(dialog().call_id)

    @property
    def _is_over(self) -> bool:
        return self.line is None or self.line.is_closed

    def _on_silence(self) -> None:
        assert self.line is not None
        is_mute = self.line.silent_seconds > engine.HELD_SECONDS and not self.line.is_held
        if is_mute or self._way is None:
            self._on_gone("silent")
            return
        client, dialog, address = self._way
        loop = asyncio.get_running_loop()
        asked_at = loop.time()

        def give_up() -> None:
            # It may have spoken meanwhile.
            if self.line is not None and self.line.silent_seconds >= loop.time() - asked_at:
                self._on_gone("silent")

        def on_answer(response: SipResponse) -> None:
            waiting.cancel()
            if not self._is_over and response.status_code in _GONE:
                give_up()

        waiting = self._waiting = loop.call_later(ANSWER_SECONDS, give_up)
        client.ask(dialog(), address(), "OPTIONS", on_answer)

    def _expire(self) -> None:
        self._on_gone("its session was not refreshed")

    def _refresh(self) -> None:
        terms = self._timer.terms
        if self._way is None or terms is None:
            return
        client, dialog, address = self._way
        seconds = max(terms.seconds, self._shortest)
        headers = {"Supported": "timer", "Session-Expires": f"{seconds};refresher=uac"}
        if self._shortest:
            headers["Min-SE"] = str(self._shortest)
        # An INVITE repeats the newest description: nothing is to be changed (RFC 4028, 7.4).
        method, offer = ("UPDATE", None) if self._takes_update else ("INVITE", self.described)
        client.ask(dialog(), address(), method, self._on_refreshed, headers, offer)

    def _on_refreshed(self, response: SipResponse) -> None:
        terms, status = self._timer.terms, response.status_code
        if self._is_over or terms is None:
            return
        if status < 300:
            self._timer.start(answered(response))
            description = description_in(response)
            if description is not None:
                self._on_answer(self, description)
        elif status == 422 and _shortest_in(response) > max(terms.seconds, self._shortest):
            self._shortest = _shortest_in(response)
            self._refresh()
        elif status in _NOT_SUPPORTED and self._takes_update:
            self._takes_update = False
            self._refresh()
        elif status in (408, 481):
            self._on_gone("its session is over")
        else:
            is_glare = status == 491
            wait = random.uniform(*_GLARE_SECONDS) if is_glare else terms.seconds * _TRY_AGAIN_AFTER
            self._again = asyncio.get_running_loop().call_later(wait, self._refresh)


def _shortest_in(response: SipResponse) -> int:
    """Return the shortest session that an end takes, in seconds; 0 if it does not say."""
    value = (response.get_header("min-se") or "").strip()
    return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else 0

"""Session timers (RFC 4028): calls end whose far end has vanished without a word.

One of the two ends refreshes the session once half of its time has passed, by an UPDATE or an
INVITE within the call; where no refresh comes in time, the call is over. aiosipua's own timers do
not see refreshes of calls that it has made, nor ones of its own that fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiosipua import SipRequest, SipResponse
from aiosipua.session_timer import parse_session_expires, peer_allows_update, watchdog_delay

__all__ = ["SESSION_SECONDS", "SessionTerms", "SessionTimer", "TooShort", "answered", "requested"]

#: What we ask for (RFC 4028, 4).
SESSION_SECONDS = 1800
#: The shortest session that we take (RFC 4028, 5); shorter ones would be refreshed all the time.
SHORTEST_SECONDS = 90
_LONGEST_SECONDS = 86400


class TooShort(Exception):
    """A session is shorter than we take: 422 in SIP.

    Attributes:
        headers: of that answer.
    """

    def __init__(self) -> None:
        super().__init__(f"A session lasts {SHORTEST_SECONDS} s at least.")
        self.headers = {"Min-SE": str(SHORTEST_SECONDS)}


@dataclass(frozen=True)
class SessionTerms:
    """What two ends have agreed on.

    Attributes:
        seconds: after which the session is over if nobody has refreshed it.
        far_refreshes: whether the far end does so.
        takes_update: whether the far end takes UPDATE, as far as it says.
    """

    seconds: int
    far_refreshes: bool
    takes_update: bool


def requested(request: SipRequest) -> SessionTerms | None:
    """Return the terms of our answer to a request; ``None`` if it asks for no timer.

    Raises:
        TooShort: the answer is 422.
    """
    seconds, refresher = _read(request)
    extensions = request.headers.get("supported") + request.headers.get("require")
    knows_timers = "timer" in (each.strip().lower() for each in extensions)
    if seconds < SHORTEST_SECONDS:
        if seconds > 0 and knows_timers:
            raise TooShort()
        # A proxy's wish that its sender could not follow (RFC 4028, 9).
        return None
    return SessionTerms(
        min(seconds, _LONGEST_SECONDS), knows_timers and refresher != "uas", _takes_update(request)
    )


def answered(response: SipResponse) -> SessionTerms | None:
    """Return the terms that an answer to a request of ours states; ``None`` if there is no timer.

    Who is to refresh is us, unless the answer says otherwise (RFC 4028, 7.2).
    """
    seconds, refresher = _read(response)
    if seconds <= 0:
        return None
    seconds = min(max(seconds, SHORTEST_SECONDS), _LONGEST_SECONDS)
    return SessionTerms(seconds, refresher == "uas", _takes_update(response))


class SessionTimer:
    """Calls back when a session is to be refreshed, and when it is over.

    Args:
        refresh: called where that is our part, half-way through.
        expire: called when no refresh has come in time.

    Attributes:
        terms: those in force.
    """

    def __init__(self, refresh: Callable[[], None], expire: Callable[[], None]) -> None:
        self.terms: SessionTerms | None = None
        self._refresh, self._expire = refresh, expire
        self._timers: list[asyncio.TimerHandle] = []

    def start(self, terms: SessionTerms | None) -> None:
        """Begin the session's time anew; ``None`` sets it no end."""
        self.cancel()
        self.terms = terms
        if terms is None:
            return
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(watchdog_delay(terms.seconds), self._expire))
        if not terms.far_refreshes:
            self._timers.append(loop.call_later(terms.seconds / 2, self._refresh))

    def cancel(self) -> None:
        """Stop. May be called twice."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def _read(message: SipRequest | SipResponse) -> tuple[int, str | None]:
    # The short name is the header's own (RFC 4028, 4).
    value = message.get_header("session-expires") or message.get_header("x") or ""
    return parse_session_expires(value)


def _takes_update(message: SipRequest | SipResponse) -> bool:
    return peer_allows_update(message.headers.get("allow"))

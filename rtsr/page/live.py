"""The page of a live session.

It reads what the screen of ``rtsr live`` reads: shared memory, which the callback and the worker
write and never wait for. Its spectra are computed in the session's program, whose callback needs no
Python and whose worker is a process of its own.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from rtsr.live.monitor.report import WAITING, FallbackChange, LiveSnapshot
from rtsr.live.session import LiveSession
from rtsr.page.access import Access
from rtsr.page.application import Frame, PageApplication
from rtsr.page.learning import Learning
from rtsr.page.serve import PageThread
from rtsr.page.view import FULL_BAND, NO_AMOUNT, about, colour_facts, rounded_parts, show

__all__ = ["LiveSubject", "live_page"]


class LiveSubject:
    """Shows and turns one live session.

    Args:
        session: that runs.
        learning: binds MIDI knobs to its controls.

    Attributes:
        names: of all controls.
        is_over: set when there is nothing more to show.
    """

    def __init__(self, session: LiveSession, learning: Learning) -> None:
        self._session = session
        self.learning = learning
        self.names = session.controls.names
        self.is_over = False

    def about(self) -> dict[str, Any]:
        """Return devices, controls and bands."""
        now = self._session.snapshot()
        rates = f"{now.rate} Hz"
        if now.output_rate != now.rate:
            rates += f" in and {now.output_rate} Hz out"
        text = (
            f"{now.channels} {'channel' if now.channels == 1 else 'channels'}, {rates}, "
            f"blocks of {now.block} frames; the worker's priority is {now.priority}."
        )
        controls = self._session.controls
        return about(text, controls, self.names, learns=True, top_hz=now.top_hz)

    def now(self) -> dict[str, Any]:
        """Return the session's snapshot as the page shows it."""
        now = self._session.snapshot()
        wanted = self._session.controls.highest_level
        change = now.last_change
        return {
            "kind": "now",
            "seconds": round(now.seconds, 1),
            "state": now.state,
            "input": now.input_name,
            "output": now.output_name,
            "cutoff_hz": now.cutoff_hz,
            "before_db": _tenths(now.in_spectrum.tolist()),
            "after_db": _tenths(now.out_spectrum.tolist()),
            "in_db": _tenths(now.in_db),
            "out_db": _tenths(now.out_db),
            "controls": now.controls,
            "midi": self.learning.bindings(),
            "latency_ms": rounded_parts(
                {name.replace("_", " "): part for name, part in now.latency_ms.items() if part}
            ),
            "step_p50_ms": round(now.step_p50_ms, 2),
            "step_p999_ms": round(now.step_p999_ms, 2),
            "fallback_level": now.fallback_level,
            "fallback": fallback(now, wanted),
            "nothing_added": nothing_added(now),
            "last_change": None if change is None else _in_words(change),
            "underruns": now.underruns,
            "overruns": now.overruns,
            "late_callbacks": now.late_callbacks,
            "xruns": now.xruns,
            "worker_restarts": now.worker_restarts,
            "device_restarts": now.device_restarts,
            "ahead_ms": round(now.ahead_ms, 1),
            "cpu_percent": now.cpu_percent,
            "colour": None if now.colour is None else colour_facts(now.colour),
        }

    def turn(self, name: str, value: float | str) -> None:
        """Turn a control of the session."""
        self._session.controls.set(name, value)

    def check(self, name: str, value: float | str) -> None:
        """Raise an error if a control of the session does not take a value."""
        self._session.controls.check(name, value)


def fallback(now: LiveSnapshot, wanted: str) -> str | None:
    """Say why what is heard is not what was asked for; ``None`` where it is.

    Args:
        now: of the session.
        wanted: the fallback level that the control ``model`` asks for.
    """
    if now.state == WAITING:
        return f"No sound: {now.state}."
    if now.state != "playing":
        return f"The sound goes out as it came: {now.state}."
    if now.controls["bypass"] > 0.0:
        return "The sound goes out as it came: bypass is on."
    if now.fallback_level == wanted:
        return None
    change = now.last_change
    cause = "" if change is None else f" ({change.cause})"
    return f"{now.fallback_level} in place of {wanted}{cause}."


def nothing_added(now: LiveSnapshot) -> str | None:
    """Say why there is no new band at this moment; ``None`` where there is one."""
    controls = now.controls
    if now.state != "playing":
        return f"Nothing is added: {now.state}."
    if controls["bypass"] > 0.0:
        return "Nothing is added: bypass is on."
    if now.fallback_level == "dry":
        return "Nothing is added: the fallback level is dry."
    if controls["wet"] <= 0.0:
        return NO_AMOUNT
    if now.cutoff_hz >= now.top_hz:
        return FULL_BAND
    return None


def _in_words(change: FallbackChange) -> str:
    return f"{change.from_level} to {change.to_level} at {change.time_s:.0f} s: {change.cause}"


def _tenths(values: list[float] | tuple[float, ...]) -> list[float]:
    return [round(value, 1) for value in values]


@contextlib.contextmanager
def live_page(
    session: LiveSession, learning: Learning, bound: socket.socket, access: Access
) -> Iterator[None]:
    """Serve the page of a running session from a thread, while the context lasts.

    Args:
        session: that is shown and steered.
        learning: binds MIDI knobs to its controls; closed at the end.
        bound: where, from :func:`~rtsr.page.serve.bind`.
        access: decides which requests are authorised.
    """
    frame = Frame(
        title="live sound, in full band",
        script="live.js",
        state="Connecting…",
        delay="From the microphone to the loudspeaker, in milliseconds",
    )
    page = PageApplication(frame, access)
    subject = LiveSubject(session, learning)

    async def view(socket: WebSocket) -> None:
        await show(page, socket, subject)

    with PageThread(page.build([WebSocketRoute("/view", view)]), bound):
        try:
            yield
        finally:
            subject.is_over = True
            learning.close()

"""The WebSocket of a page: what it shows goes out ten times a second, what is turned comes in.

The server sends ``{"kind": "about", ...}`` first and where that has changed, ``{"kind": "now",
...}`` ten times a second, ``{"learning": NAME or null}``, ``{"kind": "learnt", "text": ...}`` and
``{"kind": "given_up", "text": ...}`` while MIDI knobs are learnt, and ``{"error": SENTENCE}``. It
takes ``{"set": {"wet": 0.5}}``, all of it or nothing, ``{"learn": "wet"}`` and ``{"learn": null}``,
which gives up what was begun over the same WebSocket. ``taken`` in ``now`` is the number of
messages whose effect can be seen in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from rtsr.errors import ArgumentError, RtsrError
from rtsr.live.controls.board import ControlBoard, find_control
from rtsr.live.monitor.colour_state import ColourState
from rtsr.live.monitor.meters import LOWEST_BAND_HZ, band_edges_hz
from rtsr.page.application import PageApplication
from rtsr.page.learning import KnobToLearn, Learning
from rtsr.page.messages import json_object
from rtsr_kernels.band_limit import FULL_BAND_HZ

__all__ = ["FULL_BAND", "NO_AMOUNT", "Subject", "about", "colour_facts", "rounded_parts", "show"]

_LOOK_SECONDS = 0.1
# What stays for long, as the length of a block, is looked at once in so many looks.
_LOOKS_ABOUT = 10
UNAUTHORISED, UNKNOWN = 4401, 4404

#: Why no new band is added, where nothing is wrong.
NO_AMOUNT = "Nothing is added: Amount is 0 %."
FULL_BAND = "Nothing is added: what comes in leaves nothing above it."


class Subject(Protocol):
    """What a page shows and turns."""

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to show."""

    @property
    def learning(self) -> Learning | None:
        """What binds MIDI knobs, if anything does."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its controls."""

    def about(self) -> dict[str, Any]:
        """Return what stays, see :func:`about`."""

    def now(self) -> dict[str, Any]:
        """Return the present state; called in a thread of its own."""

    def turn(self, name: str, value: float | str) -> None:
        """Turn a control.

        Raises:
            ArgumentError: no such control, or a value that it does not take.
        """

    def check(self, name: str, value: float | str) -> None:
        """Turn nothing, but raise what :meth:`turn` would."""


def about(
    text: str,
    board: ControlBoard,
    names: Iterable[str],
    *,
    learns: bool,
    top_hz: float = FULL_BAND_HZ,
    **more: Any,
) -> dict[str, Any]:
    """Return a subject's first message: its controls with their ranges, and the spectra's bands.

    Args:
        text: one line about it.
        board: where the controls are.
        names: those that the page has.
        learns: whether MIDI knobs can be bound to them.
        top_hz: Hz where the spectra end.
        more: further facts.
    """
    edges = band_edges_hz(top_hz)
    return {
        "kind": "about",
        "text": text,
        "bands_hz": [round(float(middle)) for middle in np.sqrt(edges[1:] * edges[:-1])],
        "range_hz": [LOWEST_BAND_HZ, top_hz],
        "controls": [_description(board, name) for name in names],
        "learns": learns,
        **more,
    }


def _description(board: ControlBoard, name: str) -> dict[str, Any]:
    control = find_control(name)
    low, high = board.limits(name)
    described: dict[str, Any] = {
        "name": name,
        "unit": control.unit,
        "low": low,
        "high": high,
        "kind": control.kind,
        "help": control.help,
        "at_low": control.at_low,
        "at_high": control.at_high,
    }
    if control.kind == "choice":
        described["choices"] = list(board.fallback_levels)
    return described


def rounded_parts(parts: dict[str, float]) -> dict[str, float]:
    """Return milliseconds to two places, and their sum, which adds up as it is shown."""
    rounded = {name: round(value, 2) for name, value in parts.items()}
    return {**rounded, "total": round(sum(rounded.values()), 2)}


def colour_facts(colour: ColourState) -> dict[str, Any]:
    """Return what a page shows of a colour: a line of text, and gains in dB of bands in Hz."""
    return {
        "text": colour.in_words(),
        "gains_db": [round(gain, 1) for gain in colour.gains_db],
        "bands_hz": [round(edge) for edge in colour.bands_hz],
    }


async def show(application: PageApplication, socket: WebSocket, subject: Subject | None) -> None:
    """Serve one WebSocket until the page goes away or the subject is over.

    Args:
        application: says who gets in.
        socket: not accepted yet.
        subject: ``None`` if there is none of the name that was asked for.
    """
    refused = application.refusal(socket) is not None
    if refused:
        await socket.close(UNAUTHORISED)
        return
    await socket.accept()
    if subject is None:
        # Browsers do not tell a page why they were not let in.
        await socket.close(UNKNOWN)
        return
    said = _Said()
    reading = asyncio.ensure_future(_listen(socket, subject, said))
    try:
        told = subject.about()
        await socket.send_json(told)
        looks = 0
        while not subject.is_over and not reading.done():
            looks += 1
            if looks % _LOOKS_ABOUT == 0:
                told = await _tell_if_new(socket, subject, told)
            # What is taken while this is looked at may not be in it yet.
            taken = said.taken
            # The arithmetic is done beside the event loop, where nothing waits for it.
            now = await asyncio.to_thread(subject.now)
            await socket.send_json({**now, "taken": taken})
            await asyncio.sleep(_LOOK_SECONDS)
        await socket.close(1000)
    # The page has gone, or the subject ended while it was looked at.
    except (WebSocketDisconnect, RuntimeError, RtsrError):
        pass
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _tell_if_new(socket: WebSocket, subject: Subject, told: dict[str, Any]) -> dict[str, Any]:
    """Send the first message again if it is another one by now; returns the newest."""
    newest = await asyncio.to_thread(subject.about)
    if newest != told:
        await socket.send_json(newest)
    return newest


@dataclass
class _Said:
    """What a page has said: messages that were taken, and the knobs that it wants to be learnt."""

    taken: int = 0
    learning: dict[asyncio.Task[None], KnobToLearn] = field(default_factory=dict)

    def give_up(self) -> None:
        for knob in self.learning.values():
            knob.give_up()


async def _listen(socket: WebSocket, subject: Subject, said: _Said) -> None:
    """Do what the page says until it goes away."""
    try:
        while True:
            received = await socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            try:
                message = json_object(_text_of(received))
                if "learn" in message:
                    _learn(socket, subject, message["learn"], said)
                else:
                    _turn(subject, message)
            except RtsrError as error:
                await socket.send_json({"error": str(error)})
            said.taken += 1
    finally:
        said.give_up()


def _text_of(received: Mapping[str, Any]) -> str:
    text = received.get("text")
    if not isinstance(text, str):
        raise ArgumentError("A message is text, one JSON object; this one is binary.")
    return text


def _turn(subject: Subject, message: dict[str, Any]) -> None:
    wanted = message.get("set")
    if not isinstance(wanted, dict):
        raise ArgumentError('A page sends {"set": {"wet": 0.5}}.')
    for name, value in wanted.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ArgumentError(f"Control {name!r} takes a number.")
        subject.check(name, value)
    # A message that is refused turns nothing.
    for name, value in wanted.items():
        subject.turn(name, value)


def _learn(socket: WebSocket, subject: Subject, control: object, said: _Said) -> None:
    knobs = subject.learning
    if knobs is None:
        raise ArgumentError("There are no MIDI knobs here.")
    if control is None:
        said.give_up()
        return
    if not isinstance(control, str) or control not in subject.names:
        raise ArgumentError(
            f"There is no control {control!r} here; there are {', '.join(subject.names)}."
        )
    knob = knobs.begin(control)
    task = asyncio.ensure_future(_learnt(socket, control, knob))
    said.learning[task] = knob
    task.add_done_callback(said.learning.pop)


async def _learnt(socket: WebSocket, control: str, knob: KnobToLearn) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_json({"learning": control})
        # A thread of its own, for it waits for half a minute: calls and pages share the loop's.
        own = ThreadPoolExecutor(1, "rtsr-learn")
        try:
            text = await asyncio.get_running_loop().run_in_executor(own, knob.wait)
            end: dict[str, Any] = {"kind": "learnt", "text": text}
        except RtsrError as error:
            given_up = {"kind": "given_up", "text": str(error)}
            end = given_up if knob.is_given_up else {"error": str(error)}
        finally:
            own.shutdown(wait=False)
        await socket.send_json({**end, "learning": None})

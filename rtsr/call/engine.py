"""All calls of a process: one batch, one thread that steps it, one event loop for everything else.

The thread steps whenever sound waits, and then rests for half as long as it has worked, at most
2 ms. A single call so is served at once; many calls' packets, which come at any time, gather
meanwhile and share the next step, which costs less than a step for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType

from rtsr.arguments import check_integer, check_real, shown
from rtsr.batch.upsampler import BatchUpsampler
from rtsr.call.call_stream import CallStream
from rtsr.call.formats import Packet
from rtsr.call.path import DEADLINE, MediaPath
from rtsr.call.receiver import Receiver
from rtsr.call.sender import Sender
from rtsr.call.upsampled import SoundLine
from rtsr.call.warm_up import warm_up
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.engine.colour_learner import resolve_colour
from rtsr.errors import ArgumentError, RtsrError
from rtsr.runtime.models import Model
from rtsr.timing import HOP, SAMPLE_RATE

__all__ = ["BusyError", "CallEngine", "Line", "Totals"]

_log = logging.getLogger(__name__)

MOST_CALLS = 256
#: Even a microphone that is off sends packets; who sends none for so long has gone.
SILENT_SECONDS = 20.0
#: Who is on hold, or holds the other end, need not send anything for so long.
HELD_SECONDS = 1800.0
_SHORTEST_REST, _LONGEST_REST = 0.0005, 0.002
_REST = 0.5
WATCH_SECONDS = 1.0


class BusyError(RtsrError):
    """All places are taken; the caller may try again later."""


@dataclass
class Totals:
    """Sums over all calls, those that are over included."""

    received: int = 0
    sent: int = 0
    unsent_seconds: float = 0.0
    lost: int = 0
    late: int = 0
    duplicates: int = 0
    malformed: int = 0
    keys: int = 0
    concealed_seconds: float = 0.0
    fallback_seconds: float = 0.0
    missed: int = 0
    sheds: int = 0
    far_reports: int = 0
    far_lost: int = 0
    far_jitter_seconds: float = 0.0
    round_trips: int = 0
    round_trip_seconds: float = 0.0
    learnt_seconds: float = 0.0
    skipped_seconds: float = 0.0

    def add(self, path: MediaPath) -> None:
        """Add what has happened on a path; one that only transcodes misses no step."""
        counts = path.receiver.counts
        self.received += counts.received
        if path.sender is not None:
            self.sent += path.sender.sent
            self.unsent_seconds += path.sender.unsent_seconds
        self.lost += counts.lost
        self.late += counts.late
        self.duplicates += path.receiver.duplicates
        self.malformed += counts.malformed
        self.concealed_seconds += counts.concealed_seconds
        self.fallback_seconds += path.stream.fallback_seconds
        self.missed += path.missed
        self.sheds += path.sheds
        colour = path.stream.colour
        if isinstance(colour, AutoColour):
            self.learnt_seconds += colour.learnt_hops * HOP / SAMPLE_RATE
            self.skipped_seconds += colour.skipped_hops * HOP / SAMPLE_RATE
        self.keys += path.keys
        self.far_reports += path.far.count
        self.far_lost += path.far.lost
        self.far_jitter_seconds += path.far.jitter_seconds
        self.round_trips += path.far.round_trips
        self.round_trip_seconds += path.far.round_trip_seconds


class Line:
    """One direction of a call on the engine's event loop: a media path that is woken in time.

    Made by :meth:`CallEngine.open`; all methods belong to the event loop's thread.

    Attributes:
        on_silence: called when no packet has come for :data:`SILENT_SECONDS`, and again after as
            long.
        is_held: whether it may take :data:`HELD_SECONDS`; the listener, who may not know of it, is
            sent a packet of silence every second meanwhile.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_engine",
        "_last_packet",
        "_last_told",
        "_name",
        "_path",
        "_timer",
        "_wake_at",
        "is_held",
        "on_silence",
    )

    def __init__(self, engine: CallEngine, path: MediaPath, name: str) -> None:
        self._path = path
        self._name = name
        self.on_silence: Callable[[], None] | None = None
        self.is_held = False
        self._engine = engine
        self._last_packet = self._last_told = engine.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at: float | None = None
        self._closed = False

    @property
    def path(self) -> MediaPath:
        """What its packets go through."""
        return self._path

    @property
    def name(self) -> str:
        """For the log."""
        return self._name

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def silent_seconds(self) -> float:
        """How long ago the far end was last heard of."""
        return self._engine.loop.time() - self._last_packet

    def receive(self, packet: Packet) -> None:
        """Take a packet that has just arrived; never raises for what is in it."""
        if not self._closed:
            self.touch()
            self._guarded(self._path.receive, packet)

    def advance(self) -> None:
        """Poll by the clock: process what is due, finished or late."""
        if not self._closed:
            self._guarded(self._path.advance)

    def touch(self) -> None:
        """Take note that the far end is there, although it sends no packets."""
        self._last_packet = self._engine.loop.time()

    def watch(self, now: float) -> None:
        """Call ``on_silence`` if the far end may have vanished; fill the pauses of one on hold."""
        if self.is_held and not self._closed:
            self._guarded(self._path.fill_pause)
        longest = HELD_SECONDS if self.is_held else SILENT_SECONDS
        if self.on_silence is not None and now - max(self._last_packet, self._last_told) > longest:
            self._last_told = now
            self.on_silence()

    def close(self) -> None:
        """End the line and give its place in the batch back. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._engine.forget(self)

    def _guarded(self, step: Callable[..., None], *arguments: Packet) -> None:
        loop = self._engine.loop
        try:
            step(*arguments, loop.time())
        except Exception:
            # One call's trouble is not the others': it is logged, and its sound goes on.
            _log.exception("an error in a call was caught", extra={"call": self._name})
        if self._path.stream.is_due:
            self._engine.wake()
        self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        wake_at = self._path.wake_at
        if wake_at == self._wake_at and self._timer is not None and not self._timer.cancelled():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake_at = wake_at
        if wake_at is not None and not self._closed:
            self._timer = loop.call_at(wake_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.advance()


class CallEngine:
    """Runs up to ``capacity`` calls on one model.

    >>> async with CallEngine(8) as engine:                      # doctest: +SKIP
    ...     line = await engine.open(Receiver({0: PCMU}), Sender(OPUS, 96), send)
    ...     line.receive(packet)

    Args:
        capacity: calls at a time, 1 to 256; each takes one place per channel in the batch.
        channels: of every call's sound, 1 or 2.
        model, provider, threads: as for :class:`~rtsr.batch.upsampler.BatchUpsampler`.
        deadline_ms: how long sound waits for the batch before it is played without its new band, 5
            to 200 ms.
        colour: of every call that is given no other: a colour for all, or ``auto``, which each
            learns for itself.

    Raises:
        ArgumentError: an argument is out of range.
        RtsrError: the model cannot be run.
    """

    __slots__ = (
        "__weakref__",
        "_batch",
        "_capacity",
        "_channels",
        "_colour",
        "_deadline",
        "_lines",
        "_loop",
        "_opening",
        "_past",
        "_plain",
        "_refused",
        "_sounds",
        "_step_seconds",
        "_steps",
        "_stopping",
        "_taken",
        "_thread",
        "_watch",
        "_work",
    )

    def __init__(
        self,
        capacity: int = 8,
        *,
        channels: int = 1,
        model: Model | str | Path = "small",
        provider: str = "auto",
        threads: int = 1,
        deadline_ms: float = 1000.0 * DEADLINE,
        colour: Colour | str | None = None,
    ) -> None:
        check_integer("number of calls", capacity)
        check_integer("number of channels", channels)
        check_real("deadline", deadline_ms)
        if not 1 <= capacity <= MOST_CALLS:
            raise ArgumentError(f"A process takes 1 to {MOST_CALLS} calls, not {capacity}.")
        if channels not in (1, 2):
            raise ArgumentError(f"A call has 1 or 2 channels, not {channels}.")
        if not 5.0 <= deadline_ms <= 200.0:
            raise ArgumentError(f"Sound waits 5 to 200 ms for the batch, not {shown(deadline_ms)}.")
        self._deadline = float(deadline_ms) / 1000.0
        self._capacity = capacity
        self._channels = channels
        self._lines: list[Line] = []
        self._sounds: list[SoundLine] = []
        self._taken = 0
        self._refused = 0
        self._steps = 0
        self._step_seconds = 0.0
        self._batch = BatchUpsampler(
            capacity * channels, model=model, provider=provider, threads=threads, buffer_ms=500
        )
        if isinstance(colour, AutoColour):
            raise ArgumentError(
                "An AutoColour is one caller's; give it to their call, or 'auto' to all of them."
            )
        resolve_colour(colour, self._batch.model)
        self._colour = colour
        warm_up(self._batch, channels)
        self._plain: list[Line] = []
        self._past = Totals()
        self._opening = 0
        self._work = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def capacity(self) -> int:
        """Calls at a time."""
        return self._capacity

    @property
    def channels(self) -> int:
        """Of every call's sound."""
        return self._channels

    @property
    def deadline(self) -> float:
        """Seconds that sound waits for the batch."""
        return self._deadline

    @property
    def batch(self) -> BatchUpsampler:
        """What all calls share; the engine steps it."""
        return self._batch

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the calls live on.

        Raises:
            RtsrError: the engine was never started.
        """
        if self._thread is None:
            self._check_runs()
        return self._loop

    @property
    def lines(self) -> tuple[Line, ...]:
        """Those that are open and enhance."""
        return tuple(self._lines)

    @property
    def sounds(self) -> tuple[SoundLine, ...]:
        """Those with codecs of their own."""
        return tuple(self._sounds)

    @property
    def taken(self) -> int:
        """How many were ever opened."""
        return self._taken

    @property
    def refused(self) -> int:
        """How many found no place."""
        return self._refused

    @property
    def steps(self) -> int:
        """Steps of the batch so far."""
        return self._steps

    @property
    def step_seconds(self) -> float:
        """Time spent in steps of the batch."""
        return self._step_seconds

    @property
    def calls(self) -> int:
        """How many are on."""
        return len(self._lines) + len(self._sounds)

    async def __aenter__(self) -> CallEngine:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to step; called on the event loop that the calls will live on.

        Raises:
            RtsrError: it was started before.
        """
        if self._thread is not None or self._stopping:
            raise RtsrError("A CallEngine is started once; make another one.")
        self._loop = asyncio.get_running_loop()
        # What was made so far stays; the collector need not scan it during calls.
        gc.collect()
        gc.freeze()
        self._thread = threading.Thread(target=self._run, name="rtsr-call-engine", daemon=True)
        self._thread.start()
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look_for_silence)

    async def stop(self) -> None:
        """End all lines and the thread. May be called twice, and without a start."""
        for line in [*self._lines, *self._plain]:
            line.close()
        for sound in list(self._sounds):
            sound.close()
        self._stopping = True
        self._work.set()
        if self._thread is not None:
            self._watch.cancel()
            await asyncio.to_thread(self._thread.join)
        self._batch.close()

    async def open(
        self,
        receiver: Receiver,
        sender: Sender | None,
        send: Callable[[Packet], None],
        *,
        name: str = "call",
        rate: int = 8000,
        seed: int = 0,
        wet: float = 1.0,
        event_rates: Mapping[int, int] | None = None,
        colour: Colour | AutoColour | str | None = None,
    ) -> Line:
        """Take a call.

        Args:
            receiver: as for :class:`~rtsr.call.path.MediaPath`.
            sender: likewise.
            send: likewise.
            name: for the log; never a person's number.
            rate: Hz of the sound that is expected first.
            seed: of the generated texture.
            wet: gain of the generated band, 0 to 1.
            event_rates: as for :class:`~rtsr.call.path.MediaPath`.
            colour: of the new band; the engine's if ``None``.

        Raises:
            BusyError: all slots are taken.
            RtsrError: the engine does not run.
            ArgumentError: the colour was learnt for another model.
        """
        stream = await self._take_place(rate, seed, wet, colour)
        self._taken += 1
        line = Line(
            self, MediaPath(receiver, stream, sender, send, event_rates, self._deadline), name
        )
        self._lines.append(line)
        return line

    def open_plain(
        self,
        receiver: Receiver,
        sender: Sender | None,
        send: Callable[[Packet], None],
        *,
        name: str = "return",
        event_rates: Mapping[int, int] | None = None,
    ) -> Line:
        """Open a direction that is only transcoded, as back to the telephone; it takes no slot."""
        self._check_runs()
        stream = CallStream(None, channels=receiver.channels)
        line = Line(
            self, MediaPath(receiver, stream, sender, send, event_rates, self._deadline), name
        )
        self._plain.append(line)
        return line

    async def open_sound(
        self,
        rate: int,
        *,
        seed: int = 0,
        wet: float = 1.0,
        colour: Colour | AutoColour | str | None = None,
    ) -> SoundLine:
        """Take a call whose sound is decoded and encoded elsewhere.

        Args:
            rate: Hz of what will be given to :meth:`~rtsr.call.upsampled.SoundLine.enhance`.
            seed: of the generated texture.
            wet: gain of the generated band, 0 to 1.
            colour: of the new band; the engine's if ``None``.

        Raises:
            BusyError: all slots are taken.
            RtsrError: the engine does not run.
            AudioFormatError: a rate that is not accepted.
            ArgumentError: the colour was learnt for another model.
        """
        line = SoundLine(self, await self._take_place(rate, seed, wet, colour), rate)
        self._taken += 1
        self._sounds.append(line)
        return line

    async def exchange(
        self,
        enhanced: Line,
        plain: Line,
        *,
        rate: int = 8000,
        colour: Colour | AutoColour | str | None = None,
    ) -> None:
        """Enhance a direction that was only transcoded in place of another one, as of its call.

        Both go on without a seam. Nobody else gets the place in between.

        Args:
            enhanced: has a place, and no other use for it.
            plain: of as many channels.
            rate: Hz of the sound that comes there.
            colour: of the new band; the engine's if ``None``.

        Raises:
            RtsrError: the engine does not run; both are only transcoded then.
            ArgumentError: the colour was learnt for another model.
        """
        if enhanced not in self._lines or plain not in self._plain:
            return
        enhanced.path.stream.leave()
        self._lines.remove(enhanced)
        self._plain.append(enhanced)
        place = await self._take_place(rate, 0, 1.0, colour)
        if plain.is_closed:
            place.close()
            return
        plain.path.stream.join(place)
        self._plain.remove(plain)
        self._lines.append(plain)

    def totals(self) -> Totals:
        """Return sums over all lines so far, those that only transcode included."""
        totals = Totals(**{each.name: getattr(self._past, each.name) for each in fields(Totals)})
        for line in [*self._lines, *self._plain]:
            totals.add(line.path)
        return totals

    def count_refused(self) -> None:
        """Count a call that was refused before a place was asked for."""
        self._refused += 1

    def forget_sound(self, line: SoundLine) -> None:
        """Forget a line that has ended; called by it."""
        with contextlib.suppress(ValueError):
            self._sounds.remove(line)

    def forget(self, line: Line) -> None:
        """Forget a line that has ended; called by it."""
        for lines in (self._lines, self._plain):
            if line in lines:
                lines.remove(line)
                self._past.add(line.path)
        line.path.close()

    def wake(self) -> None:
        """Sound waits for a step."""
        self._work.set()

    async def _take_place(
        self, rate: int, seed: int, wet: float, colour: Colour | AutoColour | str | None
    ) -> CallStream:
        self._check_runs()
        # A refusal must not cost a place.
        found = resolve_colour(self._colour if colour is None else colour, self._batch.model)
        if len(self._lines) + len(self._sounds) + self._opening >= self._capacity:
            self._refused += 1
            raise BusyError(f"All {self._capacity} lines are busy; try again later.")
        self._opening += 1
        try:
            # Opening waits for a step that is under way, which the event loop should not.
            opening = asyncio.ensure_future(
                asyncio.to_thread(CallStream, self._batch, rate, self._channels, seed, wet, found)
            )
            try:
                stream = await asyncio.shield(opening)
            except asyncio.CancelledError:
                # The thread goes on all the same; its place must not be lost.
                opening.add_done_callback(_close_unwanted)
                raise
            except RtsrError:
                # An engine that has stopped meanwhile has closed the batch in the midst of it.
                self._check_runs()
                raise
        finally:
            self._opening -= 1
        if self._stopping:
            stream.close()
        self._check_runs()
        return stream

    def _check_runs(self) -> None:
        if self._thread is None or self._stopping:
            raise RtsrError(
                "This CallEngine does not run; open calls within `async with CallEngine(...)`, or "
                "between start() and stop()."
            )

    def _run(self) -> None:
        while not self._stopping:
            self._work.wait()
            self._work.clear()
            started = time.perf_counter()
            try:
                # Under too much load there is always a next one; who wants to join, leave or send
                # audio has a turn before it.
                if self._step():
                    self._work.set()
                    # A packet of 20 ms is two hops, which a device takes one by one.
                    if self._batch.most_hops == 1 and not self._stopping:
                        self._step()
            except Exception:
                if self._stopping:
                    return
                # The streams go on dry; the next packets try the batch again.
                _log.exception("the batch could not step")
            if self._stopping:
                return
            self._loop.call_soon_threadsafe(self._deliver)
            rest = _REST * (time.perf_counter() - started)
            time.sleep(min(max(rest, _SHORTEST_REST), _LONGEST_REST))

    def _step(self) -> int:
        started = time.perf_counter()
        done = self._batch.step()
        if done:
            self._steps += 1
            self._step_seconds += time.perf_counter() - started
        return done

    def _look_for_silence(self) -> None:
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look_for_silence)
        for line in [*self._lines, *self._plain]:
            try:
                line.watch(self._loop.time())
            except Exception:
                # Who cannot be hung up properly must not keep the others' places taken.
                _log.exception("a silent call was not ended whole", extra={"call": line.name})

    def _deliver(self) -> None:
        for line in list(self._lines):
            if line.path.stream.has_finished:
                line.advance()
        for sound in self._sounds:
            sound.advance()


def _close_unwanted(opening: asyncio.Future[CallStream]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()

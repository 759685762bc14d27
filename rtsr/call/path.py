"""One direction of one call, from packet to packet."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Mapping

from rtsr.call.call_stream import CallStream
from rtsr.call.formats import Packet
from rtsr.call.keys import KeyReader
from rtsr.call.receiver import Origin, Receiver
from rtsr.call.reports import FarReports
from rtsr.call.sender import Sender
from rtsr.timing import HOP, SAMPLE_RATE

__all__ = ["MediaPath"]

_log = logging.getLogger(__name__)

#: Seconds after which what the batch has not finished is played without its new band.
DEADLINE = 0.040
#: A call that misses this many deadlines within two seconds is left out of the batch for a while.
MOST_MISSED = 4
MISSED_WITHIN = 2.0
#: Of the deadlines missed within so many seconds one counts: a stall misses several at once, and a
#: batch that never steps is to be left alone soon.
ONE_STALL = 0.1
SHORTEST_REST, LONGEST_REST = 5.0, 60.0

_REMEMBERED = 2048
# A part of a packet that has waited for the next one so many times in a row always does so.
_VAIN_WAITS = 25


class MediaPath:
    """Takes packets, and hands on others when their sound is finished.

    Everything happens in functions that take the time as an argument, from one thread; only the
    batch may be stepped by another.

    Args:
        receiver: orders and decodes what comes.
        stream: enhances it.
        sender: encodes the output; ``None`` as long as there is no listener.
        send: takes a packet.
        event_rates: Hz of the clock of incoming telephone events by their payload types; 8000 for
            those that are not named.
        deadline: seconds that sound waits for the batch.

    Attributes:
        processing_ms: times from the moment at which a chunk was due until its last sample was
            handed on, the newest 2048.
        missed: deadlines that the batch has missed.
        sheds: how often the call was left out of the batch.
        far: what the far end reports of what it hears.
        event_rates: as given; another description of the sender changes them.
        keys: how many were pressed (telephone events) whose time has come.
        on_key: called with each of them: "0" to "9", "*", "#", "A" to "D". It is called in the
            thread that calls :meth:`receive` and :meth:`advance`, the event loop's for a line, and
            the call's sound waits for it. What it raises is logged.
    """

    __slots__ = (
        "__weakref__",
        "_back_at",
        "_deadline",
        "_filled_at",
        "_key_reader",
        "_pushed",
        "_recent_misses",
        "_rest",
        "_send",
        "_taken",
        "_vain_waits",
        "event_rates",
        "far",
        "keys",
        "missed",
        "on_key",
        "processing_ms",
        "receiver",
        "sender",
        "sheds",
        "stream",
    )

    def __init__(
        self,
        receiver: Receiver,
        stream: CallStream,
        sender: Sender | None,
        send: Callable[[Packet], None],
        event_rates: Mapping[int, int] | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self.receiver = receiver
        self.stream = stream
        self.sender = sender
        self.processing_ms: collections.deque[float] = collections.deque(maxlen=_REMEMBERED)
        self.missed = 0
        self.sheds = 0
        self.far = FarReports()
        self.keys = 0
        self.on_key: Callable[[str], None] | None = None
        self._key_reader = KeyReader()
        self._send = send
        self.event_rates = event_rates or {}
        self._deadline = deadline
        self._pushed: collections.deque[tuple[int, float]] = collections.deque()
        self._taken = 0
        self._recent_misses: collections.deque[float] = collections.deque(maxlen=MOST_MISSED)
        self._back_at = 0.0
        self._rest = SHORTEST_REST
        self._vain_waits = 0
        # Up to when the listener has been sent silence in a pause.
        self._filled_at: float | None = None

    @property
    def wake_at(self) -> float | None:
        """When :meth:`advance` should be called next, unless a packet comes before."""
        times = [self.receiver.wake_at]
        if self._pushed:
            times.append(self._pushed[0][1] + self._deadline)
        return min((time for time in times if time is not None), default=None)

    def receive(self, packet: Packet, now: float) -> None:
        """Take a packet that arrived at ``now`` seconds; never raises for what is in it."""
        self.receiver.receive(packet, now)
        self.advance(now)

    def advance(self, now: float) -> None:
        """Let the sound into the batch whose time has come, and check whether a step is late."""
        chunks = self.receiver.poll(now)
        if chunks and not self._pushed:
            self._look_for_excess()
        for chunk in chunks:
            pause = chunk.pause if self._filled_at is None else now - self._filled_at
            self._filled_at = None
            if pause and self.sender is not None:
                self.sender.pause(pause)
            self.stream.push(chunk)
            if chunk.origin is not Origin.TAIL:
                self._pushed.append((self.stream.pushed, now))
        events, self.receiver.events = self.receiver.events, []
        for event in events:
            reading = self._key_reader.read(event)
            if reading is None:
                continue
            if reading.key is not None:
                self.keys += 1
                self._report(reading.key)
            if self.sender is not None:
                rate = self.event_rates.get(event.payload_type, 8000)
                self._hand_on(self.sender.event(event, rate, reading))
        self.deliver(now)

    def deliver(self, now: float) -> None:
        """Hand on what is finished; after the deadline also what is not."""
        is_late = bool(self._pushed) and now - self._pushed[0][1] >= self._deadline
        # A rest of a hop waits for the next packet, and nothing is late then.
        misses = is_late and self.stream.is_due
        if misses:
            self._count_miss(now)
        if self.stream.left_out and now >= self._back_at:
            self.stream.left_out = False
        sound = self.stream.take(everything=misses)
        self._taken += len(sound)
        if len(sound) and self.sender is not None:
            self._hand_on(self.sender.push(sound))
        while self._pushed and self._pushed[0][0] <= self._taken:
            self.processing_ms.append(1000.0 * (now - self._pushed.popleft()[1]))
        if is_late and not misses and self._pushed:
            self._pushed.popleft()

    def fill_pause(self, now: float) -> None:
        """Send a packet of silence if there is no sound at all: the listener knows of no pause."""
        if self.sender is None or self.receiver.wake_at is not None:
            return
        since = self.receiver.paused_at if self._filled_at is None else self._filled_at
        self._filled_at = now
        self._hand_on(self.sender.fill(0.0 if since is None else now - since))

    def close(self) -> None:
        """Give the place in the batch back, and end the encoder. May be called twice."""
        self.stream.close()
        if self.sender is not None:
            self.sender.close()

    def _report(self, key: str) -> None:
        if self.on_key is None:
            return
        try:
            self.on_key(key)
        except Exception:
            # Neither the keys after it nor the sound are lost by that.
            _log.exception("a key was not taken")

    def _look_for_excess(self) -> None:
        """Find whether a hop of sound is always late by a packet that it is not needed for.

        Where the wait has changed by an odd number of hops, each packet of two hops completes the
        half of one that was begun before, and leaves a half.
        """
        if self.sender is None:
            return
        waits = self.sender.waiting >= self.sender.format.sample_rate * HOP // SAMPLE_RATE
        self._vain_waits = self._vain_waits + 1 if waits else 0
        self.sender.excess = self.sender.waiting if self._vain_waits >= _VAIN_WAITS else 0

    def _count_miss(self, now: float) -> None:
        self.missed += 1
        recent = self._recent_misses
        if recent and now - recent[-1] < ONE_STALL:
            return
        recent.append(now)
        within = len(recent) == MOST_MISSED and now - recent[0] < MISSED_WITHIN
        if within and not self.stream.left_out:
            # Who comes back and is late again rests for longer.
            soon = now - self._back_at < self._rest
            self._rest = min(2.0 * self._rest, LONGEST_REST) if soon else SHORTEST_REST
            self._back_at = now + self._rest
            self.stream.left_out = True
            self.sheds += 1
            recent.clear()

    def _hand_on(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._send(packet)

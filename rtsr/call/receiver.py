"""The receiving end of a call: packets in at any time, sound out in time.

Every packet has its moment: its media time plus an offset, which the delay estimator steers. It is
played then, or when it comes if that is a little later; nothing else waits. Where there is none in
time, sound is made up, and if the estimator wants to wait longer, that is how: what was made up
then counts as a wait, and the missing packet is still played if it comes. Apart from that the wait
is stretched or shrunk in pauses. Where packets that were held up come at once, the newest of them
are played: nobody converses over a longer wait.
"""

from __future__ import annotations

import collections
import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtsr.call.comfort_noise import ComfortNoise
from rtsr.call.concealment import Concealer
from rtsr.call.decoders import (
    Decoder,
    is_opus_silence,
    open_decoder,
    opus_bandwidth_hz,
    packet_samples,
)
from rtsr.call.delay import LONGEST_TARGET, SLACK, DelayEstimator
from rtsr.call.formats import (
    COMFORT_NOISE,
    OPUS,
    PCMU,
    TELEPHONE_EVENT,
    Packet,
    PayloadFormat,
    PayloadMap,
)
from rtsr.call.media_clock import UNITS, MediaClock
from rtsr.call.packet_queue import PacketQueue, QueuedPacket
from rtsr.call.time_scale import is_quiet, lengthen, pitch_lag, shorten
from rtsr.errors import AudioFormatError

__all__ = ["Chunk", "Origin", "ReceiveCounts", "Receiver"]

Audio = NDArray[np.float32]

#: After so long without a packet nothing more is made up, and the stream pauses.
IDLE_SECONDS = 0.5
#: A far end that has described its noise, or whose Opus says that it is silent, may be so for
#: longer.
IDLE_COMFORT_SECONDS = 10.0
#: What the end of one codec's sound is continued by, to be faded over to the next one's.
TAIL_SECONDS = 0.010

# Once sound has been made up for the beginning of a packet, its rest waits no longer than this:
# another 8 ms would hold up what leaves by 18.
_SLACK_WITHIN = 0.002
# A timer that fires this early is in time.
_EARLY = 0.0005
# Offsets within this of the wanted one stay; the delay changes by this step at a time.
_STEP = 0.010
# An offset so wrong is corrected within speech, too.
_URGENT = 0.060
# So many packets in a row that come after their time show that the time is wrong.
_MOST_LATE = 5
# Nothing is cut out that one of so many packets, the newest to be played, had no time to spare for.
_SPARED = 10


class Origin(enum.Enum):
    """Where the sound of a chunk is from."""

    DECODED = "decoded"
    CONCEALED = "concealed"
    COMFORT = "comfort noise"
    #: A continuation of the old codec's sound, to be faded out under the chunk that follows.
    TAIL = "tail"


@dataclass(frozen=True)
class Chunk:
    """A stretch of sound.

    Attributes:
        sound: float32 ``(samples, channels)`` in [-1, 1].
        rate: Hz of it.
        cutoff: Hz where its content ends, where the codec says so; else ``None``.
        origin: decoded, concealed or comfort noise.
        pause: seconds without any sound before it.
        arrival: when its packet came, in seconds; ``None`` if there was none.
    """

    sound: Audio
    rate: int
    cutoff: float | None
    origin: Origin
    pause: float = 0.0
    arrival: float | None = None


@dataclass
class ReceiveCounts:
    """What has happened to a stream so far.

    Attributes:
        received: packets of formats that are known.
        lost: packets that never came, or came too late.
        late: packets that came after their time.
        malformed: packets that are not what they say, too long, or of an unknown format.
        concealed_seconds: sound that was made up.
        inserted_seconds: waiting that was added.
        removed_seconds: waiting that was taken away.
        format_changes: changes of codec.
    """

    received: int = 0
    lost: int = 0
    late: int = 0
    malformed: int = 0
    concealed_seconds: float = 0.0
    inserted_seconds: float = 0.0
    removed_seconds: float = 0.0
    format_changes: int = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What is known of a packet in the queue."""

    at: int
    units: int
    arrival: float
    form: PayloadFormat


class Receiver:
    """Turns the packets of one sender into a gapless stream of sound.

    Args:
        formats: what each payload type means.
        channels: of the sound.

    Attributes:
        counts: what has happened so far.
        events: packets with telephone events whose time has come, for the caller to take.
    """

    __slots__ = (
        "__weakref__",
        "_bandwidth",
        "_clock",
        "_comfort",
        "_concealer",
        "_decoder",
        "_delay",
        "_is_dtx",
        "_is_shortening",
        "_is_silence",
        "_last_arrival",
        "_last_number",
        "_late_in_a_row",
        "_made_up",
        "_missing",
        "_offset",
        "_packet_units",
        "_pause",
        "_paused_at",
        "_played_transits",
        "_position",
        "_queue",
        "_waiting",
        "channels",
        "counts",
        "events",
        "formats",
    )

    def __init__(self, formats: PayloadMap, channels: int = 1) -> None:
        self.formats = formats
        self.channels = channels
        self.counts = ReceiveCounts()
        self.events: list[Packet] = []
        self._queue = PacketQueue()
        self._waiting: dict[int, _Waiting] = {}
        self._clock = MediaClock()
        self._delay = DelayEstimator()
        self._decoder: Decoder | None = None
        self._comfort = ComfortNoise(channels)
        self._concealer = Concealer(PCMU.sample_rate, channels)
        self._position: int | None = None
        self._offset = 0.0
        self._last_number: int | None = None
        self._last_arrival = 0.0
        self._paused_at: float | None = None
        self._pause = 0.0
        self._is_silence = False
        self._is_dtx = False
        self._made_up = 0
        self._missing = 0
        self._packet_units = 1
        self._late_in_a_row = 0
        self._played_transits: collections.deque[float] = collections.deque(maxlen=_SPARED)
        self._is_shortening = False
        self._bandwidth: float | None = None

    @property
    def jitter_ms(self) -> float:
        """Mean milliseconds by which packets came later than the fastest."""
        return 1000.0 * self._delay.jitter

    @property
    def wait_ms(self) -> float:
        """Milliseconds that a packet which nothing held up waits for its moment."""
        return 1000.0 * max(0.0, self._offset - self._delay.baseline)

    @property
    def packet_ms(self) -> float:
        """Milliseconds of sound in the newest packet that was played; 0 before the first."""
        return 0.0 if self._decoder is None else 1000.0 * self._packet_units / UNITS

    @property
    def format(self) -> PayloadFormat | None:
        """The codec of the newest sound."""
        return self._decoder.format if self._decoder else None

    @property
    def duplicates(self) -> int:
        """Packets that came more than once."""
        return self._queue.duplicates

    @property
    def paused_at(self) -> float | None:
        """Since when nothing is made up any more; ``None`` where there is sound, or never was."""
        return self._paused_at if self._position is None else None

    @property
    def wake_at(self) -> float | None:
        """When :meth:`poll` should be called next, unless a packet comes before."""
        if self._position is None:
            return None
        first = self._first()
        due = self._due(self._position)
        return due if first is not None and first.at <= self._position else due + self._slack

    def receive(self, packet: Packet, now: float) -> None:
        """Take a packet that arrived at ``now`` seconds. Nothing that it holds raises."""
        form = self.formats.get(packet.payload_type)
        if form is None:
            self.counts.malformed += 1
            return
        units = 0
        if form not in (COMFORT_NOISE, TELEPHONE_EVENT):
            units = packet_samples(form, packet.payload) * (UNITS // form.sample_rate)
            if not units:
                self.counts.malformed += 1
                return
        restarts = self._queue.restarts
        queued = self._queue.put(packet)
        if queued is None:
            return
        self.counts.received += 1
        restarted = self._queue.restarts != restarts
        if restarted:
            self._waiting.clear()
            self._last_number = None
        # Events are stamped with their beginning, and comfort noise has no clock of its own.
        at = self._clock.at(
            queued.number,
            queued.time,
            self._clock_rate(form),
            now,
            restarted,
            is_event=form is TELEPHONE_EVENT,
        )
        self._waiting[queued.number] = _Waiting(at, units, now, form)
        if units:
            self._delay.observe(at / UNITS, now)
        if self._position is None:
            self._begin(at, now)
        elif units and at < self._position:
            self._reconsider(at)
        wait = self._due(at) - now
        if units and wait > LONGEST_TARGET + _STEP:
            self._skip(wait - LONGEST_TARGET, now)
        if self._queue.is_too_long:
            self._skip(0.0, now)
        self._last_arrival = now

    def poll(self, now: float) -> list[Chunk]:
        """Return the sound that is due by ``now`` seconds, in order."""
        chunks: list[Chunk] = []
        while self._position is not None:
            made = self._next(now)
            if made is None:
                break
            chunks.extend(made)
        return chunks

    def _begin(self, at: int, now: float) -> None:
        self._position = at
        self._offset = max(now - at / UNITS, self._delay.baseline + self._delay.target)
        self._pause = 0.0 if self._paused_at is None else now - self._paused_at
        self._last_number = None
        self._made_up = self._missing = 0

    def _reconsider(self, at: int) -> None:
        """Take what was made up for a wait, if the sender goes on from there or from within it.

        It has stood still then, or the network has held everything up. A packet that others have
        overtaken has lost its place to them.
        """
        assert self._position is not None
        passed = self._position - at
        if passed <= self._made_up:
            self._offset += passed / UNITS
            self.counts.inserted_seconds += passed / UNITS
            self._position = at
            self._made_up -= passed

    def _skip(self, seconds: float, now: float) -> None:
        """Go on with what waits behind so many seconds of sound; what is left out is lost."""
        assert self._position is not None
        goal = self._position + round(seconds * UNITS)
        # Sound that was due while nobody asked for it is due now.
        due = max(self._due(self._position), now)
        first = self._first()
        while first is not None and len(self._queue) > 1:
            if first.at >= goal and not self._queue.is_too_long:
                break
            if first.units:
                self._drop()
            else:
                self._take_what_has_no_time(first)
            first = self._first()
        if first is not None:
            self._position = max(self._position, first.at)
        change = due - self._due(self._position)
        self._offset += change
        if change > 0.0:
            self.counts.inserted_seconds += change
        else:
            self.counts.removed_seconds -= change

    def _next(self, now: float) -> list[Chunk] | None:
        """Return the next chunk, or ``None`` if nothing is due; an empty list means: ask again."""
        assert self._position is not None
        first = self._first()
        if first is not None and first.at + first.units <= self._position:
            return self._take_what_has_no_time(first)
        due = self._due(self._position)
        if first is not None and first.at <= self._position:
            return None if now + _EARLY < due else self._play(first)
        if now + _EARLY < due + self._slack:
            return None
        if first is None and self._is_idle(now):
            self._paused_at = now
            self._position = None
            return None
        return [self._make_up(None if first is None else first.at - self._position)]

    def _take_what_has_no_time(self, first: _Waiting) -> list[Chunk]:
        """Events and noise descriptions, whose time has come, and sound whose time is over."""
        assert self._position is not None
        queued = self._pop()
        if first.form is TELEPHONE_EVENT:
            self.events.append(queued.packet)
            self._is_silence = True
        elif first.form is COMFORT_NOISE:
            self._comfort.describe(queued.packet.payload)
            self._is_silence = True
        else:
            self.counts.late += 1
            # Behind others that were played it was counted with them.
            if queued.number == self._last_number:
                self.counts.lost += 1
            self._late_in_a_row += 1
            if self._late_in_a_row >= _MOST_LATE:
                behind = (self._position - first.at) / UNITS
                self._offset += behind
                self.counts.inserted_seconds += behind
                self._position = first.at + first.units
                self._late_in_a_row = 0
        return []

    def _play(self, first: _Waiting) -> list[Chunk]:
        assert self._position is not None
        chunks = []
        if self._decoder is None or self._decoder.format is not first.form:
            chunks.extend(self._change_format(first.form))
        decoder = self._decoder
        assert decoder is not None
        queued = self._pop()
        try:
            sound = decoder.decode(queued.packet.payload)
        except AudioFormatError:
            self.counts.malformed += 1
            return [*chunks, self._make_up(first.at + first.units - self._position)]
        if first.form is OPUS:
            self._bandwidth = float(opus_bandwidth_hz(queued.packet.payload))
        rate = first.form.sample_rate
        sound = sound[(self._position - first.at) * rate // UNITS :]
        self._position = first.at + first.units
        self._made_up = self._missing = 0
        self._packet_units = first.units
        self._late_in_a_row = 0
        self._played_transits.append(first.arrival - first.at / UNITS)
        self._is_dtx = first.form is OPUS and is_opus_silence(queued.packet.payload)
        self._is_silence = self._is_dtx
        sound = self._concealer.accept(sound)
        self._comfort.observe(sound)
        sound = self._adjusted(sound, rate)
        chunks.append(self._chunk(sound, Origin.DECODED, first.arrival))
        return chunks

    def _make_up(self, most: int | None) -> Chunk:
        """Return sound for a moment whose packet is missing; at most `most` units."""
        assert self._position is not None
        decoder = self._decoder
        rate = self._concealer.rate
        samples = rate // 100 if decoder is None else decoder.concealment_samples
        if most is not None:
            samples = max(1, min(samples, most * rate // UNITS))
        own = None
        if decoder is not None and (self._is_dtx or not self._is_silence):
            own = decoder.conceal(samples)
        if own is not None:
            self._concealer.accept_made_up(own)
            sound = own
        else:
            comfort = self._comfort.make(samples)
            sound = self._concealer.continue_sound(samples, comfort)
        self._missing += samples * (UNITS // rate)
        excess = self._offset - self._delay.baseline - self._delay.target
        if excess < -max(0.5 * _STEP, 0.5 * samples / rate):
            # Nowhere is a longer wait cheaper than where something is made up anyway.
            self._offset += samples / rate
            self.counts.inserted_seconds += samples / rate
        else:
            self._position += samples * (UNITS // rate)
            self._made_up += samples * (UNITS // rate)
        if not self._is_silence:
            self.counts.concealed_seconds += samples / rate
        return self._chunk(sound, Origin.COMFORT if self._is_silence else Origin.CONCEALED)

    def _change_format(self, form: PayloadFormat) -> list[Chunk]:
        tail = []
        if self._decoder is not None:
            self.counts.format_changes += 1
            samples = round(TAIL_SECONDS * self._concealer.rate)
            tail = [self._chunk(self._concealer.continue_sound(samples), Origin.TAIL)]
        self._is_dtx = False
        self._decoder = open_decoder(form, self.channels)
        self._concealer = Concealer(form.sample_rate, self.channels)
        self._bandwidth = None
        return tail

    def _chunk(self, sound: Audio, origin: Origin, arrival: float | None = None) -> Chunk:
        pause, self._pause = self._pause, 0.0
        return Chunk(sound, self._concealer.rate, self._bandwidth, origin, pause, arrival)

    def _adjusted(self, sound: Audio, rate: int) -> Audio:
        """Return the sound, stretched or shrunk a little if the delay should grow or shrink."""
        excess = self._offset - self._delay.baseline - self._delay.target
        if excess > 0.0:
            # Where a sender's clock loses time, the newest packets say more than the last seconds.
            excess = min(excess, self._offset - max(self._played_transits) + SLACK)
        # Whole hops in pauses: what follows then still begins with the packets.
        lag = rate // 100
        # Half a packet less of waiting would be spent on waiting for the packet's other half.
        self._is_shortening = excess >= (_STEP if self._is_shortening else 2.0 * _STEP)
        if not (self._is_shortening or excess <= -_STEP) or len(sound) < 2 * lag:
            return sound
        if not is_quiet(sound):
            lag = pitch_lag(sound, lag, rate) if abs(excess) >= _URGENT else 0
        if not lag:
            return sound
        adjusted = shorten(sound, lag) if excess > 0.0 else lengthen(sound, lag)
        change = (len(adjusted) - len(sound)) / rate
        self._offset += change
        if change > 0.0:
            self.counts.inserted_seconds += change
        else:
            self.counts.removed_seconds -= change
        return adjusted

    def _first(self) -> _Waiting | None:
        queued = self._queue.first()
        return None if queued is None else self._waiting[queued.number]

    def _drop(self) -> None:
        """Leave out the first packet; it is counted when the next one is played."""
        number = self._queue.pop().number
        del self._waiting[number]
        if self._last_number is None:
            self._last_number = number - 1

    def _pop(self) -> QueuedPacket:
        queued = self._queue.pop()
        del self._waiting[queued.number]
        if self._last_number is None:
            self._last_number = queued.number
        # One that comes late was counted when the next one was played.
        self.counts.lost += max(0, queued.number - self._last_number - 1)
        self._last_number = max(queued.number, self._last_number)
        return queued

    @property
    def _slack(self) -> float:
        """Seconds that sound which is missing now is waited for beyond its moment."""
        return _SLACK_WITHIN if self._missing % self._packet_units else SLACK

    def _due(self, position: int) -> float:
        return position / UNITS + self._offset

    def _is_idle(self, now: float) -> bool:
        is_announced = self._is_dtx or self._comfort.is_described
        limit = IDLE_COMFORT_SECONDS if is_announced else IDLE_SECONDS
        return now - self._last_arrival > limit

    def _clock_rate(self, form: PayloadFormat) -> int:
        """Hz of a packet's clock; noise and events go by that of the sound around them."""
        if form in (COMFORT_NOISE, TELEPHONE_EVENT) and self._decoder is not None:
            return self._decoder.format.clock_rate
        return form.clock_rate

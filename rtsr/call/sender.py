"""The sending end of a call: sound at 48 kHz in, RTP packets out."""

from __future__ import annotations

import secrets
import struct

import numpy as np
from numpy.typing import NDArray

from rtsr.call.dtx import DiscontinuousTransmission
from rtsr.call.encoders import DEFAULT_BITRATE, Encoder, open_encoder
from rtsr.call.formats import OPUS, Packet, PayloadFormat
from rtsr.call.keys import LONGEST_EVENT, KeyReading, Part
from rtsr.call.time_scale import is_quiet, shorten
from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.resample import StreamingResampler

__all__ = ["Sender"]

Audio = NDArray[np.float32]

_EVENT = struct.Struct("!BBH")
# The bits of an event's flags that say how loud it is.
_VOLUME = 0x3F
# A packet that is further ahead, of a clock that nobody has, does not fill the gap.
_MOST_SEGMENTS = 8


class Sender:
    """Encodes a stream and numbers its packets; begins at random numbers (RFC 3550, 5.1).

    Args:
        form: the codec.
        payload_type: what the far end calls it.
        channels: of the sound.
        bitrate: bits per second, for Opus.
        event_type: payload type of telephone events, if the far end takes some.
        event_rate: Hz of their clock.
        dtx: whether silence is not sent, where the codec is Opus.

    Attributes:
        sent: packets so far.
        unsent_seconds: silence so far for which no packet was sent.
        is_held: whether the far end wants no packets for now; numbers then wait, and time goes on.
        excess: samples at the codec's rate that wait in vain; they are cut out in the next pause.

    Raises:
        AudioFormatError, RtsrError: as :func:`~rtsr.call.encoders.open_encoder`.
    """

    __slots__ = (
        "__weakref__",
        "_bitrate",
        "_channels",
        "_encoder",
        "_event_rate",
        "_event_time",
        "_event_type",
        "_marker",
        "_number",
        "_payload_type",
        "_resampler",
        "_segment",
        "_silence",
        "_ticks",
        "_time",
        "_waiting",
        "excess",
        "format",
        "is_held",
        "sent",
        "ssrc",
        "unsent_seconds",
    )

    def __init__(
        self,
        form: PayloadFormat,
        payload_type: int,
        channels: int = 1,
        bitrate: int = DEFAULT_BITRATE,
        event_type: int | None = None,
        event_rate: int = 8000,
        dtx: bool = False,
    ) -> None:
        self.sent = 0
        self.unsent_seconds = 0.0
        self.is_held = False
        self.excess = 0
        self.ssrc = secrets.randbits(32)
        self._bitrate = bitrate
        self._event_type = event_type
        self._event_rate = event_rate
        # When the press began that is sent, and which of its segments is.
        self._event_time: int | None = None
        self._segment = 0
        # The upper half is left free: a counter that wraps early upsets some decryptions.
        self._number = secrets.randbits(15)
        self._time = secrets.randbits(32)
        self._channels = channels
        self._marker = True
        self._waiting: Audio = np.zeros((0, channels), np.float32)
        self._silence: DiscontinuousTransmission | None = None
        self._encoder: Encoder | None = None
        self._begin(form, bitrate)
        self._agree(payload_type, dtx)

    @property
    def dtx(self) -> bool:
        """Whether silence is not sent."""
        return self._silence is not None

    @property
    def waiting(self) -> int:
        """Samples at the codec's rate that do not make a whole frame yet."""
        return len(self._waiting)

    def push(self, sound: Audio) -> list[Packet]:
        """Add sound ``(samples, channels)`` at 48 kHz; returns the packets that it completes."""
        if self._encoder is None:
            return []
        if self.format.sample_rate != SAMPLE_RATE:
            sound = self._resampler.process(np.ascontiguousarray(sound))
        waiting = np.concatenate([self._waiting, sound]) if len(self._waiting) else sound
        if self.excess and len(waiting) >= 2 * self.excess and is_quiet(waiting):
            waiting = shorten(waiting, self.excess)
            self.excess = 0
        size = self._encoder.frame_samples
        packets = []
        for start in range(0, len(waiting) - size + 1, size):
            frame = waiting[start : start + size]
            payload = self._encoder.encode(frame)
            if self._silence is not None:
                payload = self._silence.payload(frame, payload)
            is_silent = self._silence is not None and self._silence.is_silent
            if self.is_held:
                is_silent = True
            elif payload:
                marker = self._marker and not is_silent
                packets.append(self._packet(self._payload_type, self._time, payload, marker))
            else:
                self.unsent_seconds += size / self.format.sample_rate
            self._time = (self._time + self._ticks) % 2**32
            # The first packet of sound is marked, not those that say that there is none.
            self._marker = is_silent
        self._waiting = waiting[len(waiting) // size * size :]
        return packets

    def close(self) -> None:
        """Let go of the encoder; nothing is sent any more. May be called twice.

        FFmpeg has threads for each encoder, two on two cores. What else there is of a call may be
        known for long after it, until the garbage collector comes round.
        """
        self._encoder = None

    def change(
        self,
        form: PayloadFormat,
        payload_type: int,
        dtx: bool = False,
        *,
        event_type: int | None = None,
        event_rate: int = 8000,
        bitrate: int | None = None,
    ) -> None:
        """Send another codec, or the same under another number, from the next frame on.

        After ``close`` nothing is changed.

        Args:
            form: the codec.
            payload_type: what the far end calls it.
            dtx: whether silence is not sent, where the codec is Opus.
            event_type: payload type of telephone events, if the far end takes some.
            event_rate: Hz of their clock.
            bitrate: bits per second, for Opus; as before if ``None``.

        Raises:
            AudioFormatError: the codec does not support this number of channels.
        """
        if self._encoder is None:
            return
        bitrate = self._bitrate if bitrate is None else bitrate
        if form is not self.format:
            self._begin(form, bitrate)
            self._marker = True
        elif form is OPUS and bitrate != self._bitrate:
            self._encoder = open_encoder(form, self._channels, bitrate)
        self._bitrate = bitrate
        self._event_type, self._event_rate = event_type, event_rate
        self._agree(payload_type, dtx)

    def pause(self, seconds: float) -> None:
        """Say that there was no sound for so long: timestamps go on without packets."""
        self._waiting = self._waiting[:0]
        self.excess = 0
        if self._silence is not None:
            self._silence.pause(seconds)
        self._time = (self._time + round(seconds * self.format.clock_rate)) % 2**32
        self._marker = True

    def fill(self, seconds: float) -> list[Packet]:
        """Say that there was no sound for so long, and send a frame of silence at its end."""
        if self._encoder is None:
            return []
        frame = self._encoder.frame_samples / self.format.sample_rate
        self.pause(max(0.0, seconds - frame))
        # It is no beginning of sound; what follows is.
        self._marker = False
        silence = np.zeros((round(frame * SAMPLE_RATE), self._channels), np.float32)
        packets = self.push(silence)
        self._marker = True
        return packets

    def event(self, packet: Packet, rate: int, reading: KeyReading) -> list[Packet]:
        """Pass on a packet with a telephone event (RFC 4733).

        A press that is longer than its duration can say goes out in segments of our own (2.5.1.3),
        wherever those that come in begin.

        Args:
            packet: as it came.
            rate: Hz of its clock.
            reading: what it is, from :meth:`rtsr.call.keys.KeyReader.read`.

        Returns:
            The packet for the far end, and what ends the segments before it; none if the far end
            takes no events, or it is late and of an older press.
        """
        if self._event_type is None or self.is_held:
            self._event_time = None
            return []
        if reading.part is Part.LATE:
            return []
        event, flags, duration = _EVENT.unpack_from(packet.payload)
        lasts = (reading.elapsed + duration) * self._event_rate // rate
        segment = max(0, lasts - 1) // LONGEST_EVENT
        is_new = reading.part is Part.BEGINS or self._event_time is None
        if self._event_time is None or is_new:
            # All packets of an event carry its beginning.
            self._event_time, self._segment = self._time, 0
        whole = _EVENT.pack(event, flags & _VOLUME, LONGEST_EVENT)
        packets: list[Packet] = []
        for ended in range(max(self._segment, segment - _MOST_SEGMENTS), segment):
            packets.append(self._event_packet(ended, whole, is_new and not packets))
        self._segment = max(self._segment, segment)
        payload = _EVENT.pack(event, flags, lasts - segment * LONGEST_EVENT)
        packets.append(self._event_packet(segment, payload, is_new and not packets))
        return packets

    def _event_packet(self, segment: int, payload: bytes, marker: bool) -> Packet:
        assert self._event_type is not None
        assert self._event_time is not None
        time = (self._event_time + segment * LONGEST_EVENT) % 2**32
        return self._packet(self._event_type, time, payload, marker)

    def _begin(self, form: PayloadFormat, bitrate: int) -> None:
        self._encoder = encoder = open_encoder(form, self._channels, bitrate)
        self.format: PayloadFormat = form
        self._resampler = StreamingResampler(SAMPLE_RATE, form.sample_rate, self._channels)
        self._ticks = encoder.frame_samples * form.clock_rate // form.sample_rate
        self._waiting = self._waiting[:0]
        self.excess = 0

    def _agree(self, payload_type: int, dtx: bool) -> None:
        self._payload_type = payload_type
        dtx = dtx and self.format is OPUS
        if dtx != self.dtx:
            self._silence = DiscontinuousTransmission() if dtx else None

    def _packet(self, payload_type: int, time: int, payload: bytes, marker: bool) -> Packet:
        packet = Packet(payload_type, self._number, time, payload, marker, self.ssrc)
        self._number = (self._number + 1) % 2**16
        self.sent += 1
        return packet

"""Tracks for aiortc: enhanced sound for any application, and packets that are coded already."""

from __future__ import annotations

import asyncio
import contextlib
import fractions

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from numpy.typing import NDArray

from rtsr.call.formats import Packet
from rtsr.call.upsampled import SoundLine
from rtsr.errors import ArgumentError
from rtsr.timing import SAMPLE_RATE

__all__ = ["PacketTrack", "UpsampledTrack"]

Audio = NDArray[np.float32]

_FRAME = 960
_TIME_BASE = fractions.Fraction(1, SAMPLE_RATE)
_INT16 = 32768.0
# Seconds: less than a packet, and more than timestamps waver.
_SHORTEST_PAUSE = 0.015
# Seconds by which timestamps go back only where their source begins anew.
_LONGEST_STEP_BACK = 1.0
#: Of integers, by their size in bytes: the value of silence, and the largest step from it.
_FULL_SCALE = {
    1: (np.float32(128.0), np.float32(128.0)),
    2: (np.float32(0.0), np.float32(_INT16)),
    4: (np.float32(0.0), np.float32(2.0**31)),
}
# A track without a listener stores half a second.
_MOST_WAITING = 25


class UpsampledTrack(MediaStreamTrack):
    """The sound of another track, full-band at 48 kHz, in frames of 20 ms.

    >>> async with CallEngine(4) as engine:                      # doctest: +SKIP
    ...     track = UpsampledTrack(receiver.track, await engine.open_sound(8000))

    ``examples/aiortc_answer.py`` is a whole application. aiortc stops a track that it has begun to
    send; where a connection never came about, whoever made the track calls :meth:`stop`.

    Args:
        source: gives audio frames, 16-bit as aiortc's decoders do or of another PCM format; their
            rate may change.
        stream: from :meth:`~rtsr.call.engine.CallEngine.open_sound`, for this track alone; closed
            with it.

    Raises:
        ArgumentError: the source is no track of sound; the stream is closed then, too.
    """

    kind = "audio"

    def __init__(self, source: MediaStreamTrack, stream: SoundLine) -> None:
        super().__init__()
        if source.kind != "audio":
            stream.close()
            raise ArgumentError(
                f"An UpsampledTrack takes a track of kind 'audio', not {source.kind!r}."
            )
        self._source = source
        self._stream = stream
        self._rest: Audio = np.zeros((0, stream.channels), np.float32)
        self._time = 0
        self._source_time: float | None = None
        self._gap = 0
        self._pause = 0

    async def recv(self) -> av.AudioFrame:
        """Return the next frame, as soon as the source has given enough for it.

        Where the source's timestamps leave something out, as in a pause or where a packet was lost,
        so do these, and a frame that has begun is filled with silence.

        Raises:
            MediaStreamError: the source, this track or the engine has ended.
            AudioFormatError: the source's frames have a rate that is not accepted.
        """
        while len(self._rest) < _FRAME:
            if self.readyState != "live":
                raise MediaStreamError
            try:
                frame = await self._source.recv()
                # Where the engine has stopped, so has its sound.
                if self._stream.is_closed:
                    raise MediaStreamError
            except MediaStreamError:
                self.stop()
                raise
            assert isinstance(frame, av.AudioFrame)
            if frame.sample_rate != self._stream.rate:
                self._stream.rate = frame.sample_rate
            # Whoever gives this up while the engine works gets the sound with the next frame.
            self._gap += self._left_out(frame)
            sound = await self._stream.enhance(_as_sound(frame, self._stream.channels))
            pause, self._gap = self._gap, 0
            if pause:
                silence = np.zeros(
                    (min(pause, -len(self._rest) % _FRAME), sound.shape[1]), np.float32
                )
                self._rest = np.concatenate([self._rest, silence])
                self._pause += pause - len(silence)
            if not len(self._rest):
                self._time += self._pause
                self._pause = 0
            self._rest = np.concatenate([self._rest, sound])
        out = self._as_frame(self._rest[:_FRAME])
        self._rest = self._rest[_FRAME:]
        self._time += self._pause
        self._pause = 0
        return out

    def stop(self) -> None:
        """End this track and give its place in the batch back; the source goes on."""
        super().stop()
        self._stream.close()

    def _left_out(self, frame: av.AudioFrame) -> int:
        """Return how many samples at 48 kHz are missing before a frame, by its timestamp.

        It is compared with the sum of all so far, so that timestamps that only waver add nothing.
        """
        if frame.pts is None or not frame.time_base:
            return 0
        begins = float(frame.pts * frame.time_base)
        expected = begins if self._source_time is None else self._source_time
        if begins < expected - _LONGEST_STEP_BACK:
            # The source has begun anew.
            expected = begins
        gap = begins - expected if begins - expected >= _SHORTEST_PAUSE else 0.0
        self._source_time = expected + gap + frame.samples / frame.sample_rate
        return round(gap * SAMPLE_RATE)

    def _as_frame(self, sound: Audio) -> av.AudioFrame:
        layout = "mono" if self._stream.channels == 1 else "stereo"
        samples = np.clip(np.rint(sound * _INT16), -_INT16, _INT16 - 1).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = SAMPLE_RATE
        frame.pts, frame.time_base = self._time, _TIME_BASE
        self._time += len(sound)
        return frame


class PacketTrack(MediaStreamTrack):
    """Packets of a :class:`~rtsr.call.sender.Sender` for an aiortc sender, which sends them as is.

    Attributes:
        clock_rate: Hz of their timestamps.
    """

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.clock_rate = SAMPLE_RATE
        self._packets: asyncio.Queue[Packet | None] = asyncio.Queue(_MOST_WAITING)
        self._newest: int | None = None
        self._time = 0

    def put(self, packet: Packet) -> None:
        """Add a packet; the oldest is dropped where none is taken."""
        if self._packets.full():
            self._packets.get_nowait()
        self._packets.put_nowait(packet)

    async def recv(self) -> av.Packet:
        """Return the next packet.

        Raises:
            MediaStreamError: the track has ended.
        """
        packet = await self._packets.get() if self.readyState == "live" else None
        if packet is None:
            raise MediaStreamError
        if self._newest is not None:
            self._time += (packet.timestamp - self._newest) % 2**32
        self._newest = packet.timestamp
        coded = av.Packet(packet.payload)
        coded.pts, coded.time_base = self._time, fractions.Fraction(1, self.clock_rate)
        return coded

    def stop(self) -> None:
        """End the track; who waits for a packet gets an error."""
        super().stop()
        with contextlib.suppress(asyncio.QueueFull):
            self._packets.put_nowait(None)


def _as_sound(frame: av.AudioFrame, channels: int) -> Audio:
    """Return the samples ``(samples, channels)`` in [-1, 1] of a frame of any PCM format."""
    samples = frame.to_ndarray()
    # Planar frames have a row for each channel, packed ones a row for all.
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    sound = samples.astype(np.float32)
    if samples.dtype.kind != "f":
        middle, full_scale = _FULL_SCALE[samples.dtype.itemsize]
        sound = (sound - middle) / full_scale
    if sound.shape[1] == channels:
        return sound
    return np.repeat(sound.mean(axis=1, keepdims=True, dtype=np.float32), channels, axis=1)

"""From sound to payloads: G.711 by table, G.722 and Opus by FFmpeg's encoders."""

from __future__ import annotations

import functools
import re
from typing import Protocol

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray

from rtsr.call.formats import G722, OPUS, PCMA, PCMU, PayloadFormat
from rtsr.errors import ArgumentError, AudioFormatError

__all__ = ["DEFAULT_BITRATE", "Encoder", "most_bits", "open_encoder"]

Audio = NDArray[np.float32]

DEFAULT_BITRATE = 64_000
LOWEST_BITRATE, HIGHEST_BITRATE = 6_000, 510_000
# From here on Opus codes full-band speech with its transform alone, which has a look-ahead of 2.5
# ms; below, its linear prediction is worth the 4 ms more that it takes.
_LOW_DELAY_FROM = 48_000
_MOST_BITS = re.compile(r"(?:^|;)\s*maxaveragebitrate\s*=\s*(\d{1,9})\s*(?:;|$)", re.I | re.ASCII)
_FFMPEG_NAME = {PCMU: "pcm_mulaw", PCMA: "pcm_alaw"}


class Encoder(Protocol):
    """Encodes one stream, frame by frame of 20 ms.

    Attributes:
        format: what comes out.
        channels: of what goes in.
        frame_samples: samples of a frame at the format's sample rate.
        delay_samples: how much later the far decoder's output is, at the same rate.
    """

    format: PayloadFormat
    channels: int
    frame_samples: int
    delay_samples: int

    def encode(self, frame: Audio) -> bytes:
        """Encode one frame to a payload, ``(frame_samples, channels)`` in [-1, 1]."""


def open_encoder(form: PayloadFormat, channels: int = 1, bitrate: int = DEFAULT_BITRATE) -> Encoder:
    """Make an encoder.

    Args:
        form: one of the formats with sound.
        channels: of the sound; 1 or 2, and more than one for Opus alone.
        bitrate: bits per second of Opus, 6000 to 510000.

    Raises:
        AudioFormatError: the format is no audio, or has fewer channels.
        ArgumentError: the bitrate is out of range.
    """
    if channels not in ((1, 2) if form is OPUS else (1,)):
        raise AudioFormatError(f"{form.name} does not carry {channels} channels.")
    if form in (PCMU, PCMA):
        return _G711Encoder(form)
    if form is G722:
        return _G722Encoder()
    if form is OPUS:
        check_bitrate(bitrate)
        return _OpusEncoder(channels, bitrate)
    raise AudioFormatError(f"There is no encoder for {form.name}.")


def check_bitrate(bitrate: int) -> None:
    """Raise :class:`RtsrError` unless Opus takes this bitrate."""
    if not LOWEST_BITRATE <= bitrate <= HIGHEST_BITRATE:
        raise ArgumentError(
            f"Opus takes {LOWEST_BITRATE} to {HIGHEST_BITRATE} bits per second, not {bitrate}."
        )


def most_bits(parameters: str) -> int | None:
    """Return the bits per second of Opus that parameters, as ``a=fmtp`` has them, take at most.

    That is RFC 7587, 6.1. Out of range they count as absent.
    """
    found = _MOST_BITS.search(parameters)
    if found and LOWEST_BITRATE <= int(found[1]) <= HIGHEST_BITRATE:
        return int(found[1])
    return None


@functools.lru_cache(maxsize=2)
def _compression(form: PayloadFormat) -> NDArray[np.uint8]:
    """Return the code of G.711 for each 16-bit sample, ``(65536,)``, from -32768 up."""
    context = _open(_FFMPEG_NAME[form], form.sample_rate, 1, "s16")
    samples = np.arange(-32768, 32768).astype(np.int16)
    return np.frombuffer(_encoded(context, samples[None]), np.uint8)


def _open(name: str, rate: int, channels: int, sample_format: str) -> AudioCodecContext:
    context = av.CodecContext.create(name, "w")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate = rate
    context.layout = "mono" if channels == 1 else "stereo"
    context.format = sample_format
    return context


def _encoded(
    context: AudioCodecContext,
    samples: NDArray[np.int16],
) -> bytes:
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate = context.sample_rate
    return b"".join(bytes(packet) for packet in context.encode(frame))


def _as_int16(sound: Audio) -> NDArray[np.int16]:
    return np.rint(np.clip(sound, -1.0, 32767 / 32768) * 32768.0).astype(np.int16)


class _G711Encoder:
    channels = 1
    frame_samples = 160
    delay_samples = 0

    def __init__(self, form: PayloadFormat) -> None:
        self.format = form
        self._table = _compression(form)

    def encode(self, frame: Audio) -> bytes:
        return self._table[_as_int16(frame[:, 0]).astype(np.int32) + 32768].tobytes()


class _G722Encoder:
    format = G722
    channels = 1
    frame_samples = 320
    #: The two quadrature mirror filters (G.722, 3.1 and 4.4).
    delay_samples = 22

    def __init__(self) -> None:
        self._context = _open("g722", 16000, 1, "s16")

    def encode(self, frame: Audio) -> bytes:
        return _encoded(self._context, _as_int16(frame).reshape(1, -1))


class _OpusEncoder:
    format = OPUS
    frame_samples = 960

    def __init__(self, channels: int, bitrate: int) -> None:
        self.channels = channels
        low_delay = bitrate >= _LOW_DELAY_FROM * channels
        self.delay_samples = 120 if low_delay else 312
        self._context = _open("libopus", 48000, channels, "flt")
        self._context.bit_rate = bitrate
        self._context.options = {
            "application": "lowdelay" if low_delay else "voip",
            "frame_duration": "20",
            # Free, it takes a third more for speech than was asked for.
            "vbr": "constrained",
        }
        # A frame is coded before the call that gives it returns, so one serves for all.
        layout = "mono" if channels == 1 else "stereo"
        self._frame = av.AudioFrame(format="flt", layout=layout, samples=self.frame_samples)
        self._frame.sample_rate = OPUS.sample_rate
        (self._plane,) = self._frame.planes

    def encode(self, frame: Audio) -> bytes:
        samples = np.ascontiguousarray(frame, np.float32)
        self._plane.update(samples.tobytes())
        return b"".join(bytes(packet) for packet in self._context.encode(self._frame))

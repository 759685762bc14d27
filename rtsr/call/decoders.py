"""From payloads to sound: G.711 by table, G.722 and Opus by FFmpeg's decoders."""

from __future__ import annotations

import functools
from typing import Protocol

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray

from rtsr.call.formats import G722, LONGEST_PACKET_MS, OPUS, PCMA, PCMU, PayloadFormat
from rtsr.errors import AudioFormatError

__all__ = [
    "Decoder",
    "is_opus_silence",
    "open_decoder",
    "opus_bandwidth_hz",
    "opus_duration",
    "packet_samples",
]

Audio = NDArray[np.float32]

_FULL_SCALE = np.float32(1 / 32768)
_FFMPEG_NAME = {PCMU: "pcm_mulaw", PCMA: "pcm_alaw", G722: "g722"}
# RFC 6716, table 2: where each of the 32 configurations ends.
_OPUS_BANDWIDTH_HZ = (
    [4000] * 4 + [6000] * 4 + [8000] * 4 + [12000] * 2 + [20000] * 2
    + [4000] * 4 + [8000] * 4 + [12000] * 4 + [20000] * 4
)  # fmt: skip
_OPUS_FRAME_SAMPLES = [480, 960, 1920, 2880] * 3 + [480, 960] * 2 + [120, 240, 480, 960] * 4


class Decoder(Protocol):
    """Decodes one stream of packets; keeps what the codec must remember between them."""

    format: PayloadFormat
    channels: int

    @property
    def concealment_samples(self) -> int:
        """How many samples :meth:`conceal` should be asked for at a time."""

    def decode(self, payload: bytes) -> Audio:
        """Decode a packet to sound, ``(samples, channels)`` at the format's sample rate.

        Raises:
            AudioFormatError: the payload is not one of this codec's, or too long.
        """

    def conceal(self, samples: int) -> Audio | None:
        """Return the codec's concealment of ``samples`` lost samples; ``None`` if it has none."""


def open_decoder(form: PayloadFormat, channels: int = 1) -> Decoder:
    """Make a decoder.

    Args:
        form: one of the formats with sound.
        channels: of what comes out; codecs with one channel repeat it.

    Raises:
        AudioFormatError: the format has no sound.
    """
    if form in (PCMU, PCMA):
        return _G711Decoder(form, channels)
    if form is G722:
        return _G722Decoder(channels)
    if form is OPUS:
        return _OpusDecoder(channels)
    raise AudioFormatError(f"There is no decoder for {form.name}.")


def packet_samples(form: PayloadFormat, payload: bytes) -> int:
    """Return the length of a payload at the format's rate; 0 if malformed or over 120 ms."""
    if form is OPUS:
        return opus_duration(payload)
    samples = len(payload) * (form.sample_rate // form.clock_rate)
    return samples if samples <= form.sample_rate * LONGEST_PACKET_MS // 1000 else 0


def opus_duration(payload: bytes) -> int:
    """Return an Opus packet's length at 48 kHz (RFC 6716, 3.1 and 3.2); 0 if it is malformed."""
    if not payload:
        return 0
    code = payload[0] & 3
    if code == 3:
        if len(payload) < 2:
            return 0
        frames = payload[1] & 63
    else:
        frames = 1 if code == 0 else 2
    samples = frames * _OPUS_FRAME_SAMPLES[payload[0] >> 3]
    return samples if 0 < samples <= 48 * LONGEST_PACKET_MS else 0


def opus_bandwidth_hz(payload: bytes) -> int:
    """Hz where the sound of an Opus packet ends, as its first byte says; 0 for an empty one."""
    return _OPUS_BANDWIDTH_HZ[payload[0] >> 3] if payload else 0


def is_opus_silence(payload: bytes) -> bool:
    """Whether an Opus packet holds one frame without sound: the far end is silent for a while.

    libopus takes a frame of at most one byte for that, as encoders write it for DTX.
    """
    return 0 < len(payload) <= 2 and payload[0] & 3 == 0


@functools.lru_cache(maxsize=2)
def _expansion(form: PayloadFormat) -> Audio:
    """Return the value of each of the 256 codes of G.711, ``(256,)`` in [-1, 1]."""
    context = _open(_FFMPEG_NAME[form], form.sample_rate, 1)
    frame = context.decode(av.Packet(bytes(range(256))))[0]
    return frame.to_ndarray().reshape(-1).astype(np.float32) * _FULL_SCALE


def _open(name: str, rate: int, channels: int) -> AudioCodecContext:
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate = rate
    context.layout = "mono" if channels == 1 else "stereo"
    return context


class _G711Decoder:
    def __init__(self, form: PayloadFormat, channels: int) -> None:
        self.format = form
        self.channels = channels
        self._table = _expansion(form)
        self.concealment_samples = form.sample_rate // 100

    def decode(self, payload: bytes) -> Audio:
        _check_length(len(payload), self.format.sample_rate)
        sound = self._table[np.frombuffer(payload, np.uint8)][:, None]
        return sound if self.channels == 1 else np.repeat(sound, self.channels, axis=1)

    def conceal(self, samples: int) -> Audio | None:
        return None


class _G722Decoder:
    def __init__(self, channels: int) -> None:
        self.format = G722
        self.channels = channels
        self._context = _open("g722", 16000, 1)
        self.concealment_samples = 160

    def decode(self, payload: bytes) -> Audio:
        _check_length(2 * len(payload), 16000)
        sound = _decoded(self._context, payload, 1)
        return np.repeat(sound, self.channels, axis=1)

    def conceal(self, samples: int) -> Audio | None:
        return None


class _OpusDecoder:
    def __init__(self, channels: int) -> None:
        self.format = OPUS
        self.channels = channels
        self._context = _open("libopus", 48000, channels)
        self._configuration = 0

    @property
    def concealment_samples(self) -> int:
        return _OPUS_FRAME_SAMPLES[self._configuration >> 3]

    def decode(self, payload: bytes) -> Audio:
        expected = opus_duration(payload)
        if not expected:
            raise AudioFormatError("This is no Opus packet.")
        sound = _decoded(self._context, payload, self.channels)
        self._configuration = payload[0] & 0xFC
        return sound

    def conceal(self, samples: int) -> Audio | None:
        # A frame without a byte is one that was lost (RFC 6716, 3.2.1), so that a packet which
        # holds only its configuration makes the decoder extrapolate.
        frame = self.concealment_samples
        parts = [
            _decoded(self._context, bytes([self._configuration]), self.channels)
            for _ in range(-(-samples // frame))
        ]
        return np.concatenate(parts)[:samples] if parts else None


def _check_length(samples: int, rate: int) -> None:
    if not 0 < samples <= rate * LONGEST_PACKET_MS // 1000:
        raise AudioFormatError(
            f"A packet of {1000 * samples / rate:g} ms is not accepted; at most "
            f"{LONGEST_PACKET_MS} ms are."
        )


def _decoded(context: AudioCodecContext, payload: bytes, channels: int) -> Audio:
    try:
        frames = context.decode(av.Packet(payload))
    except (av.FFmpegError, ValueError) as error:
        raise AudioFormatError(f"A packet cannot be decoded: {error}.") from None
    if not frames:
        raise AudioFormatError("A packet holds no sound.")
    parts = [frame.to_ndarray().reshape(-1, channels) for frame in frames]
    return np.concatenate(parts).astype(np.float32) * _FULL_SCALE

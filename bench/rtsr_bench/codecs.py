"""A recording as it comes out of a lossy coder, in line with what went in.

Coded and decoded through whole files in memory, as a listener's player does it: the container
then says how much of the beginning is the coder's delay. What is left is found by correlation.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.quality.align import find_lag
from rtsr_bench.corpus import fit_length, resampled

Signal = NDArray[np.float64]


@dataclass(frozen=True)
class Coder:
    """An encoder of FFmpeg, the container for its packets, and its rate in bits per second."""

    encoder: str
    container: str
    bit_rate: int


OPUS_16K = Coder("libopus", "ogg", 16000)
MP3_24K = Coder("libmp3lame", "mp3", 24000)
MP3_64K = Coder("libmp3lame", "mp3", 64000)


def through_coder(samples: Signal, rate: int, coder: Coder, cutoff_hz: float) -> tuple[Signal, int]:
    """Encode and decode one channel.

    Args:
        samples: ``(samples,)`` in [-1, 1].
        rate: of the samples in Hz; one that the coder takes.
        coder: which one, and its bit rate.
        cutoff_hz: where the content ends: alignment looks at what lies below.

    Returns:
        the decoded samples, aligned with the input and as long, and their rate, which is the
        decoder's.

    Raises:
        MissingDependencyError: PyAV is not installed.
        RtsrError: its FFmpeg has no such coder, or refuses the rate.
    """
    try:
        import av
    except ImportError:
        raise MissingDependencyError("Scoring after lossy coders", "train") from None
    file = io.BytesIO()
    try:
        _encode(av, file, samples, rate, coder)
        file.seek(0)
        decoded, decoded_rate = _decode(av, file)
    except (av.FFmpegError, ValueError) as error:
        raise RtsrError(
            f"The coder {coder.encoder} of this PyAV failed at {rate} Hz ({error}); "
            "install a build of PyAV that has it."
        ) from error
    original = resampled(samples, rate, decoded_rate)
    lag = find_lag(original, decoded, cutoff_hz, decoded_rate)
    # Moved to an earlier time; zeros where there is nothing.
    moved = np.pad(decoded[max(lag, 0) :], (max(-lag, 0), 0))
    return fit_length(moved, original.size), decoded_rate


def _encode(av: Any, file: io.BytesIO, samples: Signal, rate: int, coder: Coder) -> None:
    with av.open(file, "w", format=coder.container) as container:
        stream = container.add_stream(coder.encoder, rate=rate, layout="mono")
        stream.bit_rate = coder.bit_rate
        pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[np.newaxis], format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def _decode(av: Any, file: io.BytesIO) -> tuple[Signal, int]:
    with av.open(file, "r") as container:
        stream = container.streams.audio[0]
        to_float = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)
        frames = [
            out for frame in [*container.decode(stream), None] for out in to_float.resample(frame)
        ]
    decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    return decoded.astype(np.float64), int(stream.rate)

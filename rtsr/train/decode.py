"""Decode recordings to one channel of int16 at 48 kHz, in parallel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rtsr.audio.reader import native_name
from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.timing import SAMPLE_RATE
from rtsr.train.listing import Listed

if TYPE_CHECKING:
    import soundfile

#: soxr's high quality is flat to this share of the narrower Nyquist frequency and 3 dB down there.
RESAMPLER_EDGE = 0.95
#: There is nothing to learn from a telephone recording.
LOWEST_CUTOFF_HZ = 5000.0
SHORTEST_SECONDS = 0.1
SILENT_PEAK = 1e-3
BLOCK = 1 << 18
#: Hz; a recording played at less would be short of what an octave is to add
LOWEST_CLOCKED_RATE = 44100
AHEAD = 4


class UnusableFile(Exception):
    """A recording that is left out; ``reason`` says why, in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class DecodedClip:
    """``samples`` ``(samples,)`` int16 at 48 kHz; ``cutoff_hz`` where their content ends."""

    samples: np.ndarray
    cutoff_hz: float


def decode_all(
    source: Path,
    listed: list[Listed],
    *,
    workers: int = 2,
    octave_rate: int = SAMPLE_RATE,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[DecodedClip | UnusableFile]:
    """Decode `listed` in `workers` threads, in order; a file that fails gives its `UnusableFile`.

    At most a few clips are decoded ahead of the one that is asked for. `octave_rate` is as for
    :func:`decode`.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:
        ahead: deque[Future[DecodedClip]] = deque()
        waiting = iter(listed)
        try:
            for done in range(1, len(listed) + 1):
                for entry in islice(waiting, AHEAD * max(1, workers) - len(ahead)):
                    ahead.append(pool.submit(decode, source / entry.path, entry, octave_rate))
                try:
                    yield ahead.popleft().result()
                except UnusableFile as error:
                    yield error
                if progress is not None:
                    progress(done, len(listed))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def clock_of(rate: int, octave_rate: int) -> int:
    """Return how many times slower a recording of ``rate`` Hz is played for an octave.

    As slow as the octave's clock is fast, but never below 44.1 kHz.
    """
    clock = octave_rate // SAMPLE_RATE
    while clock > 1 and rate < clock * LOWEST_CLOCKED_RATE:
        clock //= 2
    return clock


def decode(path: Path, entry: Listed, octave_rate: int = SAMPLE_RATE) -> DecodedClip:
    """Decode one recording: its first channel that is not silent, 48 kHz, levels untouched.

    For an octave that ends at half of `octave_rate` Hz, recordings of higher rates are played
    slower (:func:`clock_of`), and all frequencies are those of the slow sound.

    Raises:
        UnusableFile: it cannot be decoded, or holds nothing that a model could learn from.
        RtsrError: the manifest gives it a cutoff above its Nyquist frequency.
        MissingDependencyError: soundfile or soxr are not installed.
    """
    try:
        import soundfile
        import soxr

        from rtsr.audio.streamed_file import StreamedFile
    except (ImportError, OSError) as error:
        raise MissingDependencyError("Decoding recordings", "train") from error

    if not path.exists():
        raise UnusableFile("there is no such file")
    try:
        with StreamedFile(native_name(path)) as file:
            rate = int(file.samplerate)
            if entry.cutoff_hz is not None and entry.cutoff_hz > rate / 2:
                raise RtsrError(
                    f"The manifest says that {entry.path} ends at {entry.cutoff_hz:g} Hz, above "
                    f"half of its rate of {rate} Hz; correct its measured_cutoff_hz."
                )
            clock = clock_of(rate, octave_rate)
            rate //= clock
            channel = _first_channel_with_sound(file)
            resampler = None
            if rate != SAMPLE_RATE:
                resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            parts = []
            while True:
                block = file.read(BLOCK, dtype="float32", always_2d=True)[:, channel]
                last = len(block) < BLOCK
                block = np.ascontiguousarray(block)
                if not np.isfinite(block).all():
                    raise UnusableFile("samples that are not numbers")
                if resampler is not None:
                    block = resampler.resample_chunk(block, last=last)
                parts.append(to_int16(block))
                if last:
                    break
    except (soundfile.LibsndfileError, OSError, RuntimeError, ValueError) as error:
        raise UnusableFile(f"not decodable: {error}") from error
    samples = np.concatenate(parts)
    if len(samples) < SHORTEST_SECONDS * SAMPLE_RATE:
        raise UnusableFile(f"shorter than {SHORTEST_SECONDS} s")

    cutoff = measure_cutoff(samples, SAMPLE_RATE, speech=entry.domain == "speech")
    if rate < SAMPLE_RATE:
        cutoff = min(cutoff, RESAMPLER_EDGE * rate / 2)
    if entry.cutoff_hz is not None:
        cutoff = min(cutoff, entry.cutoff_hz / clock)
    if cutoff < LOWEST_CUTOFF_HZ:
        raise UnusableFile(f"its content ends at {cutoff:.0f} Hz")
    return DecodedClip(samples, cutoff)


def _first_channel_with_sound(file: soundfile.SoundFile) -> int:
    if file.channels == 1:
        return 0
    loudest = np.zeros(file.channels, np.float32)
    while True:
        block = file.read(BLOCK, dtype="float32", always_2d=True)
        if len(block):
            loudest = np.maximum(loudest, np.abs(block).max(axis=0))
        sounding = np.flatnonzero(loudest > SILENT_PEAK)
        if len(sounding) or len(block) < BLOCK:
            file.seek(0)
            return int(sounding[0]) if len(sounding) else int(np.argmax(loudest))


def to_int16(block: np.ndarray) -> np.ndarray:
    """Round samples in [-1, 1] to 16 bits, of the same shape; what lies beyond is clipped."""
    return np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16)

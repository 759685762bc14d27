"""Lock-free ring of audio frames between exactly one writing and one reading thread or process.

One contiguous buffer holds everything, so it may live in shared memory: a header of 64-bit words,
then `(capacity, channels)` float32 frames. Indices only ever grow; a frame lives at its index
modulo the capacity. The writer alone stores the write index, the reader alone the read index, each
after (release) the samples that it covers are moved, and each side loads the other's index before
(acquire) it touches samples.
"""

from __future__ import annotations

import numpy as np
from numba import int64

from .atomics import load_acquire, store_release
from .buffers import HEADER_WORDS, FrameBuffer, check_frames
from .compiled import AUDIO, AUDIO_IN, INDICES, kernel

__all__ = [
    "HEADER_WORDS",
    "OVERRUNS",
    "READ_INDEX",
    "UNDERRUNS",
    "WRITE_INDEX",
    "Ring",
    "ring_counter",
    "ring_read",
    "ring_skip",
    "ring_write",
]

# Each side's words start 128 bytes from the other's: a cache line is 64 bytes, but processors fetch
# lines in pairs, and some have lines of 128.
WRITE_INDEX, OVERRUNS = 16, 17
READ_INDEX, UNDERRUNS = 32, 33


@kernel(int64(INDICES, AUDIO, AUDIO_IN))
def ring_write(header: np.ndarray, data: np.ndarray, block: np.ndarray) -> int:
    """Append as many frames of `block` `(frames, channels)` as fit; return how many.

    Frames that did not fit are counted as overruns. For the writing side only. Shapes are the
    caller's duty: `data` `(capacity, channels)` with a capacity that is a power of two.
    """
    frames, channels = block.shape
    capacity = data.shape[0]
    write_index = header[WRITE_INDEX]
    free = capacity - (write_index - load_acquire(header, READ_INDEX))
    count = min(frames, free)
    start = write_index & (capacity - 1)
    first = min(count, capacity - start)
    for frame in range(first):
        for channel in range(channels):
            data[start + frame, channel] = block[frame, channel]
    for frame in range(count - first):
        for channel in range(channels):
            data[frame, channel] = block[first + frame, channel]
    store_release(header, WRITE_INDEX, write_index + count)
    if count < frames:
        store_release(header, OVERRUNS, header[OVERRUNS] + frames - count)
    return count


@kernel(int64(INDICES, AUDIO, AUDIO))
def ring_read(header: np.ndarray, data: np.ndarray, out: np.ndarray) -> int:
    """Move what frames there are into the front of `out` `(frames, channels)`; return how many.

    The rest of `out` stays as it was and is counted as underruns. For the reading side only; shapes
    as for `ring_write`.
    """
    frames, channels = out.shape
    capacity = data.shape[0]
    read_index = header[READ_INDEX]
    count = min(frames, load_acquire(header, WRITE_INDEX) - read_index)
    start = read_index & (capacity - 1)
    first = min(count, capacity - start)
    for frame in range(first):
        for channel in range(channels):
            out[frame, channel] = data[start + frame, channel]
    for frame in range(count - first):
        for channel in range(channels):
            out[first + frame, channel] = data[frame, channel]
    store_release(header, READ_INDEX, read_index + count)
    if count < frames:
        store_release(header, UNDERRUNS, header[UNDERRUNS] + frames - count)
    return count


@kernel(int64(INDICES, int64))
def ring_skip(header: np.ndarray, frames: int) -> int:
    """Drop up to `frames` of the oldest frames; return how many. For the reading side only."""
    read_index = header[READ_INDEX]
    count = max(0, min(frames, load_acquire(header, WRITE_INDEX) - read_index))
    store_release(header, READ_INDEX, read_index + count)
    return count


@kernel(int64(INDICES, int64))
def ring_counter(header: np.ndarray, word: int) -> int:
    """Read one of `WRITE_INDEX, OVERRUNS, READ_INDEX, UNDERRUNS`, safe from any thread."""
    return load_acquire(header, word)


class Ring(FrameBuffer):
    """Single-producer single-consumer ring of `capacity` float32 frames of `channels` channels.

    `buffer`, `attach`, `release` and the errors are those of every `FrameBuffer`.
    """

    KIND = "ring"
    MAGIC_VALUE = 0x31474E4952525354

    def write(self, block: np.ndarray) -> int:
        """Append as many frames of `(frames, channels)` float32 as fit; return how many.

        Raises `ValueError` for another shape, type or memory layout.
        """
        check_frames("block", block, self.channels)
        return ring_write(self.header, self.data, block)

    def read(self, out: np.ndarray) -> int:
        """Move as many frames as there are into the front of `out`; return how many.

        Raises `ValueError` for another shape, type or memory layout than C-contiguous float32
        `(frames, channels)`.
        """
        check_frames("out", out, self.channels)
        return ring_read(self.header, self.data, out)

    def skip(self, frames: int) -> int:
        """Drop up to `frames` of the oldest frames (reading side only); return how many."""
        return ring_skip(self.header, frames)

    @property
    def readable(self) -> int:
        """Frames waiting to be read; at least this many, if asked by the reading side."""
        # The read index first: it may only lag, so that the difference is never negative.
        read = ring_counter(self.header, READ_INDEX)
        return min(self.capacity, ring_counter(self.header, WRITE_INDEX) - read)

    @property
    def writable(self) -> int:
        """Frames that fit; at least this many, if asked by the writing side."""
        return self.capacity - self.readable

    @property
    def frames_written(self) -> int:
        """Frames accepted since the ring was made."""
        return ring_counter(self.header, WRITE_INDEX)

    @property
    def frames_read(self) -> int:
        """Frames read or skipped since the ring was made."""
        return ring_counter(self.header, READ_INDEX)

    @property
    def overruns(self) -> int:
        """Frames refused because the ring was full."""
        return ring_counter(self.header, OVERRUNS)

    @property
    def underruns(self) -> int:
        """Frames asked for that were not there."""
        return ring_counter(self.header, UNDERRUNS)

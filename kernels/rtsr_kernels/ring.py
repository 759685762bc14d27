"""Lock-free ring of audio frames between exactly one writing and one reading thread or process.

One contiguous buffer holds everything, so it may live in shared memory: a header of 64-bit words,
then `(capacity, channels)` float32 frames. Indices only ever grow; a frame lives at its index
modulo the capacity. The writer alone stores the write index, the reader alone the read index, each
after (release) the samples it speaks for are moved, and each side loads the other's index before
(acquire) it touches samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64

from .atomics import load_acquire, store_release
from .buffers import (
    CAPACITY,
    CHANNELS,
    HEADER_WORDS,
    MAGIC,
    aligned_bytes,
    bytes_needed,
    check_frames,
    check_size,
    frames_view,
    header_words,
)
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

_MAGIC_VALUE = 0x31474E4952525354


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
    """One of `WRITE_INDEX, OVERRUNS, READ_INDEX, UNDERRUNS`, safe to ask from any side."""
    return load_acquire(header, word)


class Ring:
    """Single-producer single-consumer ring of `capacity` float32 frames of `channels` channels.

    Without `buffer` the ring allocates its own. A given `buffer` (writable, C-contiguous, 8-byte
    aligned, at least `bytes_needed(capacity, channels)` long, such as `SharedMemory.buf`) is
    cleared and becomes the ring; another process then joins it with `Ring.attach`. The ring keeps
    the buffer alive and exported: call `release` before closing shared memory.

    Raises `ValueError` for a capacity that is not a power of two, fewer than one channel or an
    unfit buffer.
    """

    bytes_needed = staticmethod(bytes_needed)

    def __init__(self, capacity: int, channels: int, buffer: Any = None) -> None:
        check_size("ring", capacity, channels)
        if buffer is None:
            buffer = aligned_bytes(bytes_needed(capacity, channels))
        header = header_words("ring", buffer)
        self._map(buffer, header, capacity, channels)
        # The magic word comes last: a half-made ring must not be taken for a whole one.
        header[MAGIC] = 0
        header[WRITE_INDEX:] = 0
        header[CAPACITY] = capacity
        header[CHANNELS] = channels
        self.data.fill(0.0)
        header[MAGIC] = _MAGIC_VALUE

    @classmethod
    def attach(cls, buffer: Any) -> Ring:
        """Join the ring that lives in `buffer`, as it is. `ValueError` if there is none."""
        header = header_words("ring", buffer)
        if header[MAGIC] != _MAGIC_VALUE:
            raise ValueError("buffer holds no ring: create it with Ring(..., buffer=buffer) first")
        ring = cls.__new__(cls)
        ring._map(buffer, header, int(header[CAPACITY]), int(header[CHANNELS]))
        return ring

    @staticmethod
    def capacity_for(frames: int) -> int:
        """The smallest valid capacity that holds `frames` frames."""
        return 1 << max(0, int(frames) - 1).bit_length()

    def _map(self, buffer: Any, header: np.ndarray, capacity: int, channels: int) -> None:
        self.data = frames_view("ring", buffer, capacity, channels)
        self.header = header
        self.capacity = capacity
        self.channels = channels

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

    def release(self) -> None:
        """Let go of the buffer, so that shared memory can be closed. The ring is unusable after."""
        del self.header, self.data

"""Audio frames by absolute index: one writer appends, any number of readers read any position.

Frame `i` lives at `i` modulo the capacity, and the oldest frames are overwritten without asking. A
reader keeps no state here, so a reader that is late, dead or one of several changes nothing for the
others, and a frame that comes too late is simply never asked for.

A block is never handed out torn. The writer first claims the frames it is about to overwrite, then
moves the samples, then publishes them; the reader copies first and then checks whether any frame it
took has been claimed meanwhile (the idea of a sequence lock). Both need a fence, as neither a
release store nor an acquire load holds back what stands on its other side; see H.-J. Boehm, "Can
seqlocks get along with programming language memory models?", MSPC 2012.
"""

from __future__ import annotations

import numpy as np
from numba import int64

from .atomics import fence_acquire, fence_release, load_acquire, store_release
from .buffers import HEADER_WORDS, FrameBuffer, check_frames
from .compiled import AUDIO, AUDIO_IN, INDICES, kernel

__all__ = [
    "CLAIM_INDEX",
    "HEADER_WORDS",
    "START_INDEX",
    "WRITE_INDEX",
    "Timeline",
    "timeline_read",
    "timeline_seek",
    "timeline_start",
    "timeline_write",
    "timeline_written",
]

WRITE_INDEX = 16
"""Frames before this index are published."""
START_INDEX = 17
"""Frames before this index were never written or given up by a seek."""
CLAIM_INDEX = 18
"""Frames before this index less the capacity are overwritten or about to be."""


@kernel(int64(INDICES, AUDIO, AUDIO_IN))
def timeline_write(header: np.ndarray, data: np.ndarray, block: np.ndarray) -> int:
    """Append all of `block` `(frames, channels)`; return the index of the frame to come next.

    For the writer only. `data` is `(capacity, channels)` with a capacity that is a power of two. Of
    a block longer than that only the newest frames survive.
    """
    frames, channels = block.shape
    capacity = data.shape[0]
    begin = header[WRITE_INDEX]
    end = begin + frames
    # The claim never goes back: a writer that died after its claim may have spoilt all of it.
    store_release(header, CLAIM_INDEX, max(end, header[CLAIM_INDEX]))
    fence_release()
    skipped = max(0, frames - capacity)
    count = frames - skipped
    start = (begin + skipped) & (capacity - 1)
    first = min(count, capacity - start)
    for frame in range(first):
        for channel in range(channels):
            data[start + frame, channel] = block[skipped + frame, channel]
    for frame in range(count - first):
        for channel in range(channels):
            data[frame, channel] = block[skipped + first + frame, channel]
    store_release(header, WRITE_INDEX, end)
    return end


@kernel(int64(INDICES, AUDIO, int64, AUDIO))
def timeline_read(header: np.ndarray, data: np.ndarray, start: int, out: np.ndarray) -> int:
    """Copy frames `start, start + 1, ...` to the front of `out` `(frames, channels)`.

    Returns how many frames are there, from none to `len(out)`. None if frame `start` is not
    published yet, negative, given up by a seek, overwritten, or was overwritten while it was
    copied; `out` may then hold anything. Every other call leaves the rest of `out` as it was.
    """
    frames, channels = out.shape
    capacity = data.shape[0]
    # The write index first: a writer that seeks stores the start before it, so that whoever sees
    # the new write index sees the new start as well.
    count = min(frames, load_acquire(header, WRITE_INDEX) - start)
    if count <= 0 or start < load_acquire(header, START_INDEX):
        return 0
    if start < load_acquire(header, CLAIM_INDEX) - capacity:
        return 0
    position = start & (capacity - 1)
    first = min(count, capacity - position)
    for frame in range(first):
        for channel in range(channels):
            out[frame, channel] = data[position + frame, channel]
    for frame in range(count - first):
        for channel in range(channels):
            out[first + frame, channel] = data[frame, channel]
    fence_acquire()
    if start < load_acquire(header, CLAIM_INDEX) - capacity:
        return 0
    return count


@kernel(int64(INDICES))
def timeline_written(header: np.ndarray) -> int:
    """Return the index of the frame to be written next, safe from any thread."""
    return load_acquire(header, WRITE_INDEX)


@kernel(int64(INDICES))
def timeline_start(header: np.ndarray) -> int:
    """Return the first index that can be read, whatever the capacity; safe from any thread."""
    return load_acquire(header, START_INDEX)


@kernel(int64(INDICES, int64))
def timeline_seek(header: np.ndarray, index: int) -> int:
    """Discard all frames so far and continue writing at `index`; return the next write index.

    For the writer only, and forward only: an `index` in the past means the write index.
    """
    index = max(index, header[WRITE_INDEX])
    store_release(header, START_INDEX, index)
    store_release(header, WRITE_INDEX, index)
    return index


class Timeline(FrameBuffer):
    """The newest `capacity` float32 frames of `channels` channels, by absolute index.

    `buffer`, `attach`, `release` and the errors are those of every `FrameBuffer`.
    """

    KIND = "timeline"
    MAGIC_VALUE = 0x314C4D5452535254

    def write(self, block: np.ndarray) -> int:
        """Append all of `(frames, channels)` float32; return the index of the frame to come next.

        Raises `ValueError` for another shape, type or memory layout.
        """
        check_frames("block", block, self.channels)
        return timeline_write(self.header, self.data, block)

    def read(self, start: int, out: np.ndarray) -> int:
        """Copy what is there of frames `start, start + 1, ...` to the front of `out`.

        Returns how many; see `timeline_read`. Raises `ValueError` for an `out` that is not
        C-contiguous float32 `(frames, channels)`.
        """
        check_frames("out", out, self.channels)
        return timeline_read(self.header, self.data, start, out)

    def seek(self, index: int) -> None:
        """Discard all frames so far and continue writing at `index` (writer only).

        Raises `ValueError` for an index before the frames that were written already.
        """
        if index < self.written:
            raise ValueError(
                f"a timeline goes forward only: {self.written} frames are written, not {index}"
            )
        timeline_seek(self.header, index)

    @property
    def written(self) -> int:
        """Index of the frame to be written next."""
        return timeline_written(self.header)

    @property
    def start(self) -> int:
        """Frames before this index cannot be read, whatever the capacity."""
        return timeline_start(self.header)

"""Memory that a ring or timeline lives in: a header of 64-bit words, then float32 frames.

The memory may be anything with a buffer, such as `SharedMemory.buf`, so that two processes can use
the same frames.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import numpy as np

_Buffer = TypeVar("_Buffer", bound="FrameBuffer")

HEADER_WORDS = 48
HEADER_BYTES = HEADER_WORDS * 8
MAGIC, CAPACITY, CHANNELS = 0, 1, 2

_WORD_BYTES = 8
_SAMPLE_BYTES = 4
_ALIGNMENT = 64


def bytes_needed(capacity: int, channels: int) -> int:
    """Length of the buffer for `capacity` frames of `channels` channels and their header."""
    return HEADER_BYTES + capacity * channels * _SAMPLE_BYTES


def check_size(kind: str, capacity: int, channels: int) -> None:
    """Raise `ValueError` unless the capacity is a power of two and there is a channel."""
    if capacity < 1 or capacity & (capacity - 1):
        raise ValueError(
            f"{kind} capacity must be a power of two, not {capacity}; "
            f"the next one is {1 << max(0, int(capacity) - 1).bit_length()}"
        )
    if channels < 1:
        raise ValueError(f"a {kind} needs at least one channel, not {channels}")


def check_frames(name: str, array: np.ndarray, channels: int) -> None:
    """Raise `ValueError` unless `array` is C-contiguous float32 `(frames, channels)`."""
    if array.ndim != 2 or array.shape[1] != channels:
        raise ValueError(f"{name} must have shape (frames, {channels}), not {tuple(array.shape)}")
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        raise ValueError(f"{name} must be a C-contiguous float32 array")


def aligned_bytes(count: int) -> np.ndarray:
    """Allocate zeroed memory that starts on a cache line."""
    memory = np.zeros(count + _ALIGNMENT, dtype=np.uint8)
    offset = -memory.ctypes.data % _ALIGNMENT
    return memory[offset : offset + count]


def header_words(kind: str, buffer: Any) -> np.ndarray:
    """Return the header, int64 `(HEADER_WORDS,)`; `ValueError` if the buffer cannot hold one."""
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise ValueError(f"a {kind} needs a writable, contiguous buffer")
    if view.nbytes < HEADER_BYTES:
        raise ValueError(f"a {kind}'s buffer has at least {HEADER_BYTES} bytes, not {view.nbytes}")
    header: np.ndarray = np.frombuffer(buffer, dtype=np.int64, count=HEADER_WORDS)
    if header.ctypes.data % _WORD_BYTES:
        raise ValueError(
            f"a {kind}'s buffer must be aligned to 8 bytes, else its indices are not atomic"
        )
    return header


def frames_view(kind: str, buffer: Any, capacity: int, channels: int) -> np.ndarray:
    """Return the frames, float32 `(capacity, channels)`; `ValueError` for too short a buffer."""
    needed = bytes_needed(capacity, channels)
    available = memoryview(buffer).nbytes
    if available < needed:
        raise ValueError(f"buffer has {available} bytes but this {kind} needs {needed}")
    data: np.ndarray = np.frombuffer(
        buffer, dtype=np.float32, count=capacity * channels, offset=HEADER_BYTES
    )
    return data.reshape(capacity, channels)


class FrameBuffer:
    """Memory with a header and `capacity` float32 frames of `channels` channels.

    Without `buffer` it allocates its own. A given `buffer` (writable, C-contiguous, 8-byte aligned,
    at least `bytes_needed(capacity, channels)` long, such as a slice of `SharedMemory.buf`) is
    cleared and becomes the memory; another process then joins it with `attach`. It stays alive and
    exported: call `release` before closing shared memory.

    Subclasses say what it is called (`KIND`) and which word of the header tells it from another
    kind (`MAGIC_VALUE`).

    Raises `ValueError` for a capacity that is not a power of two, fewer than one channel or an
    unfit buffer.
    """

    KIND: ClassVar[str]
    MAGIC_VALUE: ClassVar[int]

    bytes_needed = staticmethod(bytes_needed)

    def __init__(self, capacity: int, channels: int, buffer: Any = None) -> None:
        check_size(self.KIND, capacity, channels)
        if buffer is None:
            buffer = aligned_bytes(bytes_needed(capacity, channels))
        header = header_words(self.KIND, buffer)
        self._map(buffer, header, capacity, channels)
        # The magic word is written last: a half-written header must not be taken for a whole one.
        header[MAGIC] = 0
        header[CHANNELS + 1 :] = 0
        header[CAPACITY] = capacity
        header[CHANNELS] = channels
        self.data.fill(0.0)
        header[MAGIC] = self.MAGIC_VALUE

    @classmethod
    def attach(cls: type[_Buffer], buffer: Any) -> _Buffer:
        """Join the one that lives in `buffer`, as it is. `ValueError` if there is none."""
        header = header_words(cls.KIND, buffer)
        if header[MAGIC] != cls.MAGIC_VALUE:
            raise ValueError(
                f"buffer holds no {cls.KIND}: create it with {cls.__name__}(..., buffer=buffer) "
                "first"
            )
        joined = cls.__new__(cls)
        joined._map(buffer, header, int(header[CAPACITY]), int(header[CHANNELS]))
        return joined

    def release(self) -> None:
        """Drop the references to the buffer, so that shared memory can be closed; unusable then."""
        del self.header, self.data

    def _map(self, buffer: Any, header: np.ndarray, capacity: int, channels: int) -> None:
        self.data = frames_view(self.KIND, buffer, capacity, channels)
        self.header = header
        self.capacity = capacity
        self.channels = channels

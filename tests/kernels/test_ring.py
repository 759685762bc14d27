"""The ring against the plainest model there is, in one thread."""

from __future__ import annotations

from collections import deque
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import carray, cfunc, float32, int64, types

from rtsr_kernels.ring import HEADER_WORDS, Ring, ring_read, ring_write

STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "read", "skip"]), st.integers(0, 40)), max_size=80
)


def numbered(start: int, frames: int, channels: int) -> np.ndarray:
    values = np.arange(start * channels, (start + frames) * channels, dtype=np.float32)
    return values.reshape(frames, channels)


@settings(max_examples=200, deadline=None)
@given(
    capacity=st.sampled_from([1, 2, 4, 16, 32]),
    channels=st.integers(1, 3),
    age=st.sampled_from([0, 5, 2**31 - 3, 2**40 + 1]),
    steps=STEPS,
)
def test_behaves_like_a_bounded_queue(
    capacity: int, channels: int, age: int, steps: list[tuple[str, int]]
) -> None:
    ring = Ring(capacity, channels)
    # As after hours of use: indices beyond 32 bits.
    ring.header[[16, 32]] = age
    queue: deque[tuple[float, ...]] = deque()
    sent = overruns = underruns = taken = 0
    for action, frames in steps:
        if action == "write":
            block = numbered(sent, frames, channels)
            fits = min(frames, capacity - len(queue))
            assert ring.write(block) == fits
            queue.extend(map(tuple, block[:fits].tolist()))
            sent += fits
            overruns += frames - fits
        elif action == "read":
            out = np.full((frames, channels), -1.0, dtype=np.float32)
            count = min(frames, len(queue))
            assert ring.read(out) == count
            assert [tuple(f) for f in out[:count].tolist()] == [
                queue.popleft() for _ in range(count)
            ]
            assert (out[count:] == -1.0).all(), "the missing part is left alone"
            taken += count
            underruns += frames - count
        else:
            count = min(frames, len(queue))
            assert ring.skip(frames) == count
            for _ in range(count):
                queue.popleft()
            taken += count
        assert ring.readable == len(queue)
        assert ring.writable == capacity - len(queue)
        assert ring.frames_written == age + sent
        assert ring.frames_read == age + taken
        assert (ring.overruns, ring.underruns) == (overruns, underruns)


def test_wraps_around_in_one_block() -> None:
    ring = Ring(8, 2)
    out = np.empty((6, 2), dtype=np.float32)
    for start in range(0, 600, 6):
        block = numbered(start, 6, 2)
        assert ring.write(block) == 6
        assert ring.read(out) == 6
        np.testing.assert_array_equal(out, block)


def test_indices_do_not_share_a_cache_line() -> None:
    header = Ring(8, 1).header
    assert header.ctypes.data % 64 == 0
    assert (HEADER_WORDS * 8) % 64 == 0
    ring = Ring(8, 1)
    ring.write(numbered(0, 9, 1))
    ring.read(np.empty((9, 1), dtype=np.float32))
    touched = {int(word) * 8 // 64 for word in np.flatnonzero(ring.header)}
    # One line of constants, one of the writer, one of the reader, and none next to another.
    assert len(touched) == 3
    assert min(np.diff(sorted(touched))) > 1


def test_takes_read_only_blocks() -> None:
    block = np.frombuffer(numbered(0, 4, 1).tobytes(), dtype=np.float32).reshape(4, 1)
    ring = Ring(4, 1)
    assert ring.write(block) == 4


def test_two_mappings_of_one_shared_memory() -> None:
    memory = SharedMemory(create=True, size=Ring.bytes_needed(16, 2))
    other = SharedMemory(name=memory.name)
    try:
        writer = Ring(16, 2, memory.buf)
        reader = Ring.attach(other.buf)
        assert (reader.capacity, reader.channels) == (16, 2)
        out = np.empty((5, 2), dtype=np.float32)
        for start in range(0, 100, 5):
            assert writer.write(numbered(start, 5, 2)) == 5
            assert reader.readable == 5
            assert reader.read(out) == 5
            np.testing.assert_array_equal(out, numbered(start, 5, 2))
            assert writer.writable == 16
        writer.release()
        reader.release()
    finally:
        other.close()
        memory.close()
        memory.unlink()


def test_usable_from_a_c_callback() -> None:
    pointer = types.CPointer(float32)
    words = types.CPointer(int64)

    @cfunc(int64(words, pointer, pointer, int64))
    def callback(header_address, data_address, block_address, frames):  # type: ignore[no-untyped-def]
        header = carray(header_address, (48,))
        data = carray(data_address, (16, 2))
        block = carray(block_address, (frames, 2))
        written = ring_write(header, data, block)
        block[:] = 0.0
        return written + 100 * ring_read(header, data, block)

    ring = Ring(16, 2)
    block = numbered(7, 5, 2)
    expected = block.copy()
    arrays: list[np.ndarray] = [ring.header, ring.data, block]
    types_wanted: list[Any] = list(callback.ctypes.argtypes[:3])
    pointers = [a.ctypes.data_as(t) for a, t in zip(arrays, types_wanted, strict=True)]
    assert callback.ctypes(*pointers, 5) == 505
    np.testing.assert_array_equal(block, expected)


@pytest.mark.parametrize("capacity", [0, -4, 3, 1000])
def test_refuses_other_capacities(capacity: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Ring(capacity, 1)


def test_refuses_unfit_buffers_and_blocks() -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        Ring(8, 0)
    with pytest.raises(ValueError, match="needs"):
        Ring(8, 1, bytearray(Ring.bytes_needed(8, 1) - 1))
    with pytest.raises(ValueError, match="at least"):
        Ring(8, 1, bytearray(8))
    with pytest.raises(ValueError, match="writable"):
        Ring(8, 1, bytes(Ring.bytes_needed(8, 1)))
    with pytest.raises(ValueError, match="aligned"):
        Ring(8, 1, memoryview(bytearray(Ring.bytes_needed(8, 1) + 8))[1:])
    with pytest.raises(ValueError, match="no ring"):
        Ring.attach(bytearray(Ring.bytes_needed(8, 1)))
    ring = Ring(8, 2)
    with pytest.raises(ValueError, match="shape"):
        ring.write(np.zeros((4, 1), dtype=np.float32))
    with pytest.raises(ValueError, match="float32"):
        ring.write(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="contiguous"):
        ring.read(np.zeros((8, 2), dtype=np.float32)[::2])

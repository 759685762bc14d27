"""The timeline against the plainest model there is, in one thread."""

from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import carray, cfunc, float32, int64, types

from rtsr_kernels.timeline import (
    CLAIM_INDEX,
    HEADER_WORDS,
    START_INDEX,
    WRITE_INDEX,
    Timeline,
    timeline_read,
    timeline_seek,
    timeline_start,
    timeline_write,
    timeline_written,
)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "read", "seek"]), st.integers(0, 40), st.integers(-50, 5)
    ),
    max_size=60,
)


def numbered(start: int, frames: int, channels: int) -> np.ndarray:
    """Every sample says which frame and channel it is, modulo what float32 counts exactly."""
    values = np.arange(start * channels, (start + frames) * channels) & ((1 << 24) - 1)
    return values.astype(np.float32).reshape(frames, channels)


@settings(max_examples=200, deadline=None)
@given(
    capacity=st.sampled_from([1, 2, 4, 16, 32]),
    channels=st.integers(1, 3),
    age=st.sampled_from([0, 5, 2**31 - 3, 2**40 + 1]),
    steps=STEPS,
)
def test_behaves_like_an_endless_tape_with_a_short_memory(
    capacity: int, channels: int, age: int, steps: list[tuple[str, int, int]]
) -> None:
    timeline = Timeline(capacity, channels)
    # As after hours of use: indices beyond 32 bits.
    timeline.seek(age)
    written = start = age
    for action, frames, distance in steps:
        if action == "write":
            assert timeline.write(numbered(written, frames, channels)) == written + frames
            written += frames
        elif action == "seek":
            written += frames
            start = written
            timeline.seek(written)
        else:
            begin = written + distance
            readable = max(start, written - capacity) <= begin < written
            count = min(frames, written - begin) if readable else 0
            out = np.full((frames, channels), -1.0, dtype=np.float32)
            assert timeline.read(begin, out) == count
            np.testing.assert_array_equal(out[:count], numbered(begin, count, channels))
            assert (out[count:] == -1.0).all(), "the missing part is left alone"
        assert timeline.written == written
        assert timeline.start == start


def test_late_early_and_lost_frames() -> None:
    timeline = Timeline(8, 1)
    out = np.empty((4, 1), dtype=np.float32)
    assert timeline.read(0, out) == 0
    timeline.write(numbered(0, 6, 1))
    assert [timeline.read(start, out) for start in (-1, 0, 4, 6, 7)] == [0, 4, 2, 0, 0]
    timeline.write(numbered(6, 6, 1))
    assert [timeline.read(start, out) for start in (3, 4, 8, 10)] == [0, 4, 4, 2]
    np.testing.assert_array_equal(out[:2], numbered(10, 2, 1))


def test_readers_do_not_disturb_each_other() -> None:
    timeline = Timeline(16, 2)
    timeline.write(numbered(0, 12, 2))
    before = timeline.header.copy()
    out = np.empty((5, 2), dtype=np.float32)
    for start in (7, 0, 3, 7):
        assert timeline.read(start, out) == 5
        np.testing.assert_array_equal(out, numbered(start, 5, 2))
    np.testing.assert_array_equal(timeline.header, before)


def test_of_a_block_longer_than_the_memory_the_newest_frames_stay() -> None:
    timeline = Timeline(8, 2)
    timeline.write(numbered(0, 3, 2))
    assert timeline.write(numbered(3, 30, 2)) == 33
    out = np.empty((8, 2), dtype=np.float32)
    assert timeline.read(24, out) == 0
    assert timeline.read(25, out) == 8
    np.testing.assert_array_equal(out, numbered(25, 8, 2))


def test_seek_gives_up_the_past_and_leaves_a_hole() -> None:
    timeline = Timeline(16, 1)
    timeline.write(numbered(0, 10, 1))
    timeline.seek(14)
    out = np.empty((4, 1), dtype=np.float32)
    assert (timeline.written, timeline.start) == (14, 14)
    timeline.write(numbered(14, 2, 1))
    assert [timeline.read(start, out) for start in (9, 12, 13, 14, 15)] == [0, 0, 0, 2, 1]
    timeline.seek(16)
    assert timeline.read(14, out) == 0


def test_seek_never_goes_back() -> None:
    timeline = Timeline(16, 1)
    timeline.write(numbered(0, 10, 1))
    with pytest.raises(ValueError, match="forward"):
        timeline.seek(9)
    assert timeline.start == 0
    assert timeline_seek(timeline.header, 9) == 10
    assert (timeline_written(timeline.header), timeline_start(timeline.header)) == (10, 10)


def test_frames_claimed_by_a_writer_that_died_are_not_handed_out() -> None:
    timeline = Timeline(8, 1)
    timeline.write(numbered(0, 8, 1))
    # The writer claimed four frames, overwrote some, and was killed before it could publish.
    timeline.header[CLAIM_INDEX] = 12
    timeline.data[:2] = -1.0
    out = np.empty((2, 1), dtype=np.float32)
    assert [timeline.read(start, out) for start in (0, 1, 3, 4)] == [0, 0, 0, 2]
    # Its successor writes less than that, and what was spoilt stays spoilt.
    timeline.write(numbered(8, 1, 1))
    assert timeline.header[CLAIM_INDEX] == 12
    assert timeline.read(2, out) == 0
    assert timeline.read(7, out) == 2
    np.testing.assert_array_equal(out, numbered(7, 2, 1))


def test_the_words_of_the_writer_stand_apart_from_the_constants() -> None:
    timeline = Timeline(8, 1)
    assert timeline.header.ctypes.data % 64 == 0
    assert (HEADER_WORDS * 8) % 64 == 0
    lines = {word * 8 // 64 for word in (WRITE_INDEX, START_INDEX, CLAIM_INDEX)}
    assert lines == {2}


def test_two_mappings_of_one_shared_memory() -> None:
    offset = 256
    memory = SharedMemory(create=True, size=offset + Timeline.bytes_needed(16, 2))
    other = SharedMemory(name=memory.name)
    writer_view, reader_view = memory.buf[offset:], other.buf[offset:]
    try:
        writer = Timeline(16, 2, writer_view)
        reader = Timeline.attach(reader_view)
        assert (reader.capacity, reader.channels) == (16, 2)
        out = np.empty((5, 2), dtype=np.float32)
        for start in range(0, 100, 5):
            assert writer.write(numbered(start, 5, 2)) == start + 5
            assert reader.read(start, out) == 5
            np.testing.assert_array_equal(out, numbered(start, 5, 2))
        writer.release()
        reader.release()
    finally:
        writer_view.release()
        reader_view.release()
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
        written = timeline_write(header, data, block)
        block[:] = 0.0
        return 100 * written + timeline_read(header, data, written - frames, block)

    timeline = Timeline(16, 2)
    timeline.seek(20)
    block = numbered(20, 5, 2)
    expected = block.copy()
    arrays: list[np.ndarray] = [timeline.header, timeline.data, block]
    wanted: list[Any] = list(callback.ctypes.argtypes[:3])
    pointers = [a.ctypes.data_as(t) for a, t in zip(arrays, wanted, strict=True)]
    assert callback.ctypes(*pointers, 5) == 2505
    np.testing.assert_array_equal(block, expected)


def test_refuses_unfit_sizes_buffers_and_blocks() -> None:
    with pytest.raises(ValueError, match="timeline capacity must be a power of two"):
        Timeline(1000, 1)
    with pytest.raises(ValueError, match="at least one channel"):
        Timeline(8, 0)
    with pytest.raises(ValueError, match="this timeline needs"):
        Timeline(8, 1, bytearray(Timeline.bytes_needed(8, 1) - 1))
    with pytest.raises(ValueError, match="writable"):
        Timeline(8, 1, bytes(Timeline.bytes_needed(8, 1)))
    with pytest.raises(ValueError, match="aligned"):
        Timeline(8, 1, memoryview(bytearray(Timeline.bytes_needed(8, 1) + 8))[1:])
    with pytest.raises(ValueError, match="no timeline"):
        Timeline.attach(bytearray(Timeline.bytes_needed(8, 1)))
    timeline = Timeline(8, 2)
    with pytest.raises(ValueError, match="shape"):
        timeline.write(np.zeros((4, 1), dtype=np.float32))
    with pytest.raises(ValueError, match="float32"):
        timeline.read(0, np.zeros((4, 2)))

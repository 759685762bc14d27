"""One writer that laps its readers all the time: a block is whole or refused, never torn."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest
from numba import njit

from rtsr_kernels.timeline import (
    CLAIM_INDEX,
    Timeline,
    timeline_read,
    timeline_write,
    timeline_written,
)

# float32 counts exactly to 2**24; samples are numbered modulo that.
LAST_NUMBER = (1 << 24) - 1
SECONDS = 2.0
ROUNDS = 2_000


@njit(nogil=True)
def _next_random(state):  # type: ignore[no-untyped-def]
    return (state * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF


@njit(nogil=True)
def _write_on(header, data, block, progress):  # type: ignore[no-untyped-def]
    """Blocks of numbered samples and random length, as fast as they go. `progress[0]`: random."""
    frames_most, channels = block.shape
    for _ in range(ROUNDS):
        progress[0] = _next_random(progress[0])
        frames = 1 + (progress[0] >> 33) % frames_most
        begin = timeline_written(header)
        for frame in range(frames):
            for channel in range(channels):
                block[frame, channel] = ((begin + frame) * channels + channel) & LAST_NUMBER
        timeline_write(header, data, block[:frames])


@njit(nogil=True)
def _read_anywhere(header, data, block, progress):  # type: ignore[no-untyped-def]
    """Read around the oldest frames, which are being overwritten.

    `progress` counts, from 1: whole blocks, refused ones, samples that are wrong.
    """
    frames_most, channels = block.shape
    capacity = data.shape[0]
    for _ in range(ROUNDS):
        progress[0] = _next_random(progress[0])
        frames = 1 + (progress[0] >> 33) % frames_most
        progress[0] = _next_random(progress[0])
        # From somewhat too late to comfortably early.
        start = timeline_written(header) - capacity + (progress[0] >> 33) % (3 * frames_most)
        start -= frames_most // 4
        count = timeline_read(header, data, start, block[:frames])
        if count == 0:
            progress[2] += 1
        else:
            progress[1] += 1
        for frame in range(count):
            for channel in range(channels):
                expected = ((start + frame) * channels + channel) & LAST_NUMBER
                if block[frame, channel] != expected:
                    progress[3] += 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capacity", "longest", "channels"),
    [(4096, 700, 2), (64, 48, 1), (16, 16, 1)],
    ids=["stereo", "tiny", "blocks-as-long-as-the-memory"],
)
def test_never_a_torn_block(capacity: int, longest: int, channels: int) -> None:
    timeline = Timeline(capacity, channels)
    stop = threading.Event()
    progress = {name: np.array([seed, 0, 0, 0]) for seed, name in enumerate(["w", "r", "s"], 1)}

    def run(name: str) -> None:
        action = _write_on if name == "w" else _read_anywhere
        block = np.empty((longest, channels), dtype=np.float32)
        while not stop.is_set():
            action(timeline.header, timeline.data, block, progress[name])

    # Compiled before the clock starts.
    for action in (_write_on, _read_anywhere):
        block = np.empty((longest, channels), dtype=np.float32)
        action(timeline.header, timeline.data, block, np.array([9, 0, 0, 0]))
    threads = [threading.Thread(target=run, args=(name,)) for name in progress]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    for reader in ("r", "s"):
        _, whole, refused, wrong = progress[reader]
        assert wrong == 0
        # Both happened, else nothing was tried.
        assert whole > 100
        assert refused > 100
    assert timeline.written > 100 * capacity


def test_a_claim_made_while_frames_are_copied_is_noticed() -> None:
    """Without any luck of timing: the copy itself lands on the claim, as if a writer came then."""
    timeline = Timeline(8, 1)
    timeline.write(np.zeros((8, 1), dtype=np.float32))
    claim_bits = timeline.data[:2, 0].view(np.int64)
    claim = timeline.header.view(np.float32)[2 * CLAIM_INDEX :][:2].reshape(2, 1)
    for value, count in [(8, 2), (9, 0)]:
        timeline.header[CLAIM_INDEX] = 8
        claim_bits[0] = value
        assert timeline_read(timeline.header, timeline.data, 0, claim) == count
        assert timeline.header[CLAIM_INDEX] == value


@pytest.mark.parametrize("function", [timeline_write, timeline_read], ids=["write", "read"])
def test_compiled_code_holds_fences_in_their_places(function) -> None:  # type: ignore[no-untyped-def]
    # Compiled anew, because numba does not show the code of a function that came from its cache.
    code = njit(function.signatures[0])(function.py_func)
    text = code.inspect_llvm(code.signatures[0])
    if function is timeline_write:
        order = [r"store atomic i64 .* release", r"fence release", r"store atomic i64 .* release"]
    else:
        order = [r"load atomic i64, .* acquire", r"fence acquire", r"load atomic i64, .* acquire"]
    position = 0
    for pattern in order:
        found = re.compile(pattern).search(text, position)
        assert found, pattern
        position = found.end()

"""The ring between two threads and between two processes, and the instructions it rests on."""

from __future__ import annotations

import mmap
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from rtsr_kernels.ring import Ring, ring_read, ring_write

SAMPLES = 64_000_000
LONGEST_BLOCK = 700
# float32 counts exactly to 2**24; samples are numbered modulo that.
LAST_NUMBER = (1 << 24) - 1
PATIENCE = 2_000


@njit(nogil=True)
def _next_random(state):  # type: ignore[no-untyped-def]
    return (state * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF


@njit(nogil=True)
def _produce(header, data, block, progress, target):  # type: ignore[no-untyped-def]
    """Write numbered samples until `target` frames are written or the ring stays full for long.

    `progress` holds the frames so far and the random state.
    """
    channels = block.shape[1]
    idle = 0
    while progress[0] < target and idle < PATIENCE:
        progress[1] = _next_random(progress[1])
        frames = min(1 + (progress[1] >> 33) % LONGEST_BLOCK, target - progress[0])
        for frame in range(frames):
            for channel in range(channels):
                block[frame, channel] = ((progress[0] + frame) * channels + channel) & LAST_NUMBER
        # A full ring takes a part of the block: the rest is numbered anew in the next round.
        written = ring_write(header, data, block[:frames])
        progress[0] += written
        idle = 0 if written else idle + 1


@njit(nogil=True)
def _consume(header, data, block, progress, target):  # type: ignore[no-untyped-def]
    """Read `target` frames or until nothing comes for long; `progress[2]` counts errors."""
    channels = block.shape[1]
    idle = 0
    while progress[0] < target and idle < PATIENCE:
        progress[1] = _next_random(progress[1])
        frames = 1 + (progress[1] >> 33) % LONGEST_BLOCK
        count = ring_read(header, data, block[:frames])
        for frame in range(count):
            for channel in range(channels):
                expected = ((progress[0] + frame) * channels + channel) & LAST_NUMBER
                if block[frame, channel] != expected:
                    progress[2] += 1
        progress[0] += count
        idle = 0 if count else idle + 1


@pytest.mark.slow
@pytest.mark.parametrize(("capacity", "channels"), [(4096, 2), (64, 1)], ids=["stereo", "tiny"])
def test_two_threads_lose_repeat_and_reorder_nothing(capacity: int, channels: int) -> None:
    samples = SAMPLES if capacity > 64 else SAMPLES // 32
    target = samples // channels
    ring = Ring(capacity, channels)
    sides = {}
    deadline = time.monotonic() + 240

    def run(name: str, side, seed: int) -> None:  # type: ignore[no-untyped-def]
        progress = np.array([0, seed, 0], dtype=np.int64)
        block = np.empty((LONGEST_BLOCK, channels), dtype=np.float32)
        sides[name] = progress
        while progress[0] < target and time.monotonic() < deadline:
            side(ring.header, ring.data, block, progress, target)
            time.sleep(1e-5)  # on one core: let the other side run

    threads = [
        threading.Thread(target=run, args=("written", _produce, 1)),
        threading.Thread(target=run, args=("read", _consume, 2)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sides["written"][0] == target
    assert sides["read"][0] == target
    assert sides["read"][2] == 0
    assert ring.frames_written == ring.frames_read == target
    assert ring.readable == 0


def test_the_check_would_notice_a_lost_frame() -> None:
    ring = Ring(1024, 1)
    block = np.empty((LONGEST_BLOCK, 1), dtype=np.float32)
    progress = np.array([0, 1, 0], dtype=np.int64)
    _produce(ring.header, ring.data, block, progress, 500)
    ring.skip(1)
    seen = np.array([0, 2, 0], dtype=np.int64)
    _consume(ring.header, ring.data, block, seen, 499)
    assert seen[2] == 499


CHILD = """
import mmap, sys, time
import numpy as np
from rtsr_kernels.ring import Ring
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
ring = Ring.attach(memory)
total, errors, block = 0, 0, np.empty((333, 2), dtype=np.float32)
deadline = time.monotonic() + 60
while total < int(sys.argv[2]) and time.monotonic() < deadline:
    count = ring.read(block)
    errors += (block[:count].reshape(-1) != np.arange(2 * total, 2 * (total + count))).sum()
    total += count
print(total, errors)
"""


def test_two_processes(tmp_path: Path) -> None:
    target = 1_000_000
    path = tmp_path / "ring"
    path.write_bytes(bytes(Ring.bytes_needed(4096, 2)))
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    ring = Ring(4096, 2, memory)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(target)], stdout=subprocess.PIPE, text=True
    )
    total = 0
    while total < target and child.poll() is None:
        frames = min(500, target - total)
        block = np.arange(2 * total, 2 * (total + frames), dtype=np.float32).reshape(frames, 2)
        total += ring.write(block)
    assert child.communicate(timeout=60)[0].split() == [str(target), "0"]
    ring.release()
    memory.close()


@pytest.mark.parametrize("function", [ring_write, ring_read], ids=["write", "read"])
def test_compiled_code_holds_the_atomic_instructions(function) -> None:  # type: ignore[no-untyped-def]
    # Compiled anew, because numba does not show the code of a function that came from its cache.
    code = njit(function.signatures[0])(function.py_func)
    text = code.inspect_llvm(code.signatures[0])
    assert re.search(r"load atomic i64, .* acquire, align 8", text)
    assert re.search(r"store atomic i64 .* release, align 8", text)
    # The samples are moved between the two, as the index is published last.
    position = text.index("load atomic")
    assert position < text.index("store atomic")

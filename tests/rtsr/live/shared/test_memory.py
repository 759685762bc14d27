from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rtsr.errors import ArgumentError, RtsrError
from rtsr.live.shared import memory as live_memory
from rtsr.live.shared.counters import CALLBACK_COUNTERS, WORKER_COUNTERS
from rtsr.live.shared.events import EVENT_BYTES, EVENT_SLOTS, EventLog
from rtsr.live.shared.memory import LiveMemory


def test_two_sides_see_the_same_words() -> None:
    with LiveMemory.create(2) as memory:
        other = LiveMemory.attach(memory.name)
        try:
            assert other.channels == 2
            assert memory.callback["first_signal_frame"] == -1
            block = np.arange(960, dtype=np.float32).reshape(480, 2)
            memory.capture.write(block)
            out = np.empty_like(block)
            assert other.capture.read(0, out) == 480
            np.testing.assert_array_equal(out, block)
            other.worker["steps"] = 7
            other.controls[3] = 0.25
            assert memory.worker["steps"] == 7
            assert memory.controls[3] == 0.25
            memory.callback_enabled = False
            assert not other.callback_enabled
        finally:
            other.close()


def test_timelines_hold_as_much_time_at_each_rate() -> None:
    with LiveMemory.create(1, 192000) as memory:
        other = LiveMemory.attach(memory.name)
        assert other.clock.rate == 192000
        assert other.capture.capacity == other.playback.capacity == other.frames == 4 << 16
        other.close()
    with pytest.raises(ArgumentError, match="one of 48000, 96000, 192000 Hz, not 44100"):
        LiveMemory.create(1, 44100)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory has no folder here")
def test_a_program_that_is_stopped_while_it_is_made_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def stopped(block: live_memory.SharedMemory) -> None:
        made.append(block.name)
        raise SystemExit(129)

    monkeypatch.setattr(live_memory, "_touch", stopped)
    with pytest.raises(SystemExit):
        LiveMemory.create(1)
    assert not Path("/dev/shm", made[0]).exists()


# As root of a namespace of its own: nobody else may mount.
_ALONE = ("unshare", "--user", "--map-root-user", "--mount")


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    # Where a system refuses it, unshare ends with 1, as a traceback does.
    tried = (*_ALONE, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
    return subprocess.run(tried, capture_output=True, timeout=60).returncode == 0


def test_too_little_room_is_a_sentence() -> None:
    if not _may_mount():
        pytest.skip("nothing may be mounted here")
    # In a process of its own, which the system would kill.
    program = """
import os
from rtsr.errors import RtsrError
from rtsr.live.shared.memory import LiveMemory
try:
    LiveMemory.create(1)
except RtsrError as error:
    print(error)
print(os.listdir("/dev/shm"))
"""
    small = "mount -t tmpfs -o size=256k tmpfs /dev/shm"
    whole = f"{small} && exec {shlex.quote(sys.executable)} -c {shlex.quote(program)}"
    result = subprocess.run(
        [*_ALONE, "sh", "-c", whole], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    sentence, left = result.stdout.splitlines()
    assert re.fullmatch(
        r"\d+ KiB of shared memory are not available \(No space left on device\); make room .*\.",
        sentence,
    )
    assert left == "[]"


@pytest.mark.parametrize(
    ("record", "second_writer"),
    [(CALLBACK_COUNTERS, "callbacks"), (WORKER_COUNTERS, "stop")],
    ids=["callback", "worker"],
)
def test_counters_of_two_writers_share_no_cache_line(record: np.dtype, second_writer: str) -> None:
    offsets = {name: record.fields[name][1] for name in record.names}
    border = offsets[second_writer]
    assert border % 128 == 0
    assert sorted(offsets.values()) == list(offsets.values())
    assert max(offset for offset in offsets.values() if offset < border) + 8 <= border
    assert record.isalignedstruct
    assert all(record[name] == np.int64 for name in record.names)


def test_arrays_of_the_memory_lie_on_cache_lines_of_their_own() -> None:
    with LiveMemory.create(3) as memory:
        for name in ("callback", "worker", "controls", "step_histogram"):
            # Shared memory starts at a page, so this is the alignment within it.
            assert getattr(memory, name).ctypes.data % 128 == 0


def test_events_keep_the_newest() -> None:
    with LiveMemory.create(1) as memory:
        other = LiveMemory.attach(memory.name)
        for number in range(10):
            memory.events.write(number, kind=1, source=2, target=3, cause=4, value=-5)
        assert [event.number for event in other.events.read()] == list(range(10))
        last = other.events.read(9)[0]
        assert (last.time_ns, last.kind, last.source, last.target) == (9, 1, 2, 3)
        assert (last.cause, last.value) == (4, -5)
        for number in range(10, 1000):
            memory.events.write(number, kind=1)
        events = other.events.read(5)
        assert other.events.count == 1000
        assert EVENT_SLOTS - 1 <= len(events) <= EVENT_SLOTS
        assert [event.time_ns for event in events] == list(range(1000 - len(events), 1000))
        other.close()


def test_no_event_is_read_that_is_being_overwritten() -> None:
    class Overtaken(EventLog):
        """Its writer goes on as soon as the reader knows how many events there are."""

        @property
        def count(self) -> int:
            count = super().count
            for number in range(count, self.goes_on_to):
                self.write(number, kind=number)
            return count

        goes_on_to = 0

    log = Overtaken(bytearray(EVENT_BYTES))
    for number in range(2 * EVENT_SLOTS):
        log.write(number, kind=number)
    # The next one is not whole yet: it lies where the oldest was.
    next_record = log._words[16:].reshape(EVENT_SLOTS, -1)[0]
    next_record[0] = -1
    first = EVENT_SLOTS + 1
    assert [event.time_ns for event in log.read()] == list(range(first, 2 * EVENT_SLOTS))
    log.goes_on_to = 2 * EVENT_SLOTS + 10
    events = log.read()
    assert [event.number for event in events] == list(range(first + 10, 2 * EVENT_SLOTS))
    assert all(event.time_ns == event.kind == event.number for event in events)


def test_the_end_makes_no_noise() -> None:
    # In a process of its own: what the resource tracker complains about comes at the exit.
    program = """
import subprocess, sys
from rtsr.live.shared.counters import CALLBACK_COUNTERS, WORKER_COUNTERS
from rtsr.live.shared.memory import LiveMemory
if len(sys.argv) == 1:
    memory = LiveMemory.create(1)
    held = memory.controls
    subprocess.run([sys.executable, "-c", sys.stdin.read(), memory.name], check=True)
    assert memory.controls[0] == 1.0
    LiveMemory.attach(memory.name).close()
    memory.close()
    memory.close()
    memory.unlink()
    memory.unlink()
    held[0] = 2.0
else:
    memory = LiveMemory.attach(sys.argv[1])
    memory.controls[0] = 1.0
"""
    result = subprocess.run(
        [sys.executable, "-c", program], input=program, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_bad_input() -> None:
    with pytest.raises(ArgumentError, match="1 to 8 channels, not 9"):
        LiveMemory.create(9)
    with pytest.raises(RtsrError, match="no live session's memory named 'rtsr-live-nowhere'"):
        LiveMemory.attach("rtsr-live-nowhere")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system has no /proc")
def test_a_view_that_is_still_held_keeps_no_file_open() -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = files()
    held = []
    for _ in range(3):
        with LiveMemory.create(1) as memory:
            held.append(memory.worker)
        del memory
    # A mapping has a descriptor of its own, which goes with it.
    assert all(words["pid"] == 0 for words in held)
    held.clear()
    assert files() == before

"""The one block of shared memory that the audio callback, the worker and the session talk through.

Every value in it has exactly one writer, so nobody ever waits for anybody: a side that has died or
sleeps leaves its values as they are, and the others go on. Values of different writers lie on
different cache lines.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import mmap
import os
import secrets
import sys
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from rtsr.errors import ArgumentError, RtsrError
from rtsr.live.shared.colour import COLOUR_BYTES, SharedColour
from rtsr.live.shared.counters import CALLBACK_COUNTERS, WORKER_COUNTERS
from rtsr.live.shared.events import EVENT_BYTES, EventLog
from rtsr.live.shared.timing import TIMELINE_RATES, TimelineClock
from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.timeline import Timeline

TIMELINE_FRAMES = 1 << 16
"""Frames of both timelines at 48 kHz: 1.4 s, more than any stall that is worth catching up with."""
MAX_CHANNELS = 8
CALLBACK_BINS = 2048
"""Bins of the callbacks' durations, one microsecond each; the last one also holds longer ones."""
STEP_BINS = 4096
"""Bins of the step times, ten microseconds each; the last one also holds longer ones."""
STEP_BIN_NS = 10_000
CONTROL_SLOTS = 16

_NAME_PREFIX = "rtsr-live-"
_MAGIC, _SIZE, _CHANNELS, _RATE, _CALLBACK_ENABLED = 0, 1, 2, 3, 32
_MAGIC_VALUE = 0x3145564C52535452
_PAGE = 128


class LiveMemory:
    """Shared memory of one live session; `create` makes it, `attach` joins it by name.

    Attributes:
        name: what `attach` wants.
        channels: of the engine, and so of both timelines.
        clock: `TimelineClock` of both timelines, with their rate.
        frames: that each of them holds.
        capture: `Timeline` of what was captured, written by the callback.
        playback: `Timeline` of what the engine made of it, written by the worker. Frame `j` belongs
            to capture frame `j - clock.lag`.
        callback: the record `CALLBACK_COUNTERS`, of shape `()`: each field of it is a view.
        callback_histogram: int64 `(2048,)`, durations of the playing callback in microseconds.
        capture_histogram: int64 `(2048,)`, the same of a callback that only captures.
        worker: the record `WORKER_COUNTERS`, likewise.
        step_histogram: int64 `(4096,)`, step times in bins of ten microseconds.
        controls: float64 `(16,)`, for a `ControlBoard`; written by the session.
        colour: `SharedColour`, written by the session.
        events: `EventLog` of the worker.
    """

    def __init__(self, block: SharedMemory, channels: int, rate: int, fresh: bool) -> None:
        buffer = block.buf
        assert buffer is not None
        self._block = block
        self._owner = fresh
        self.name = block.name
        self.channels = channels
        self.clock = TimelineClock(rate)
        self.frames = _frames(rate)
        spans = _layout(channels, rate)

        def array(part: str, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
            offset, length = spans[part]
            assert np.dtype(kind).itemsize * math.prod(shape) <= length
            return np.frombuffer(buffer, dtype=kind, count=math.prod(shape), offset=offset).reshape(
                shape
            )

        def part(name: str) -> memoryview:
            offset, length = spans[name]
            return buffer[offset : offset + length]

        self._header = array("header", np.int64, (64,))
        self.callback = array("callback", CALLBACK_COUNTERS, ())
        self.callback_histogram = array("callback_histogram", np.int64, (CALLBACK_BINS,))
        self.capture_histogram = array("capture_histogram", np.int64, (CALLBACK_BINS,))
        self.worker = array("worker", WORKER_COUNTERS, ())
        self.step_histogram = array("step_histogram", np.int64, (STEP_BINS,))
        self.controls = array("controls", np.float64, (CONTROL_SLOTS,))
        if fresh:
            self.capture = Timeline(self.frames, channels, part("capture"))
            self.playback = Timeline(self.frames, channels, part("playback"))
            for name in ("first_signal_frame", "fill_min", "fill_max"):
                self.callback[name] = -1
            self._header[_SIZE] = block.size
            self._header[_CHANNELS] = channels
            self._header[_RATE] = rate
            self._header[_CALLBACK_ENABLED] = 1
            self._header[_MAGIC] = _MAGIC_VALUE
        else:
            self.capture = Timeline.attach(part("capture"))
            self.playback = Timeline.attach(part("playback"))
        self.colour = SharedColour(part("colour"))
        self.events = EventLog(part("events"))

    @classmethod
    def create(cls, channels: int, rate: int = SAMPLE_RATE) -> LiveMemory:
        """Return new memory for an engine of `channels` channels, everything at zero.

        Args:
            channels: of the engine, 1 to 8.
            rate: Hz of both timelines: 48000, 96000 or 192000.

        Raises:
            ArgumentError: another number of channels, or another rate.
            RtsrError: the system refuses the memory.
        """
        if not 1 <= channels <= MAX_CHANNELS:
            raise ArgumentError(f"The engine takes 1 to {MAX_CHANNELS} channels, not {channels}.")
        if rate not in TIMELINE_RATES:
            known = ", ".join(map(str, TIMELINE_RATES))
            raise ArgumentError(f"A timeline's rate is one of {known} Hz, not {rate}.")
        size = sum(length for _, length in _layout(channels, rate).values())
        block: SharedMemory | None = None
        try:
            block = _Block(name=_NAME_PREFIX + secrets.token_hex(6), create=True, size=size)
            _reserve(block)
            _touch(block)
            return cls(block, channels, rate, fresh=True)
        except BaseException as error:
            # A signal may end the program here, before anybody else could clear up.
            if block is not None:
                block.unlink()
                block.close()
            if not isinstance(error, OSError):
                raise
            raise RtsrError(
                f"{size // 1024} KiB of shared memory are not available "
                f"({error.strerror or error}); make room where the system keeps it."
            ) from error

    @classmethod
    def attach(cls, name: str) -> LiveMemory:
        """Join the memory of that name.

        Raises:
            RtsrError: there is none, or it is not one of ours.
        """
        try:
            block = _attach(name)
        except (OSError, ValueError) as error:
            raise RtsrError(
                f"There is no live session's memory named {name!r}; has the session ended?"
            ) from error
        assert block.buf is not None
        header = np.frombuffer(block.buf, np.int64, min(64, block.size // 8))
        known = header.size == 64 and header[_MAGIC] == _MAGIC_VALUE
        channels, rate = (int(header[_CHANNELS]), int(header[_RATE])) if known else (0, 0)
        del header
        if not known:
            block.close()
            raise RtsrError(f"The shared memory {name!r} is not a live session's.")
        return cls(block, channels, rate, fresh=False)

    @property
    def callback_enabled(self) -> bool:
        """While false, what is played fades to silence; the stream and capturing go on."""
        return bool(self._header[_CALLBACK_ENABLED])

    @callback_enabled.setter
    def callback_enabled(self, enabled: bool) -> None:
        self._header[_CALLBACK_ENABLED] = int(enabled)

    @property
    def callback_enabled_address(self) -> int:
        """Where the callback finds that flag, an int64."""
        return self._header.ctypes.data + 8 * _CALLBACK_ENABLED

    def close(self) -> None:
        """Let go of the memory in this process. No callback may run on it any more.

        Arrays taken from here before keep the mapping, not the name, until they are gone.
        """
        if "capture" not in self.__dict__:
            return
        self.capture.release()
        self.playback.release()
        self.colour.release()
        self.events.release()
        for name in _VIEWS:
            del self.__dict__[name]
        self._block.close()

    def unlink(self) -> None:
        """Remove the name, so that the memory goes when the last process lets go of it."""
        if self._owner:
            self._owner = False
            with contextlib.suppress(FileNotFoundError):
                self._block.unlink()

    def __enter__(self) -> LiveMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.unlink()


_VIEWS = (
    "_header",
    "callback",
    "callback_histogram",
    "capture_histogram",
    "worker",
    "step_histogram",
    "controls",
    "colour",
    "capture",
    "playback",
    "events",
)


def _frames(rate: int) -> int:
    """Frames that a timeline of a rate in Hz holds: as much time at each."""
    return TIMELINE_FRAMES * rate // SAMPLE_RATE


def _layout(channels: int, rate: int) -> dict[str, tuple[int, int]]:
    """`(offset, bytes)` of every part, each on cache lines of its own."""
    timeline = Timeline.bytes_needed(_frames(rate), channels)
    lengths = {
        "header": 64 * 8,
        "callback": CALLBACK_COUNTERS.itemsize,
        "callback_histogram": CALLBACK_BINS * 8,
        "capture_histogram": CALLBACK_BINS * 8,
        "worker": WORKER_COUNTERS.itemsize,
        "step_histogram": STEP_BINS * 8,
        "controls": CONTROL_SLOTS * 8,
        "colour": COLOUR_BYTES,
        "events": EVENT_BYTES,
        "capture": timeline,
        "playback": timeline,
    }
    spans = {}
    offset = 0
    for name, length in lengths.items():
        padded = -(-length // _PAGE) * _PAGE
        spans[name] = (offset, padded)
        offset += padded
    return spans


class _Block(SharedMemory):
    """Shared memory whose end makes no noise when a view of it is still held somewhere."""

    def close(self) -> None:
        try:
            super().close()
        except BufferError:
            # The mapping then ends with the last view, or with the process. The file is not needed
            # for that, and nothing would close it any more.
            descriptor = getattr(self, "_fd", -1)
            if descriptor >= 0:
                os.close(descriptor)
                self._fd = -1


def _attach(name: str) -> SharedMemory:
    if sys.version_info >= (3, 13):
        return _Block(name=name, track=False)
    if os.name != "posix":
        return _Block(name=name)
    return _untracked(name)


def _untracked(name: str) -> SharedMemory:
    """Join without telling Python's resource tracker, which before 3.13 cannot be asked for.

    The tracker of a process that only joined would remove the memory under the others at its end.
    """
    # As the standard library does it; this branch is for its finished versions only.
    _posixshmem: Any = importlib.import_module("_posixshmem")

    block: Any = _Block.__new__(_Block)
    block._name = "/" + name.lstrip("/")
    block._fd = _posixshmem.shm_open(block._name, os.O_RDWR, mode=0o600)
    try:
        block._size = os.fstat(block._fd).st_size
        block._mmap = mmap.mmap(block._fd, block._size)
    except BaseException:
        os.close(block._fd)
        block._fd = -1
        raise
    block._buf = memoryview(block._mmap)
    return block


def _reserve(block: Any) -> None:
    """Raise `OSError` where the system has not this much room.

    A name is given more than there is, and whoever touches a page too much is killed.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(block._fd, 0, block.size)


def _touch(block: SharedMemory) -> None:
    # A page that is first touched in the audio callback would cost it a page fault.
    assert block.buf is not None
    np.frombuffer(block.buf, np.uint8)[:] = 0

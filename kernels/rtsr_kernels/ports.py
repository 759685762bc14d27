"""Convert callers' blocks to steps at 48 kHz and steps back to blocks, for many streams.

Every stream has two rings, one for samples that wait for a step and one for finished ones. They are
lock-free between one pushing, one stepping and one pulling thread, as in `rtsr_kernels.ring`, whose
header they have; here the channels of all streams are rows of one array, so that one compiled call
serves all streams of a batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float32, float64, from_dtype, int16, int64, types, void
from numpy.typing import NDArray

from .atomics import load_acquire, store_release
from .compiled import AUDIO, AUDIO_IN, INDICES, INDICES_IN, SAMPLES, VECTOR, kernel
from .limiter import KNEE, limit
from .resample import CHUNK_FRAMES, TABLE, history_length, resample_line
from .resample_design import conversion_ratio, phase_table
from .ring import HEADER_WORDS, READ_INDEX, WRITE_INDEX
from .timing import SAMPLE_RATE

MAX_CHANNELS = 8

#: Word of the header of a waiting ring: total number of output samples plus one; 0 while that is
#: not known.
END = WRITE_INDEX + 2
#: Likewise, once `END` is known: the write index behind the stream's last sample.
LAST = WRITE_INDEX + 3
#: Far above integer samples stored as floats (2**31), far below where squares leave float32.
LARGEST_SAMPLE = np.float32(1e10)
#: Output rates in Hz; each but the first has its own table of taps.
OUTPUT_RATES = (48000, 44100, 32000, 24000, 16000)

VALUES = np.dtype(
    [
        ("channels", np.int64),
        ("is_open", np.bool_),
        ("played_rate", np.float64),
        ("table", np.int64),
        ("up", np.int64),
        ("taps", np.int64),
        ("down", np.int64),
        ("position", np.int64),
        ("emitted", np.int64),
        ("steps", np.int64),
        ("held_steps", np.int64),
        ("degraded_hops", np.int64),
        ("replicate_hops", np.int64),
        ("dry_hops", np.int64),
        ("limits", np.bool_),
        ("limited", np.int64),
    ],
    align=True,
)
"""Scalars of one stream.

``played_rate`` is that of its output in Hz, where the engine's clock is faster than 48 kHz, too.
The taps of its output's conversion begin at ``table``; ``emitted`` counts finished samples,
``steps`` the steps of its own sound, ``held_steps`` those of others during which it waited,
``degraded_hops`` the hops whose result was not finite, ``replicate_hops`` and ``dry_hops`` those
played at that fallback level because there was no time for the network, ``limited`` the samples
that the limiter reduced.
"""
COUNTERS = (
    "emitted",
    "steps",
    "held_steps",
    "degraded_hops",
    "replicate_hops",
    "dry_hops",
    "limited",
)
_RINGS = types.Array(int64, 2, "C")


class Ports(NamedTuple):
    """The rings of many streams, and the conversion behind them; see `make_ports`."""

    values: NDArray[Any]
    """``(streams,)`` of `VALUES`."""
    slots: NDArray[np.int64]
    """``(streams, 8)``: the slot of each channel."""
    waiting: NDArray[np.int64]
    """``(streams, 48)``: headers of the rings of samples that wait."""
    waiting_data: NDArray[np.float32]
    """``(slots, capacity)`` at 48 kHz."""
    finished: NDArray[np.int64]
    """``(streams, 48)``: headers of the rings of finished samples."""
    finished_data: NDArray[np.float32]
    """``(slots, capacity)`` at the stream's own rate."""
    tables: NDArray[np.float32]
    """Taps of all conversions to output rates, one behind the other."""
    histories: NDArray[np.float32]
    """``(slots, samples)``: of these conversions."""
    gains: NDArray[np.float64]
    """``(streams,)``: of the limiters."""
    block: NDArray[np.float32]
    """``(8, samples)``: scratch memory for one step of one stream."""


PORTS = types.NamedTuple(
    [
        types.Array(from_dtype(VALUES), 1, "C"),
        _RINGS,
        _RINGS,
        AUDIO,
        _RINGS,
        AUDIO,
        SAMPLES,
        AUDIO,
        VECTOR,
        AUDIO,
    ],
    Ports,
)
"""numba's type of `Ports`."""

_FRAMES = types.Array(float32, 2, "A")
_FRAMES_IN = types.Array(float32, 2, "A", readonly=True)
_INTEGERS = types.Array(int16, 2, "A")
_INTEGERS_IN = types.Array(int16, 2, "A", readonly=True)
_FULL_SCALE = np.float32(32768.0)
_HIGHEST, _LOWEST = np.float32(32767.0), np.float32(-32768.0)
#: Samples in a cache line of 64 bytes.
_LINE_SAMPLES = 16


def ring_capacity(samples: int) -> int:
    """Return how much a ring holds that is to hold so many samples.

    It is an odd number of cache lines. Streams move on together, and caches file memory by its
    address modulo a power of two: were that the distance from one ring to the next, all streams
    would contend for the same few places.
    """
    return _LINE_SAMPLES * (-(-samples // _LINE_SAMPLES) | 1)


def make_ports(streams: int, slots: int, step_samples: int, capacity: int) -> Ports:
    """Allocate the ports of `streams` streams with `slots` channels in total.

    Args:
        streams: number of streams.
        slots: number of channels of all streams together.
        step_samples: samples of one step at 48 kHz.
        capacity: samples that each ring holds; see `ring_capacity`.
    """
    tables = [phase_table(SAMPLE_RATE, rate) for rate in OUTPUT_RATES[1:]]
    longest = max(history_length(table.shape[1]) for table in tables)
    return Ports(
        values=np.zeros(streams, VALUES),
        slots=np.zeros((streams, MAX_CHANNELS), np.int64),
        waiting=np.zeros((streams, HEADER_WORDS), np.int64),
        waiting_data=np.zeros((slots, capacity), np.float32),
        finished=np.zeros((streams, HEADER_WORDS), np.int64),
        finished_data=np.zeros((slots, capacity), np.float32),
        tables=np.concatenate([table.ravel() for table in tables]),
        histories=np.zeros((slots, longest), np.float32),
        gains=np.ones(streams),
        block=np.zeros((MAX_CHANNELS, step_samples + 1), np.float32),
    )


def start_port(ports: Ports, row: int, output_rate: int, limits: bool, played_rate: float) -> None:
    """Empty the rings of one stream, whose channels and slots are set, and set its output rate.

    Args:
        ports: of all streams.
        row: of this one.
        output_rate: that steps at 48 kHz are converted to; 48000 where steps come as they leave.
        limits: whether what comes out is kept within full scale.
        played_rate: Hz of what comes out, by which the limiter recovers.
    """
    values = ports.values[row]
    up, down = conversion_ratio(SAMPLE_RATE, output_rate)
    place, taps = 0, 1
    for rate in OUTPUT_RATES[1:]:
        table = phase_table(SAMPLE_RATE, rate)
        if rate == output_rate:
            taps = table.shape[1]
            break
        place += table.size
    values["played_rate"], values["limits"] = played_rate, limits
    values["table"], values["up"], values["taps"], values["down"] = place, up, taps, down
    values["position"] = down - 1
    for counter in COUNTERS:
        values[counter] = 0
    for channel in range(values["channels"]):
        ports.histories[ports.slots[row, channel]].fill(0.0)
    ports.gains[row] = 1.0
    ports.waiting[row].fill(0)
    ports.finished[row].fill(0)
    values["is_open"] = True


@kernel(int64(INDICES))
def readable(header: np.ndarray) -> int:
    """Return the frames in a ring: a lower bound for its reader, an upper bound for its writer."""
    # The read index first: it may only lag, so that the difference is never negative.
    read = load_acquire(header, READ_INDEX)
    return load_acquire(header, WRITE_INDEX) - read


@kernel(void(INDICES, int64, int64))
def set_end(header: np.ndarray, samples: int, pushed: int) -> None:
    """Store in a waiting ring how many samples are to come out in total, and to be pushed.

    Before the last block is pushed: a step that took of it without knowing the end would put out
    too much. The stream ends only once all has been pushed.
    """
    header[LAST] = pushed
    store_release(header, END, samples + 1)


@kernel(int64(INDICES))
def get_end(header: np.ndarray) -> int:
    """Return the total number of output samples; -1 while that is not known."""
    return load_acquire(header, END) - 1


@kernel(
    [
        types.UniTuple(int64, 2)(
            frames, INDICES, AUDIO, INDICES_IN, AUDIO, TABLE, int64, int64, SAMPLES, SAMPLES
        )
        for frames in (_FRAMES_IN, _INTEGERS_IN)
    ]
)
def push_block(
    block: np.ndarray,
    header: np.ndarray,
    data: np.ndarray,
    slots: np.ndarray,
    histories: np.ndarray,
    table: np.ndarray,
    position: int,
    down: int,
    line: np.ndarray,
    converted: np.ndarray,
) -> tuple[int, int]:
    """Repair a block, convert it to 48 kHz and append it to a waiting ring, which has room for it.

    For the pushing thread only. A sample that is NaN or beyond 1e10 becomes 0.

    Args:
        block: ``(frames, channels)`` float32 in [-1, 1] or int16, of any layout.
        header: ``(48,)``, of the stream's waiting ring.
        data: ``(slots, capacity)``, see `Ports.waiting_data`.
        slots: ``(8,)``, the slot of each channel.
        histories: ``(channels, samples)`` of the conversion, see
            `rtsr_kernels.resample.resample_line`.
        table: of the conversion, likewise; one without taps means 48 kHz.
        position: of the conversion, likewise.
        down: of the conversion, likewise.
        line: ``(CHUNK_FRAMES,)``, scratch memory.
        converted: scratch memory for the same samples at 48 kHz, where the ring begins anew.

    Returns:
        the position for the next block, and how many samples were repaired.
    """
    frames, channels = block.shape
    capacity = data.shape[1]
    write_index = header[WRITE_INDEX]
    repaired = 0
    scale = float32(1.0 / 32768.0) if block.itemsize == 2 else float32(1.0)
    start = 0
    while start < frames:
        count = min(CHUNK_FRAMES, frames - start)
        after, due = position, count
        for channel in range(channels):
            for i in range(count):
                value = float32(block[start + i, channel]) * scale
                # A NaN fails this comparison, too.
                if not abs(value) <= LARGEST_SAMPLE:
                    value = float32(0.0)
                    repaired += 1
                line[i] = value
            samples = line[:count]
            ring = data[slots[channel]]
            place = write_index % capacity
            if table.shape[1]:
                up = table.shape[0]
                due = max(0, (count * up - 1 - position) // down + 1)
                fits = place + due <= capacity
                target = ring[place : place + due] if fits else converted[:due]
                after = resample_line(samples, target, histories[channel], table, position, down)
                if fits:
                    continue
                samples = target
            first = min(due, capacity - place)
            for i in range(first):
                ring[place + i] = samples[i]
            for i in range(due - first):
                ring[i] = samples[first + i]
        position = after
        write_index += due
        start += count
    store_release(header, WRITE_INDEX, write_index)
    return position, repaired


@kernel(boolean(PORTS, int64, int64))
def is_row_due(ports: Ports, row: int, step_samples: int) -> bool:
    """Say whether a stream has a step waiting, or its last samples, and room for the result."""
    values = ports.values[row]
    if ports.finished_data.shape[1] - readable(ports.finished[row]) < step_samples:
        return False
    header = ports.waiting[row]
    # Before the end: whoever sees the last block also sees that it is the last.
    waits = readable(header)
    end = get_end(header)
    if end >= 0 and load_acquire(header, WRITE_INDEX) >= header[LAST]:
        return values.emitted < end
    return waits >= step_samples


@kernel(types.UniTuple(int64, 2)(PORTS, int64, INDICES, INDICES))
def find_due(ports: Ports, step_samples: int, due: np.ndarray, held: np.ndarray) -> tuple[int, int]:
    """List the streams that have a step waiting and room for its result, and the others' slots.

    An ended stream is due until its last sample is out; its input is padded with silence.

    Args:
        ports: of `make_ports`.
        step_samples: samples of one step at 48 kHz.
        due: ``(streams,)``, filled from the front with rows.
        held: ``(slots,)``, likewise with the slots of open streams that are not due.

    Returns:
        how many rows are due and how many slots are held.
    """
    due_count, held_count = 0, 0
    for row in range(ports.values.shape[0]):
        values = ports.values[row]
        if not values.is_open:
            continue
        if is_row_due(ports, row, step_samples):
            due[due_count] = row
            due_count += 1
        else:
            for channel in range(values.channels):
                held[held_count] = ports.slots[row, channel]
                held_count += 1
    if due_count:
        # A step will be taken.
        waits = 0
        for row in range(ports.values.shape[0]):
            if waits < due_count and due[waits] == row:
                ports.values[row].steps += 1
                waits += 1
            elif ports.values[row].is_open:
                ports.values[row].held_steps += 1
    return due_count, held_count


@kernel(boolean(PORTS, int64, int64))
def _has_two_steps(ports: Ports, row: int, step_samples: int) -> bool:
    """Say whether a stream that is due has two steps waiting, and room for the results."""
    if ports.finished_data.shape[1] - readable(ports.finished[row]) < 2 * step_samples:
        return False
    # In this order for the reason given in `is_row_due`.
    waits = readable(ports.waiting[row])
    end = get_end(ports.waiting[row])
    # One step puts out no more than that; an ended stream must have more to put out behind it.
    goes_on = end < 0 or ports.values[row].emitted + step_samples < end
    return goes_on and waits >= 2 * step_samples


@kernel(int64(PORTS, int64, INDICES, INDICES))
def put_two_steps_first(ports: Ports, step_samples: int, due: np.ndarray, spare: np.ndarray) -> int:
    """Put the streams that have two steps waiting before the others, in order; return how many.

    For those the second one is counted, too.

    Args:
        ports: of `make_ports`.
        step_samples: samples of one step at 48 kHz.
        due: rows, of `find_due`; they are reordered.
        spare: scratch memory, no shorter than `due`.
    """
    first, others = 0, 0
    for index in range(due.shape[0]):
        row = due[index]
        if _has_two_steps(ports, row, step_samples):
            ports.values[row].steps += 1
            due[first] = row
            first += 1
        else:
            spare[others] = row
            others += 1
    for index in range(others):
        due[first + index] = spare[index]
    return first


@kernel(int64(PORTS, INDICES_IN))
def longest_wait(ports: Ports, rows: np.ndarray) -> int:
    """Return the number of samples in the fullest of these waiting rings."""
    longest = 0
    for index in range(rows.shape[0]):
        longest = max(longest, readable(ports.waiting[rows[index]]))
    return longest


@kernel(void(PORTS, int64, int64))
def _skip(ports: Ports, row: int, count: int) -> None:
    header = ports.waiting[row]
    store_release(header, READ_INDEX, header[READ_INDEX] + count)


@kernel(void(PORTS, int64, int64, int64, SAMPLES))
def _take_line(ports: Ports, row: int, channel: int, count: int, out: np.ndarray) -> None:
    """Copy the oldest `count` samples of one channel; the rest of `out` is silence."""
    data = ports.waiting_data[ports.slots[row, channel]]
    capacity = data.shape[0]
    place = ports.waiting[row, READ_INDEX] % capacity
    first = min(count, capacity - place)
    for i in range(first):
        out[i] = data[place + i]
    for i in range(count - first):
        out[first + i] = data[i]
    for i in range(count, out.shape[0]):
        out[i] = float32(0.0)


@kernel(void(PORTS, INDICES_IN, AUDIO))
def take_rows(ports: Ports, rows: np.ndarray, audio: np.ndarray) -> None:
    """Move a step of each of `rows` into `audio` ``(slots, 480 * hops)``; stepping thread only."""
    for index in range(rows.shape[0]):
        row = rows[index]
        count = min(readable(ports.waiting[row]), audio.shape[1])
        for channel in range(ports.values[row].channels):
            _take_line(ports, row, channel, count, audio[ports.slots[row, channel]])
        _skip(ports, row, count)


@kernel(boolean(AUDIO, int64, int64, float64))
def _any_exceeds(block: np.ndarray, channels: int, frames: int, level: float) -> bool:
    """Say whether any of the first `frames` of ``(channels, samples)`` exceeds a linear level."""
    exceeds = False
    for channel in range(channels):
        line = block[channel]
        for i in range(frames):
            exceeds |= abs(line[i]) > level
    return exceeds


@kernel(void(PORTS, int64, int64, float64))
def _emit(ports: Ports, row: int, frames: int, knee: float) -> None:
    """Convert, limit and append to the finished ring the first `frames` of ``ports.block``."""
    values = ports.values[row]
    channels = values.channels
    block = ports.block
    if values.up != values.down:
        size = values.up * values.taps
        table = ports.tables[values.table : values.table + size].reshape((values.up, values.taps))
        due = max(0, (frames * values.up - 1 - values.position) // values.down + 1)
        after = values.position
        for channel in range(channels):
            # In place: the output never overtakes the input, which is buffered chunk by chunk.
            after = resample_line(
                block[channel, :frames],
                block[channel],
                ports.histories[ports.slots[row, channel]],
                table,
                values.position,
                values.down,
            )
        values.position = after
        frames = due
    if values.limits and (ports.gains[row] != 1.0 or _any_exceeds(block, channels, frames, knee)):
        values.limited += limit(
            block[:channels, :frames].T, ports.gains[row : row + 1], knee, values.played_rate
        )
    end = get_end(ports.waiting[row])
    if end >= 0:
        frames = min(frames, max(0, end - values.emitted))
    header = ports.finished[row]
    capacity = ports.finished_data.shape[1]
    write_index = header[WRITE_INDEX]
    place = write_index % capacity
    first = min(frames, capacity - place)
    for channel in range(channels):
        data = ports.finished_data[ports.slots[row, channel]]
        line = block[channel]
        for i in range(first):
            data[place + i] = line[i]
        for i in range(frames - first):
            data[i] = line[first + i]
    store_release(header, WRITE_INDEX, write_index + frames)
    values.emitted += frames


@kernel(void(PORTS, INDICES_IN, AUDIO_IN, types.Array(boolean, 1, "A", readonly=True)))
def emit_rows(ports: Ports, rows: np.ndarray, audio: np.ndarray, adds: np.ndarray) -> None:
    """Output a finished step of each of `rows`, ``(slots, 480 * hops)``; stepping thread only.

    Where `adds` ``(streams,)`` says that nothing was added to the dry signal, the limiter acts only
    beyond full scale.
    """
    frames = audio.shape[1]
    for index in range(rows.shape[0]):
        row = rows[index]
        for channel in range(ports.values[row].channels):
            ports.block[channel, :frames] = audio[ports.slots[row, channel]]
        _emit(ports, row, frames, KNEE if adds[row] else 1.0)


@kernel(void(PORTS, int64, int64))
def emit_silence(ports: Ports, row: int, frames: int) -> None:
    """Output `frames` samples of silence at 48 kHz, at most one step; stepping thread only."""
    ports.block[:, :frames] = float32(0.0)
    _emit(ports, row, frames, 1.0)


@kernel(
    [
        types.UniTuple(int64, 2)(INDICES, AUDIO, INDICES_IN, frames)
        for frames in (_FRAMES, _INTEGERS)
    ]
)
def pull_block(
    header: np.ndarray, data: np.ndarray, slots: np.ndarray, out: np.ndarray
) -> tuple[int, int]:
    """Move finished samples into the front of `out` ``(frames, channels)``, of any layout.

    For the pulling thread only. int16 is rounded and clipped at full scale.

    Returns:
        the frames moved, and how many samples were clipped.
    """
    frames, channels = out.shape
    capacity = data.shape[1]
    read_index = header[READ_INDEX]
    count = min(frames, load_acquire(header, WRITE_INDEX) - read_index)
    place = read_index % capacity
    first = min(count, capacity - place)
    held = 0
    for channel in range(channels):
        line = data[slots[channel]]
        for begin, end, ahead in ((0, first, place), (first, count, -first)):
            for i in range(begin, end):
                value = line[ahead + i]
                if out.itemsize == 2:
                    scaled = np.rint(value * _FULL_SCALE)
                    held += (scaled > _HIGHEST) | (scaled < _LOWEST)
                    out[i, channel] = int16(min(max(scaled, _LOWEST), _HIGHEST))
                else:
                    out[i, channel] = value
    store_release(header, READ_INDEX, read_index + count)
    return count, held

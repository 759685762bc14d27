"""The audio callback: compiled, without Python, locks, waiting or allocation.

One C function, `PORTAUDIO_CALLBACK`, serves a duplex stream as well as one that only captures or
only plays: the record of `CallbackState` says which. It moves samples between the device and the
two timelines, and counts.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numba import boolean, float64, int32, int64, types, uint8, uint32, uint64, void

from rtsr.live.callback.playback_mix import enhanced_ahead, mix, words_at
from rtsr.live.callback.sample_formats import FLOAT32, INT24, decode, encode
from rtsr.live.callback.state import CHUNK, COUNTERS, STATE, STATE_DTYPE
from rtsr.live.shared.counters import CALLBACK_COUNTERS
from rtsr.live.shared.memory import CALLBACK_BINS
from rtsr.live.shared.pointers import carray, frames_at, pointer_to, read_clock
from rtsr_kernels.compiled import c_function, kernel
from rtsr_kernels.drift import JUMP, STATE_WORDS, drift_update
from rtsr_kernels.resample import ROOM as RESAMPLER_ROOM
from rtsr_kernels.resample import resample_block
from rtsr_kernels.timeline import HEADER_WORDS, timeline_write, timeline_written
from rtsr_kernels.variable_resample import frames_needed, resample_variable

_CONTINUE = 0
_INPUT_UNDERFLOW, _INPUT_OVERFLOW, _OUTPUT_UNDERFLOW, _OUTPUT_OVERFLOW, _PRIMING = 1, 2, 4, 8, 16


# One 48 kHz frame is 62500 / 3 nanoseconds.
_FRAME_NS_UP, _FRAME_NS_DOWN = 62500, 3

# On one clock both sides agree to a frame; anything like this, at 48 kHz, is a change of the
# device's mind.
_ONE_CLOCK_SLACK = 480.0

# A device fills its buffers when it starts, so that playing is soon ahead of where it began, and a
# server goes on calling for several blocks at once. The place that it keeps on the average shows
# in the second half of this time.
_SETTLING_SECONDS = 0.25

# A device may call several times in a row and then pause: PortAudio cuts the blocks of a server
# into the ones it was asked for. So a call is late against the schedule that the frames so far
# give, which forgets at this rate, and which no burst stretches beyond this many seconds.
_FORGETTING = 0.99
_LONGEST_BURST = 0.1


@kernel(boolean(STATE, float64, int64))
def is_late(state: np.ndarray, now: float, frames: int) -> bool:
    """Whether this call came two block periods or more after it could have come."""
    s = state[0]
    late = False
    if s.last_time > 0.0:
        ahead = s.seconds_ahead * _FORGETTING + s.last_frames / s.rate - (now - s.last_time)
        late = ahead < -max(frames, s.last_frames) / s.rate
        s.seconds_ahead = 0.0 if late else min(ahead, _LONGEST_BURST)
    s.last_time = now
    s.last_frames = frames
    return late


@kernel(void(STATE, COUNTERS, int64, int64))
def capture(state: np.ndarray, counters: np.ndarray, address: int, frames: int) -> None:
    """Append `frames` device frames at `address` (0: silence) to the capture timeline."""
    c = counters[0]
    s = state[0]
    channels = s.channels
    header = words_at(s.capture_header, HEADER_WORDS)
    data = frames_at(s.capture_data, s.timeline_frames, channels)
    start = 0
    while start < frames:
        count = min(CHUNK, frames - start)
        block = frames_at(s.device_block, count, channels)
        if address == 0:
            block[:] = 0.0
        else:
            c.repaired_samples += decode(address, s.input_format, s.input_channels, start, block)
        if s.up != s.down:
            taps = s.input_taps
            due = max(0, (count * s.up - 1 - s.input_position) // s.down + 1)
            inner = frames_at(s.inner_block, due, channels)
            s.input_position = resample_block(
                block,
                inner,
                frames_at(s.input_history, channels, taps - 1 + RESAMPLER_ROOM),
                frames_at(s.input_table, s.up, taps),
                s.input_position,
                s.down,
            )
            block = inner
        if c.first_signal_frame < 0:
            for frame in range(block.shape[0]):
                for channel in range(channels):
                    if block[frame, channel] != 0.0 and c.first_signal_frame < 0:
                        c.first_signal_frame = timeline_written(header) + frame
        timeline_write(header, data, block)
        start += count
    c.capture_callbacks += 1
    c.capture_frames += frames


@kernel(int64(STATE, COUNTERS, int64, int64, boolean))
def play_plain(
    state: np.ndarray, counters: np.ndarray, address: int, frames: int, falling: bool
) -> int:
    """Play `frames` frames without conversion, going on from where playing is; returns as `mix`."""
    c = counters[0]
    s = state[0]
    limited = 0
    start = 0
    while start < frames:
        count = min(CHUNK, frames - start)
        block = frames_at(s.inner_block, count, s.channels)
        limited |= mix(state, counters, s.position, block, falling)
        c.clipped_samples += encode(address, s.output_format, s.output_channels, start, block)
        s.position += count
        start += count
    return limited


@kernel(int64(STATE, COUNTERS, int64, int64, float64, boolean))
def play_converted(
    state: np.ndarray,
    counters: np.ndarray,
    address: int,
    frames: int,
    ratio: float,
    falling: bool,
) -> int:
    """Play `frames` frames at `ratio` timeline frames each, going on from where playing is."""
    c = counters[0]
    s = state[0]
    channels = s.channels
    fraction = carray(pointer_to(s.position_fraction), (1,), float64)
    history = frames_at(s.history, s.taps, channels)
    table = frames_at(s.table, s.table_rows, s.taps)
    limited = 0
    falling = falling or s.pending_jump != 0 or s.settling > 0
    start = 0
    while start < frames:
        count = min(CHUNK, frames - start)
        needed = frames_needed(fraction, ratio, count)
        inner = frames_at(s.inner_block, needed, channels)
        limited |= mix(state, counters, s.position, inner, falling)
        s.position += needed
        block = frames_at(s.device_block, count, channels)
        resample_variable(history, fraction, table, ratio, inner, block)
        c.clipped_samples += encode(address, s.output_format, s.output_channels, start, block)
        start += count
    # The jump itself is made in silence; the rise after it is the mix's.
    if s.pending_jump != 0 and s.presence == 0.0:
        s.position += s.pending_jump
        s.pending_jump = 0
        c.resyncs += 1
        if s.two_clocks != 0:
            s.settling = int64(_SETTLING_SECONDS * s.rate)
    return limited


@kernel(void(int64, int64, int64, int64))
def silence(address: int, sample_format: int, channels: int, frames: int) -> None:
    """Zero a whole device buffer."""
    width = 4 if sample_format == FLOAT32 else 3 if sample_format == INT24 else 2
    carray(pointer_to(address), (frames * channels * width,), uint8)[:] = 0


@kernel(void(STATE, COUNTERS))
def note_fill(state: np.ndarray, counters: np.ndarray) -> None:
    """Record how many enhanced frames lie ahead, as soon as the worker has delivered the first."""
    c = counters[0]
    position = state[0].position
    fill = enhanced_ahead(state, position)
    c.fill = fill
    if position < 0 or (fill == 0 and c.fill_max < 0):
        return
    c.fill_max = max(c.fill_max, fill)
    c.fill_min = fill if c.fill_min < 0 else min(c.fill_min, fill)


@kernel(void(STATE, int64, float64))
def settle(state: np.ndarray, frames: int, error: float) -> None:
    """Take in how far playing is off its target; move it there, unheard, when that has settled."""
    s = state[0]
    s.settling -= frames
    if s.settling < 0.5 * _SETTLING_SECONDS * s.rate:
        s.settling_error += error
        s.settling_calls += 1
    if s.settling <= 0:
        s.position += int64(round(s.settling_error / s.settling_calls))
        s.settling_error = 0.0
        s.settling_calls = 0


@kernel(float64(STATE, COUNTERS, int64, int64, float64))
def follow(
    state: np.ndarray, counters: np.ndarray, frames: int, captured_before: int, now: float
) -> float:
    """Keep the playing position on its target; returns timeline frames per device frame.

    `captured_before` are the timeline frames that were there before this call's input.
    """
    c = counters[0]
    s = state[0]
    if s.two_clocks == 0:
        target = float64(captured_before - s.delay)
        if s.taps == 0 or s.started == 0:
            s.position = captured_before - s.delay
        else:
            fraction = carray(pointer_to(s.position_fraction), (1,), float64)
            error = target - s.position - fraction[0]
            if abs(error) > _ONE_CLOCK_SLACK * s.timeline_factor and s.pending_jump == 0:
                s.pending_jump = int64(error)
        s.started = 1
        return s.nominal_ratio
    captured_now = (now - 1e-9 * c.capture_epoch_ns) * s.timeline_rate
    factor = 1.0 + 1e-9 * c.drift_ppb
    # While the capturing device pauses nothing is learned about clocks.
    if captured_now > captured_before + s.capture_horizon:
        return s.nominal_ratio * factor
    target = captured_now - s.delay
    if s.started == 0:
        s.position = int64(target)
        s.started = 1
        s.settling = int64(_SETTLING_SECONDS * s.rate)
    if s.settling > 0:
        settle(state, frames, target - s.position)
    elif s.pending_jump == 0:
        fraction = carray(pointer_to(s.position_fraction), (1,), float64)
        drift = carray(pointer_to(s.drift), (STATE_WORDS,), float64)
        error = target - s.position - fraction[0]
        factor = drift_update(drift, error / s.timeline_factor, frames / s.rate)
        s.pending_jump = int64(drift[JUMP] * s.timeline_factor)
        c.drift_ppb = int64(round((factor - 1.0) * 1e9))
    return s.nominal_ratio * factor


@kernel(void(STATE, COUNTERS, int64, int64, int64, float64))
def play(
    state: np.ndarray,
    counters: np.ndarray,
    address: int,
    frames: int,
    captured_before: int,
    now: float,
) -> None:
    """Fill the device's output; arguments as for `follow`."""
    c = counters[0]
    s = state[0]
    falling = words_at(s.enabled, 1)[0] == 0
    c.callbacks += 1
    c.frames += frames
    ratio = 0.0
    if s.two_clocks == 0 or captured_before > 0:
        ratio = follow(state, counters, frames, captured_before, now)
    if s.started == 0:
        silence(address, s.output_format, s.output_channels, frames)
        return
    note_fill(state, counters)
    if s.taps == 0:
        limited = play_plain(state, counters, address, frames, falling)
    else:
        limited = play_converted(state, counters, address, frames, ratio, falling)
    c.played_position = s.position
    c.underrun_blocks += limited
    if limited == 1 and s.dry_run == 0:
        c.underrun_events += 1
    s.dry_run = limited


@kernel(void(COUNTERS, int64))
def count_flags(counters: np.ndarray, flags: int) -> None:
    """Count what PortAudio says has happened since the last call."""
    c = counters[0]
    c.input_underflows += (flags & _INPUT_UNDERFLOW) != 0
    c.input_overflows += (flags & _INPUT_OVERFLOW) != 0
    c.output_underflows += (flags & _OUTPUT_UNDERFLOW) != 0
    c.output_overflows += (flags & _OUTPUT_OVERFLOW) != 0
    c.priming += (flags & _PRIMING) != 0


@kernel(int64(float64))
def nanoseconds(seconds: float) -> Any:
    """Whole nanoseconds."""
    return int64(math.floor(seconds * 1e9))


@kernel(void(STATE, COUNTERS, int64, int64, int64, int64))
def serve(
    state: np.ndarray, counters: np.ndarray, source: int, sink: int, frames: int, flags: int
) -> None:
    """One call of the device: `source` and `sink` are its buffers, 0 where it has none."""
    # Nothing to do, and times per block would be divided by.
    if frames == 0:
        return
    s = state[0]
    c = counters[0]
    s.most_frames = max(s.most_frames, frames)
    now = 0.0
    if s.clock != 0:
        now = read_clock(s.clock)
        if is_late(state, now, frames):
            if s.output_channels > 0:
                c.late_callbacks += 1
            else:
                c.capture_late_callbacks += 1
    if flags != 0:
        count_flags(counters, flags)
    capture_header = words_at(s.capture_header, HEADER_WORDS)
    captured_before = timeline_written(capture_header)
    if s.input_channels > 0:
        capture(state, counters, source, frames)
        now_ns = nanoseconds(now)
        c.capture_time_ns = now_ns
        captured_ns = captured_before * _FRAME_NS_UP // (_FRAME_NS_DOWN * s.timeline_factor)
        c.capture_epoch_ns = now_ns - captured_ns
    if s.output_channels > 0 and sink != 0:
        play(state, counters, sink, frames, captured_before, now)
        c.playback_time_ns = nanoseconds(now)
    if s.clock != 0:
        microseconds = nanoseconds(read_clock(s.clock) - now) // 1000
        histogram = words_at(s.duration_histogram, CALLBACK_BINS)
        histogram[max(0, min(microseconds, CALLBACK_BINS - 1))] += 1


_UNSIGNED_LONG = uint64 if ctypes.sizeof(ctypes.c_ulong) == 8 else uint32
_SIGNATURE = int32(types.intp, types.intp, _UNSIGNED_LONG, types.intp, _UNSIGNED_LONG, types.intp)


def _compile(state_type: np.dtype, counters_type: np.dtype) -> Any:
    # What a function closes over is part of the key under which numba keeps its machine code: a
    # record that has changed cannot meet code that was compiled for the one before.
    def portaudio_callback(
        source: int, sink: int, frames: int, time_info: int, flags: int, user_data: int
    ) -> int:
        state = carray(pointer_to(user_data), 1, state_type)
        counters = carray(pointer_to(state[0].counters), 1, counters_type)
        serve(state, counters, source, sink, frames, flags)
        return _CONTINUE

    return c_function(portaudio_callback, _SIGNATURE)


PORTAUDIO_CALLBACK: Any = _compile(STATE_DTYPE, CALLBACK_COUNTERS)
"""numba's C function: `.address` for PortAudio, `.ctypes` for tests."""

"""What a device callback works on: one record of addresses, settings and running state.

The callback reaches it through PortAudio's user-data pointer. Everything it needs is allocated
here, before the stream opens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import from_dtype, types

from rtsr.live.callback.sample_formats import FORMATS
from rtsr.live.shared.counters import CALLBACK_COUNTERS
from rtsr.live.shared.memory import LiveMemory
from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.drift import STATE_WORDS
from rtsr_kernels.resample import SUPPORTED_RATES, history_length
from rtsr_kernels.resample_design import conversion_ratio, delay_samples, phase_table
from rtsr_kernels.variable_resample import delay_frames, design

CHUNK = 512
"""Device frames handled at a time; a longer device block is cut."""

_FIELDS: list[tuple[str, Any]] = [
    # Where things are.
    ("enabled", np.int64),
    ("clock", np.int64),
    ("counters", np.int64),
    ("duration_histogram", np.int64),
    ("capture_header", np.int64),
    ("capture_data", np.int64),
    ("playback_header", np.int64),
    ("playback_data", np.int64),
    # The timelines' frames: how many there are, per second and per frame at 48 kHz; by how many the
    # enhanced ones are late; how many a fade to the dry signal takes.
    ("timeline_frames", np.int64),
    ("timeline_rate", np.float64),
    ("timeline_factor", np.int64),
    ("lag", np.int64),
    ("look_ahead", np.int64),
    # What goes in and out.
    ("channels", np.int64),
    ("input_channels", np.int64),
    ("output_channels", np.int64),
    ("input_format", np.int64),
    ("output_format", np.int64),
    ("rate", np.float64),
    ("delay", np.int64),
    # Scratch frames.
    ("device_block", np.int64),
    ("inner_block", np.int64),
    ("wet_block", np.int64),
    # Conversion of the input to the timelines' rate; `up` equal to `down` means none.
    ("up", np.int64),
    ("down", np.int64),
    ("input_taps", np.int64),
    ("input_table", np.int64),
    ("input_history", np.int64),
    ("input_position", np.int64),
    # Conversion of the output from the timelines' rate; without taps there is none.
    ("taps", np.int64),
    ("table_rows", np.int64),
    ("table", np.int64),
    ("history", np.int64),
    ("position_fraction", np.int64),
    ("nominal_ratio", np.float64),
    # Two clocks.
    ("two_clocks", np.int64),
    ("drift", np.int64),
    ("capture_horizon", np.int64),
    ("pending_jump", np.int64),
    # Device frames left of the silence in which playing finds its place, and what it has seen.
    ("settling", np.int64),
    ("settling_error", np.float64),
    ("settling_calls", np.int64),
    # Where playing is, and how much of the enhanced signal is heard.
    ("started", np.int64),
    ("position", np.int64),
    ("gain", np.float64),
    ("presence", np.float64),
    ("dry_run", np.int64),
    # Most device frames that a call has brought or asked for.
    ("most_frames", np.int64),
    # When the last call came, and how far ahead of schedule.
    ("last_time", np.float64),
    ("last_frames", np.int64),
    ("seconds_ahead", np.float64),
]
STATE_DTYPE = np.dtype(_FIELDS, align=True)
STATE = types.Array(from_dtype(STATE_DTYPE), 1, "C")
"""numba's type of the record, as an array of one."""
COUNTERS = types.Array(from_dtype(CALLBACK_COUNTERS), 1, "C")
"""Likewise of the callback's counters."""


class CallbackState:
    """Builds the record for one stream and owns what it points to.

    Keep it alive until the stream is closed. A stream that only captures has no output channels,
    one that only plays no input channels.

    Args:
        memory: of the session.
        rate: Hz of the device.
        input_channels: of the device.
        output_channels: of the device.
        input_format: `float32`, `int24` or `int16`.
        output_format: likewise.
        delay: frames of the timelines from what is captured to where playing is.
        two_clocks: whether another device captures.
        capture_block: frames of the timelines per block of that device.
        clock: address of `double clock(void)`, seconds; 0 for none.
    """

    def __init__(
        self,
        memory: LiveMemory,
        *,
        rate: int = SAMPLE_RATE,
        input_channels: int = 0,
        output_channels: int = 0,
        input_format: str = "float32",
        output_format: str = "float32",
        delay: int = 0,
        two_clocks: bool = False,
        capture_block: int = 0,
        clock: int = 0,
    ) -> None:
        channels = memory.channels
        timeline = memory.clock
        self._timeline_rate = timeline.rate
        self._referenced: list[Any] = [memory]
        self.record = np.zeros(1, STATE_DTYPE)
        self._set("enabled", memory.callback_enabled_address)
        self._set("clock", clock)
        only_captures = output_channels == 0
        histogram = memory.capture_histogram if only_captures else memory.callback_histogram
        self._point("counters", memory.callback)
        self._point("duration_histogram", histogram)
        for name, frames in (("capture", memory.capture), ("playback", memory.playback)):
            assert frames.capacity == memory.frames
            self._point(f"{name}_header", frames.header)
            self._point(f"{name}_data", frames.data)
        self._set("timeline_frames", memory.frames)
        self._set("timeline_rate", timeline.rate)
        self._set("timeline_factor", timeline.factor)
        self._set("lag", timeline.lag)
        self._set("look_ahead", timeline.look_ahead)
        self._set("channels", channels)
        self._set("input_channels", input_channels)
        self._set("output_channels", output_channels)
        self._set("input_format", FORMATS[input_format])
        self._set("output_format", FORMATS[output_format])
        self._set("rate", rate)
        self._set("delay", delay)
        self._allocate("device_block", CHUNK, channels)
        # What a chunk can be worth: at the lowest rate, and the fastest drift correction.
        inner = CHUNK * timeline.rate // min(SUPPORTED_RATES) * 1001 // 1000 + 8
        self._allocate("inner_block", inner, channels)
        self._allocate("wet_block", inner, channels)
        self.input_delay = self._convert_input(rate, channels) if input_channels else 0
        self.output_delay = 0.0
        if output_channels and (two_clocks or rate != timeline.rate):
            self.output_delay = self._convert_output(rate, channels)
        self._set("two_clocks", int(two_clocks))
        # Beyond the next block and some scheduling the capturing device has paused, and counting
        # on would lead the playing position astray.
        self._set("capture_horizon", 2 * capture_block + timeline.rate // 50)
        self._set("gain", 1.0)
        # A stream that is opened again joins in the middle of the sound, and one that follows
        # another clock has to settle first.
        self._set("presence", 0.0 if memory.capture.written or two_clocks else 1.0)

    @property
    def address(self) -> int:
        """PortAudio's user data."""
        return self.record.ctypes.data

    @property
    def most_frames(self) -> int:
        """Most device frames of a call so far."""
        return int(self.record["most_frames"][0])

    def _set(self, field: str, value: float) -> None:
        self.record[field][0] = value

    def _point(self, field: str, array: np.ndarray) -> None:
        self._referenced.append(array)
        self._set(field, array.ctypes.data)

    def _allocate(self, field: str, frames: int, channels: int) -> None:
        self._point(field, np.zeros((frames, channels), np.float32))

    def _convert_input(self, rate: int, channels: int) -> int:
        """Return the delay of the conversion to the timelines' rate in their frames."""
        up, down = conversion_ratio(rate, self._timeline_rate)
        self._set("up", up)
        self._set("down", down)
        if up == down:
            return 0
        table = phase_table(rate, self._timeline_rate)
        self._point("input_table", table)
        self._set("input_taps", table.shape[1])
        history = np.zeros((channels, history_length(table.shape[1])), np.float32)
        self._point("input_history", history)
        self._set("input_position", down - 1)
        return delay_samples(rate, self._timeline_rate)

    def _convert_output(self, rate: int, channels: int) -> float:
        """Return the delay of the conversion from the timelines' rate in their frames."""
        table = design(self._timeline_rate, rate)
        self._point("table", table)
        self._set("table_rows", table.shape[0])
        self._set("taps", table.shape[1])
        self._allocate("history", table.shape[1], channels)
        self._point("position_fraction", np.zeros(1))
        self._point("drift", np.zeros(STATE_WORDS))
        self._set("nominal_ratio", self._timeline_rate / rate)
        return delay_frames(table)

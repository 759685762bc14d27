"""How long sound takes from one device through the engine to the other, in parts.

The playing position follows the capturing one at a fixed distance, `delay`, which is chosen so that
an enhanced frame is there before it is due:

    delay      = block + hop + allowance + look_ahead                       one device
    delay     += scheduling                                                 two devices
    ear to ear = device input + capture_resampler + delay + overlap + octaves + playback_resampler
                 + device output

The block of the capturing device is in its input latency; frames are counted from its beginning.
All in frames of the timelines but the two device parts, which PortAudio states in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from rtsr.live.shared.timing import TimelineClock

DEFAULT_ALLOWANCE_MS = 5.0
_SCHEDULING_MS = 2.0
"""Two devices' callbacks may be off by this much against each other."""


@dataclass(frozen=True)
class StreamLatency:
    """Latency of one open stream, or pair of streams, in frames of the timelines.

    Attributes:
        block: frames the playing device takes at a time.
        clock: of the timelines, which says what hop, look-ahead, overlap and octaves take.
        allowance: time that a step may take.
        scheduling: what two devices' callbacks may be off against each other, and what a sound
            server gathers before it calls.
        capture_resampler: conversion of the input to the timelines' rate.
        playback_resampler: conversion from it, or between two clocks.
        device_input_s: of the capturing device, as PortAudio states it.
        device_output_s: of the playing device.
    """

    block: int
    clock: TimelineClock = field(default_factory=TimelineClock)
    allowance: int = 0
    scheduling: int = 0
    capture_resampler: int = 0
    playback_resampler: float = 0.0
    device_input_s: float = 0.0
    device_output_s: float = 0.0

    @classmethod
    def one_device(
        cls, block: int, rate: int, allowance_ms: float, clock: TimelineClock | None = None
    ) -> StreamLatency:
        """For a duplex stream with blocks of up to `block` frames at `rate` Hz.

        `clock` is that of the timelines, at 48 kHz if `None`.
        """
        clock = clock or TimelineClock()
        return cls(
            block=_inner_frames(block, rate, clock.rate),
            clock=clock,
            allowance=_frames(allowance_ms, clock),
        )

    @classmethod
    def two_devices(
        cls,
        block: int,
        rate: int,
        allowance_ms: float,
        bursts_ms: float = 0.0,
        clock: TimelineClock | None = None,
    ) -> StreamLatency:
        """For two streams with clocks of their own; `block` and `rate` are the playing one's.

        `bursts_ms` is how much sound comes, or is asked for, in several blocks at once; `clock` as
        for `one_device`.
        """
        alone = cls.one_device(block, rate, allowance_ms, clock)
        return replace(alone, scheduling=_frames(_SCHEDULING_MS + bursts_ms, alone.clock))

    @property
    def hop(self) -> int:
        """Frames that must have come before a step can start."""
        return self.clock.hop

    @property
    def look_ahead(self) -> int:
        """Frames kept in hand so that a fade to the dry signal is always possible."""
        return self.clock.look_ahead

    @property
    def delay(self) -> int:
        """Distance from the capturing to the playing position."""
        waits = self.block + self.hop + self.allowance + self.look_ahead
        return waits + self.scheduling

    @property
    def engine_frames(self) -> float:
        """Everything between the devices."""
        return self.capture_resampler + self.delay + self.clock.lag + self.playback_resampler

    @property
    def engine_ms(self) -> float:
        """Everything between the devices."""
        return 1000.0 * self.engine_frames / self.clock.rate

    @property
    def total_ms(self) -> float:
        """From the capturing device's converter to the playing device's, as far as they tell."""
        return self.engine_ms + 1000.0 * (self.device_input_s + self.device_output_s)

    @property
    def total_frames(self) -> float:
        """The same in frames."""
        return self.total_ms * self.clock.rate / 1000.0

    @property
    def parts_ms(self) -> dict[str, float]:
        """Every part in milliseconds, in the order in which a sample meets them."""
        frames = {
            "capture_resampler": self.capture_resampler,
            "hop": self.hop,
            "allowance": self.allowance,
            "overlap": self.clock.overlap,
            "octaves": self.clock.octaves,
            "look_ahead": self.look_ahead,
            "block": self.block,
            "scheduling": self.scheduling,
            "playback_resampler": self.playback_resampler,
        }
        inner = {name: 1000.0 * count / self.clock.rate for name, count in frames.items()}
        return {
            "device_input": 1000.0 * self.device_input_s,
            **inner,
            "device_output": 1000.0 * self.device_output_s,
        }


def _inner_frames(block: int, rate: int, inner_rate: int) -> int:
    if rate == inner_rate:
        return block
    # The conversion asks for whole frames at either end of a block.
    return math.ceil(block * inner_rate / rate) + 2


def _frames(milliseconds: float, clock: TimelineClock) -> int:
    return round(milliseconds * clock.rate / 1000)

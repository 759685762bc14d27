"""How long sound takes from one device through the engine to the other, in parts.

The playing position follows the capturing one at a fixed distance, `delay`, which is chosen so that
an enhanced frame is there before it is due:

    delay      = block + hop + allowance + look_ahead                       one device
    delay     += scheduling                                                 two devices
    ear to ear = device input + capture_resampler + delay + overlap + playback_resampler
                 + device output

The block of the capturing device is in its input latency; frames are counted from its beginning.
All in 48 kHz frames but the two device parts, which PortAudio states in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rtsr.latency import ENGINE_RATE
from rtsr.live.callback.state import LOOK_AHEAD
from rtsr.live.shared.memory import OVERLAP

HOP = 480
DEFAULT_ALLOWANCE_MS = 5.0
_SCHEDULING = ENGINE_RATE // 500
"""Two devices' callbacks may be off by this much against each other: 2 ms."""


@dataclass(frozen=True)
class StreamLatency:
    """Latency of one open stream, or pair of streams.

    Attributes:
        capture_resampler: conversion of the input to 48 kHz.
        block: frames the playing device takes at a time.
        hop: frames that must have come before a step can start.
        allowance: time that a step may take.
        look_ahead: frames kept in hand so that a fade to the dry signal is always possible.
        scheduling: what two devices' callbacks may be off against each other, and what a sound
            server gathers before it calls.
        overlap: frames of the newest synthesis frame that wait for the next one.
        playback_resampler: conversion from 48 kHz, or between two clocks.
        device_input_s: of the capturing device, as PortAudio states it.
        device_output_s: of the playing device.
    """

    block: int
    allowance: int = round(DEFAULT_ALLOWANCE_MS * ENGINE_RATE / 1000)
    scheduling: int = 0
    capture_resampler: int = 0
    playback_resampler: float = 0.0
    device_input_s: float = 0.0
    device_output_s: float = 0.0
    hop: int = HOP
    look_ahead: int = LOOK_AHEAD
    overlap: int = OVERLAP

    @classmethod
    def one_device(cls, block: int, rate: int, allowance_ms: float) -> StreamLatency:
        """For a duplex stream with blocks of up to `block` frames at `rate` Hz."""
        return cls(block=_inner_frames(block, rate), allowance=_allowance(allowance_ms))

    @classmethod
    def two_devices(
        cls,
        block: int,
        rate: int,
        allowance_ms: float,
        bursts_ms: float = 0.0,
    ) -> StreamLatency:
        """For two streams with clocks of their own; `block` and `rate` are the playing one's.

        `bursts_ms` is how much sound comes, or is asked for, in several blocks at once.
        """
        return cls(
            block=_inner_frames(block, rate),
            allowance=_allowance(allowance_ms),
            scheduling=_SCHEDULING + round(bursts_ms * ENGINE_RATE / 1000),
        )

    @property
    def delay(self) -> int:
        """Distance from the capturing to the playing position."""
        waits = self.block + self.hop + self.allowance + self.look_ahead
        return waits + self.scheduling

    @property
    def engine_frames(self) -> float:
        """Everything between the devices, at 48 kHz."""
        return self.capture_resampler + self.delay + self.overlap + self.playback_resampler

    @property
    def engine_ms(self) -> float:
        """Everything between the devices."""
        return 1000.0 * self.engine_frames / ENGINE_RATE

    @property
    def total_ms(self) -> float:
        """From the capturing device's converter to the playing device's, as far as they tell."""
        return self.engine_ms + 1000.0 * (self.device_input_s + self.device_output_s)

    @property
    def parts_ms(self) -> dict[str, float]:
        """Every part in milliseconds, in the order in which a sample meets them."""
        frames = {
            "capture_resampler": self.capture_resampler,
            "hop": self.hop,
            "allowance": self.allowance,
            "overlap": self.overlap,
            "look_ahead": self.look_ahead,
            "block": self.block,
            "scheduling": self.scheduling,
            "playback_resampler": self.playback_resampler,
        }
        inner = {name: 1000.0 * count / ENGINE_RATE for name, count in frames.items()}
        return {
            "device_input": 1000.0 * self.device_input_s,
            **inner,
            "device_output": 1000.0 * self.device_output_s,
        }


def _inner_frames(block: int, rate: int) -> int:
    if rate == ENGINE_RATE:
        return block
    # The conversion asks for whole frames at either end of a block.
    return math.ceil(block * ENGINE_RATE / rate) + 2


def _allowance(milliseconds: float) -> int:
    return round(milliseconds * ENGINE_RATE / 1000)

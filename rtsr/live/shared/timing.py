"""The clock of a live session's timelines: how many frames everything is on it."""

from __future__ import annotations

from dataclasses import dataclass

from rtsr.timing import HOP, OVERLAP, SAMPLE_RATE
from rtsr_kernels.resample_design import delay_samples

#: Rates in Hz that timelines may have: the engine's own, and those of one and two octaves beyond.
TIMELINE_RATES = (SAMPLE_RATE, 2 * SAMPLE_RATE, 4 * SAMPLE_RATE)
LOOK_AHEAD = 64
"""Enhanced frames at 48 kHz kept in hand: the fade to the dry signal happens within them."""


def timeline_rate(output_rate: int) -> int:
    """Return the lowest timeline rate in Hz that holds all that a device of a rate can play."""
    return next((rate for rate in TIMELINE_RATES if rate >= output_rate), TIMELINE_RATES[-1])


@dataclass(frozen=True)
class TimelineClock:
    """Lengths in frames of both timelines at one rate.

    Attributes:
        rate: Hz, one of :data:`TIMELINE_RATES`.
    """

    rate: int = SAMPLE_RATE

    @property
    def factor(self) -> int:
        """Frames per frame at 48 kHz: 1, 2 or 4."""
        return self.rate // SAMPLE_RATE

    @property
    def hop(self) -> int:
        """One step of the worker, 10 ms."""
        return self.factor * HOP

    @property
    def look_ahead(self) -> int:
        """What is kept in hand for the fade to the dry signal."""
        return self.factor * LOOK_AHEAD

    @property
    def overlap(self) -> int:
        """By how much the high band up to 24 kHz is later than its input, beside the hop."""
        return self.factor * OVERLAP

    @property
    def before_octaves(self) -> int:
        """Conversion to the engine's 48 kHz, that engine, and conversion back; or 0."""
        if self.factor == 1:
            return 0
        down = self.factor * delay_samples(self.rate, SAMPLE_RATE)
        return down + self.overlap + delay_samples(SAMPLE_RATE, self.rate)

    @property
    def octaves(self) -> int:
        """What octaves beyond 48 kHz add: both conversions, and an overlap on their clock."""
        return 0 if self.factor == 1 else self.before_octaves - self.overlap + OVERLAP

    @property
    def lag(self) -> int:
        """Frames by which the playback timeline is behind the capture timeline."""
        return self.overlap + self.octaves

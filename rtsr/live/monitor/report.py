"""What a live session says about itself: the snapshot for a screen, histograms as percentiles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.live.monitor.colour_state import ColourState
from rtsr.live.shared.events import RESTART
from rtsr.live.worker.governor import Cause
from rtsr.timing import SAMPLE_RATE

# One bin of the histograms in shared memory.
STEP_BIN_MS = 0.01
CALLBACK_BIN_US = 1.0
SPECTRUM_BANDS = 64
#: The state of a session whose device is away.
WAITING = "waiting for the device"


def cause_name(number: int) -> str:
    """Return the cause of a change of fallback level, in words."""
    return "restart" if number == RESTART else str(Cause(number))


@dataclass(frozen=True)
class FallbackChange:
    """One move of the governor.

    Attributes:
        time_s: seconds since the session started.
        from_level: the level that was left.
        to_level: the level that was taken.
        cause: why, as the governor names it.
    """

    time_s: float
    from_level: str
    to_level: str
    cause: str

    def as_dict(self) -> dict[str, Any]:
        """Return the keys of the report."""
        return {
            "time_s": self.time_s,
            "from": self.from_level,
            "to": self.to_level,
            "cause": self.cause,
        }


def _no_bands() -> NDArray[np.float32]:
    return np.full(SPECTRUM_BANDS, -120.0, np.float32)


@dataclass(frozen=True)
class LiveSnapshot:
    """A live session at one moment; plain values, nothing in it changes later.

    Attributes:
        seconds: since the session started.
        state: ``playing``, ``waiting for the device`` or ``restarting the worker``.
        input_name: the device that is recorded; ``output_name`` the one that is played to.
        rate: Hz of the input device, ``output_rate`` of the output device; ``block`` their block in
            frames, ``channels`` the engine's.
        in_db: peak of the newest input per channel in dBFS; ``out_db`` of the output.
        in_rms_db: root mean square of the same stretch; ``out_rms_db`` of the output.
        in_spectrum: level in dBFS of 64 bands, equally wide in log frequency from 60 Hz to
            ``top_hz``; ``out_spectrum`` of the output.
        top_hz: half of the rate that is worked at, 24 kHz or one or two octaves more.
        latency_ms: parts of the latency in the order in which a sample meets them.
        latency_total_ms: their sum.
        step_histogram: steps per bin of 0.01 ms since the start; the last bin holds the longer.
        step_p50_ms: median of a step; ``step_p99_ms``, ``step_p999_ms`` (99.9 %) and
            ``step_max_ms`` likewise.
        fallback_level: what is heard; ``fallback_levels`` all of them, best first.
        fallback_level_changes: the newest moves of the governor, oldest first.
        underruns: callbacks that wanted enhanced frames which were not there.
        overruns: hops that were skipped, because the worker was too far behind.
        late_callbacks: callbacks that came more than two block periods after the one before.
        xruns: under- and overflows which the device reported.
        ahead_ms: enhanced sound that lies ready before the playback position.
        cutoff_hz: where the input's content ends.
        controls: name and value of every control; ``limits`` its smallest and largest value.
        cpu_percent: of one core, the whole engine; ``None`` where it is not known.
        priority: what the system granted the worker, in words.
        colour: what is known of the input's colour; ``None`` where none was given.
    """

    seconds: float
    state: str = "playing"
    input_name: str = ""
    output_name: str = ""
    rate: int = SAMPLE_RATE
    output_rate: int = 48000
    block: int = 128
    channels: int = 1
    in_db: tuple[float, ...] = (-120.0,)
    out_db: tuple[float, ...] = (-120.0,)
    in_rms_db: tuple[float, ...] = (-120.0,)
    out_rms_db: tuple[float, ...] = (-120.0,)
    in_spectrum: NDArray[np.float32] = field(default_factory=_no_bands)
    out_spectrum: NDArray[np.float32] = field(default_factory=_no_bands)
    top_hz: float = 24000.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    latency_total_ms: float = 0.0
    step_histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4096, np.int64))
    step_p50_ms: float = 0.0
    step_p99_ms: float = 0.0
    step_p999_ms: float = 0.0
    step_max_ms: float = 0.0
    fallback_level: str = "dry"
    fallback_levels: tuple[str, ...] = ("dry",)
    fallback_level_changes: tuple[FallbackChange, ...] = ()
    underruns: int = 0
    overruns: int = 0
    late_callbacks: int = 0
    xruns: int = 0
    worker_restarts: int = 0
    device_restarts: int = 0
    ahead_ms: float = 0.0
    cutoff_hz: float = 24000.0
    controls: dict[str, float] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    cpu_percent: float | None = None
    priority: str = ""
    colour: ColourState | None = None

    @property
    def last_change(self) -> FallbackChange | None:
        """The governor's newest move, if there was one."""
        return self.fallback_level_changes[-1] if self.fallback_level_changes else None


def percentile(histogram: NDArray[np.int64], percent: float, bin_width: float) -> float:
    """Upper edge of the bin below which ``percent`` of the counts lie; 0 without counts.

    The upper edge, so that a figure is never better than what was measured.
    """
    total = int(histogram.sum())
    if not total:
        return 0.0
    wanted = max(1, int(np.ceil(total * percent / 100.0)))
    return float((np.searchsorted(np.cumsum(histogram), wanted) + 1) * bin_width)


def percentiles(histogram: NDArray[np.int64], bin_width: float, longest: float) -> dict[str, float]:
    """``p50``, ``p95``, ``p99``, ``p99_9`` and ``max`` of a histogram.

    Args:
        histogram: counts `(bins,)`.
        bin_width: of one bin, in any unit.
        longest: the exact maximum, in the unit of ``bin_width``; no percentile exceeds it.
    """
    figures = {
        name: round(min(percentile(histogram, percent, bin_width), longest), 4)
        for name, percent in (("p50", 50.0), ("p95", 95.0), ("p99", 99.0), ("p99_9", 99.9))
    }
    return {**figures, "max": round(longest, 4)}

"""From the times of steps to the figures of a case: definitions, once, for table, file and report.

All times are in milliseconds. The *period* is the sound that a step takes in: 10 ms per hop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rtsr_bench.speed.steady import Milliseconds

# Where the distribution is kept, in per cent: dense where stalls hide.
LEVELS = (
    *(0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0),
    *(95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 100.0),
)
PERCENTILES = {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0, "p99_9_ms": 99.9}
# With fewer steps than this, p99.9 is interpolated next to the slowest step of all.
STEPS_FOR_P99_9 = 1000


def step_figures(times: Milliseconds, period_ms: float) -> dict[str, float | int]:
    """Return what the times of consecutive steps say.

    Args:
        times: ``(steps,)`` ms, in the order in which the steps were taken.
        period_ms: of a step.

    Returns:
        ``p50_ms``, ``p95_ms``, ``p99_ms``, ``p99_9_ms`` (linear interpolation between ranks),
        ``max_ms``, ``mean_ms``; ``jitter_ms``: mean absolute difference between a step and the
        one before it, the interarrival jitter of RFC 3550 section 6.4.1 without its smoothing;
        ``missed_deadlines``: steps longer than the period; ``real_time_factor``: period over
        mean, above 1 keeps up; ``steps``.
    """
    mean = float(times.mean())
    figures: dict[str, float | int] = {
        name: float(np.percentile(times, level)) for name, level in PERCENTILES.items()
    }
    figures["max_ms"] = float(times.max())
    figures["mean_ms"] = mean
    figures["jitter_ms"] = float(np.abs(np.diff(times)).mean()) if len(times) > 1 else 0.0
    figures["missed_deadlines"] = int(np.count_nonzero(times > period_ms))
    figures["real_time_factor"] = period_ms / mean
    figures["steps"] = len(times)
    return figures


def pooled_figures(runs: Sequence[Milliseconds], period_ms: float) -> dict[str, float | int]:
    """:func:`step_figures` over the steps of all repetitions.

    Jitter is the mean over the repetitions: the last step of one and the first step of the next
    are no neighbours.
    """
    figures = step_figures(np.concatenate(runs), period_ms)
    jitters = [step_figures(times, period_ms)["jitter_ms"] for times in runs]
    figures["jitter_ms"] = float(np.mean(jitters))
    return figures


def quantiles(times: Milliseconds) -> list[float]:
    """Return the distribution at :data:`LEVELS`."""
    return [round(float(value), 6) for value in np.percentile(times, LEVELS)]


def median_of(values: Iterable[float | None]) -> float | None:
    """Median of what is known; ``None`` if nothing is."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def missed_steps(figures: Mapping[str, Any]) -> int:
    """Return the steps that came too late: by the clock where they were paced."""
    late = figures["missed_by_the_clock"]
    return int(figures["missed_deadlines"] if late is None else late)


def keeps_up(figures: Mapping[str, Any], period_ms: float) -> bool:
    """Whether 999 of 1000 steps take less than the period, and if paced end before their next.

    A step that waited for a slow one before it may itself be quick and yet too late.
    """
    late = figures["missed_by_the_clock"] or 0
    return bool(figures["p99_9_ms"] < period_ms and 1000 * late <= figures["steps"])

"""Reads the counters of a session's memory and turns them into figures for people."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsr.live.monitor.report import CALLBACK_BIN_US, STEP_BIN_MS, percentiles
from rtsr.live.shared.memory import LiveMemory

_XRUNS = (
    "input_underflows",
    "input_overflows",
    "output_underflows",
    "output_overflows",
)


def xruns(memory: LiveMemory) -> int:
    """Under- and overflows that the devices reported."""
    return sum(int(memory.callback[name]) for name in _XRUNS)


def late_callbacks(memory: LiveMemory) -> int:
    """Callbacks that came two block periods or more after they could have come."""
    return int(memory.callback["late_callbacks"]) + int(memory.callback["capture_late_callbacks"])


def step_ms(memory: LiveMemory) -> dict[str, float]:
    """``first``, ``p50`` ... ``p99_9`` and ``max`` of the worker's steps."""
    first = int(memory.worker["first_step_ns"]) * 1e-6
    longest = int(memory.worker["max_step_ns"]) * 1e-6
    figures = percentiles(memory.step_histogram, STEP_BIN_MS, longest)
    return {"first": round(first, 4), **figures}


def callback_us(memory: LiveMemory) -> dict[str, float]:
    """``p50`` ... ``p99_9`` and ``max`` of the playing callback's own time in microseconds.

    The maximum is that of the histogram, so 2048 stands for anything longer.
    """
    histogram = memory.callback_histogram
    used = np.flatnonzero(histogram)
    longest = float(used[-1] + 1) * CALLBACK_BIN_US if len(used) else 0.0
    return percentiles(histogram, CALLBACK_BIN_US, longest)


def counters(memory: LiveMemory) -> dict[str, Any]:
    """Return the plain counters of the report."""
    callback, worker = memory.callback, memory.worker
    return {
        "callbacks": int(callback["callbacks"]),
        "frames": int(callback["frames"]),
        "late_callbacks": late_callbacks(memory),
        "underruns": int(callback["underrun_blocks"]),
        "underrun_events": int(callback["underrun_events"]),
        "underrun_frames": int(callback["underrun_frames"]),
        "overruns": int(worker["overruns"]),
        "xruns": xruns(memory),
        "input_underflows": int(callback["input_underflows"]),
        "input_overflows": int(callback["input_overflows"]),
        "output_underflows": int(callback["output_underflows"]),
        "output_overflows": int(callback["output_overflows"]),
        "enhanced_frames": int(callback["enhanced_frames"]),
        "dry_frames": int(callback["dry_frames"]),
        "silent_frames": int(callback["silent_frames"]),
        "clipped_samples": int(callback["clipped_samples"]),
        "repaired_samples": int(callback["repaired_samples"]),
        "fill_frames": {
            "min": int(callback["fill_min"]),
            "max": int(callback["fill_max"]),
        },
        "steps": int(worker["steps"]),
        "late_steps": int(worker["late_steps"]),
        "degraded_steps": int(worker["degraded"]),
        "drift_ppm": int(callback["drift_ppb"]) / 1000.0,
        "resyncs": int(callback["resyncs"]),
        "first_signal_frame": int(callback["first_signal_frame"]),
        "cutoff_hz": int(worker["cutoff_hz"]),
    }


def ahead_ms(memory: LiveMemory) -> float:
    """Enhanced sound that lay ready when the newest callback came."""
    return 1000.0 * int(memory.callback["fill"]) / memory.clock.rate

"""Reads the counters of a session's memory and turns them into figures for people."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsr.live.monitor.report import CALLBACK_BIN_US, STEP_BIN_MS, percentiles
from rtsr.live.shared.memory import CallbackWord, LiveMemory, WorkerWord
from rtsr.timing import SAMPLE_RATE

_XRUN_WORDS = (
    CallbackWord.INPUT_UNDERFLOWS,
    CallbackWord.INPUT_OVERFLOWS,
    CallbackWord.OUTPUT_UNDERFLOWS,
    CallbackWord.OUTPUT_OVERFLOWS,
)


def callback_word(memory: LiveMemory, word: CallbackWord) -> int:
    """One of the callback's words."""
    return int(memory.callback[word])


def worker_word(memory: LiveMemory, word: WorkerWord) -> int:
    """One of the worker's words."""
    return int(memory.worker[word])


def xruns(memory: LiveMemory) -> int:
    """Under- and overflows that the devices reported."""
    return sum(callback_word(memory, word) for word in _XRUN_WORDS)


def late_callbacks(memory: LiveMemory) -> int:
    """Callbacks that came two block periods or more after they could have come."""
    return callback_word(memory, CallbackWord.LATE_CALLBACKS) + callback_word(
        memory, CallbackWord.CAPTURE_LATE_CALLBACKS
    )


def step_ms(memory: LiveMemory) -> dict[str, float]:
    """``first``, ``p50`` ... ``p99_9`` and ``max`` of the worker's steps."""
    first = worker_word(memory, WorkerWord.FIRST_STEP_NS) * 1e-6
    longest = worker_word(memory, WorkerWord.MAX_STEP_NS) * 1e-6
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
    """The plain counters of the report."""

    def callback(word: CallbackWord) -> int:
        return callback_word(memory, word)

    def worker(word: WorkerWord) -> int:
        return worker_word(memory, word)

    return {
        "callbacks": callback(CallbackWord.CALLBACKS),
        "frames": callback(CallbackWord.FRAMES),
        "late_callbacks": late_callbacks(memory),
        "underruns": callback(CallbackWord.UNDERRUN_BLOCKS),
        "underrun_events": callback(CallbackWord.UNDERRUN_EVENTS),
        "underrun_frames": callback(CallbackWord.UNDERRUN_FRAMES),
        "overruns": worker(WorkerWord.OVERRUNS),
        "xruns": xruns(memory),
        "input_underflows": callback(CallbackWord.INPUT_UNDERFLOWS),
        "input_overflows": callback(CallbackWord.INPUT_OVERFLOWS),
        "output_underflows": callback(CallbackWord.OUTPUT_UNDERFLOWS),
        "output_overflows": callback(CallbackWord.OUTPUT_OVERFLOWS),
        "enhanced_frames": callback(CallbackWord.ENHANCED_FRAMES),
        "dry_frames": callback(CallbackWord.DRY_FRAMES),
        "silent_frames": callback(CallbackWord.SILENT_FRAMES),
        "clipped_samples": callback(CallbackWord.CLIPPED_SAMPLES),
        "repaired_samples": callback(CallbackWord.REPAIRED_SAMPLES),
        "fill_frames": {
            "min": callback(CallbackWord.FILL_MIN),
            "max": callback(CallbackWord.FILL_MAX),
        },
        "steps": worker(WorkerWord.STEPS),
        "late_steps": worker(WorkerWord.LATE_STEPS),
        "degraded_steps": worker(WorkerWord.DEGRADED),
        "drift_ppm": callback(CallbackWord.DRIFT_PPB) / 1000.0,
        "resyncs": callback(CallbackWord.RESYNCS),
        "first_signal_frame": callback(CallbackWord.FIRST_SIGNAL_FRAME),
        "cutoff_hz": worker(WorkerWord.CUTOFF_HZ),
    }


def ahead_ms(memory: LiveMemory) -> float:
    """Enhanced sound that lay ready when the newest callback came."""
    return 1000.0 * callback_word(memory, CallbackWord.FILL) / SAMPLE_RATE

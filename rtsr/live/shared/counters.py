"""The counters of the audio callback and of the worker: one record each in shared memory.

Every field is an aligned int64 with exactly one writer, which all processors that rtsr runs on
store whole. Fields of different writers lie at least a page of cache lines apart.
"""

from __future__ import annotations

import numpy as np

# Compiled code takes its offsets from here as well, see `rtsr.live.callback.state`.
_GROUP_BYTES = 256


def _record(*groups: tuple[str, ...]) -> np.dtype:
    """Return a record of int64 fields, each group of which begins on cache lines of its own."""
    fields = {
        name: _GROUP_BYTES * group + 8 * place
        for group, names in enumerate(groups)
        for place, name in enumerate(names)
    }
    assert all(8 * len(names) <= _GROUP_BYTES for names in groups)
    return np.dtype(
        {
            "names": list(fields),
            "formats": [np.int64] * len(fields),
            "offsets": list(fields.values()),
            "itemsize": _GROUP_BYTES * len(groups),
        },
        align=True,
    )


CALLBACK_COUNTERS = _record(
    # The side that captures. On one device the same callback writes both groups.
    (
        # Calls that brought input, and the frames they brought at the device's own rate.
        "capture_callbacks",
        "capture_frames",
        # As `late_callbacks`, where the input device has a thread of its own.
        "capture_late_callbacks",
        # Calls that PortAudio flagged: input was missing and is silence, or was thrown away.
        "input_underflows",
        "input_overflows",
        # Capture frame that was the first not to be zero; -1 before there is one.
        "first_signal_frame",
        # Input samples that were no usable numbers and were replaced by zero.
        "repaired_samples",
        # Monotonic clock at the newest call that brought input.
        "capture_time_ns",
        # When a call would have begun with frame 0, judged by the newest call.
        "capture_epoch_ns",
    ),
    # The side that plays.
    (
        # Calls that asked for output, and the frames given to the device at its own rate.
        "callbacks",
        "frames",
        # Calls that came more than two block periods after the one before.
        "late_callbacks",
        # Calls that wanted enhanced frames which were not there, and played dry ones instead.
        "underrun_blocks",
        # Frames of the timelines that were missing when they were due.
        "underrun_frames",
        # Times the sound went from enhanced to dry for want of frames.
        "underrun_events",
        # Calls that PortAudio flagged: the device had run out before, an audible gap; or output
        # was thrown away; or the call only filled the device's buffers before it started.
        "output_underflows",
        "output_overflows",
        "priming",
        # Enhanced frames that lay ready when a call came: fewest and most since the first (-1
        # before that), and at the newest call.
        "fill_min",
        "fill_max",
        "fill",
        # Playback frame that the next call starts with.
        "played_position",
        # Correction of the output's rate between two clocks, in parts per 10 ** 9.
        "drift_ppb",
        # Jumps of the playing position, after the capturing device paused or a clock jumped.
        "resyncs",
        # Frames of the timelines played from the worker undiluted, at least partly dry for want of
        # enhanced ones, and without even dry sound, such as at the start.
        "enhanced_frames",
        "dry_frames",
        "silent_frames",
        # Samples beyond full scale, held there; integer formats only.
        "clipped_samples",
        # Monotonic clock at the newest call that asked for output.
        "playback_time_ns",
    ),
)
"""What the audio callback counts, since the memory was made."""

WORKER_COUNTERS = _record(
    # The worker's.
    (
        # `time.monotonic_ns` of the worker's newest sign of life.
        "heartbeat_ns",
        "pid",
        # The `generation` of the newest worker that has loaded every fallback level and works.
        "ready",
        "steps",
        # Index into the fallback levels of the one that sounds.
        "fallback_level",
        # Hops finished after the callback had already needed them.
        "late_steps",
        # Hops skipped because the worker had fallen behind.
        "overruns",
        # Hops without a high band because the model's output was unusable.
        "degraded",
        "priority",
        "cutoff_hz",
        "first_step_ns",
        "max_step_ns",
        # Processor time of the worker's process, or of its thread where it has none of its own.
        "cpu_ns",
        # Hop the worker waits for or works on.
        "next_hop",
        "flushes_denormals",
        # How much of the colour is used, in thousandths.
        "colour_permille",
    ),
    # The session's.
    (
        # 1: the worker is to end.
        "stop",
        # Counts the workers started; one that finds another number than its own was replaced.
        "generation",
    ),
)
"""What the worker says about itself, and what the session tells it."""

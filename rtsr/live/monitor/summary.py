"""The last words of a session that somebody watched: how long, how late, and what went wrong."""

from __future__ import annotations

from typing import Any

_COUNTS = {
    "underrun_events": "under-run",
    "overruns": "over-run",
    "late_callbacks": "late callback",
    "xruns": "xrun",
    "worker_restarts": "worker restart",
    "device_restarts": "device restart",
}


def summary(report: dict[str, Any]) -> str:
    """Return one sentence about a report of :class:`~rtsr.live.session.LiveSession`.

    Under-runs are always named, with the sound in ms that was played dry instead; the other counts
    only where there was something to count.
    """
    minutes, seconds = divmod(round(report["seconds"]), 60)
    hours, minutes = divmod(minutes, 60)
    counts = [
        _counted(report[key], name)
        for key, name in _COUNTS.items()
        if report[key] or key == "underrun_events"
    ]
    if report["underrun_events"]:
        milliseconds = 1000.0 * report["underrun_frames"] / report["latency"]["rate"]
        counts[0] += f" ({milliseconds:.0f} ms played dry)"
    return (
        f"played {hours}:{minutes:02d}:{seconds:02d} with {report['latency']['total_ms']:.1f} ms "
        f"of latency; {', '.join(counts)}."
    )


def _counted(count: int, name: str) -> str:
    return f"{count or 'no'} {name}{'' if count == 1 else 's'}"

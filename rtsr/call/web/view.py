"""What the page shows of a call: facts that stay, and what changes ten times a second."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsr.call.band_controls import NAMES
from rtsr.call.call_stream import CallStream
from rtsr.call.dry_path import DELAY_SAMPLES
from rtsr.call.engine import CallEngine
from rtsr.call.path import MediaPath
from rtsr.call.web.peer import WebCall
from rtsr.live.controls.board import find_control
from rtsr.live.monitor.meters import HIGHEST_BAND_HZ, LOWEST_BAND_HZ
from rtsr.live.monitor.report import SPECTRUM_BANDS
from rtsr.timing import SAMPLE_RATE

__all__ = ["describe", "snapshot"]

_PACKET_MS = 20.0


def describe(call: WebCall, engine: CallEngine) -> dict[str, Any]:
    """Return what is constant during a call: controls with their ranges, bands, the model."""
    edges = np.geomspace(LOWEST_BAND_HZ, HIGHEST_BAND_HZ, SPECTRUM_BANDS + 1)
    middles = np.sqrt(edges[1:] * edges[:-1])
    assert call.line is not None
    return {
        "kind": "about",
        "model": engine.batch.model.name,
        "provider": engine.batch.provider,
        "bands_hz": [round(float(middle)) for middle in middles],
        "controls": [
            {
                "name": control.name,
                "unit": control.unit,
                "low": control.low,
                "high": control.high,
                "kind": control.kind,
                "help": control.help,
            }
            for control in map(find_control, NAMES)
        ],
    }


def snapshot(call: WebCall, engine: CallEngine) -> dict[str, Any]:
    """Return the current state of a call."""
    assert call.line is not None
    path = call.line.path
    counts = path.receiver.counts
    monitor = path.stream.monitor
    before, after = monitor.spectra_db() if monitor is not None else ([], [])
    form = path.receiver.format
    steps = engine.batch.statistics.step_ms
    expected = counts.received + counts.lost
    return {
        "kind": "now",
        "seconds": call.seconds,
        "codec_in": form.name if form else None,
        "codec_out": call.sending.name,
        "cutoff_hz": path.stream.cutoff_hz,
        "before_db": before,
        "after_db": after,
        "controls": path.stream.controls.as_dict(),
        "latency_ms": latency_parts(path),
        "jitter_ms": round(path.receiver.jitter_ms, 1),
        "lost": counts.lost,
        "lost_share": round(counts.lost / expected, 4) if expected else 0.0,
        "late": counts.late,
        "concealed_seconds": round(counts.concealed_seconds, 2),
        "fallback_seconds": round(path.stream.fallback_seconds, 2),
        "fallback": fallback(path.stream),
        "missed": path.missed,
        "step_p50_ms": round(steps.p50, 2),
        "step_p999_ms": round(steps.p99_9, 2),
        "calls": engine.calls,
        "capacity": engine.capacity,
    }


def latency_parts(path: MediaPath) -> dict[str, float]:
    """Milliseconds in the bridge, in the order in which sound meets them, and their sum."""
    processing = path.processing_ms
    parts = {
        "packet": _PACKET_MS,
        "jitter buffer": path.receiver.wait_ms,
        "resampler and window": 1000.0 * DELAY_SAMPLES / SAMPLE_RATE,
        "computing": float(np.median(list(processing.copy()))) if processing else 0.0,
        "part of a packet that waits": (
            0.0
            if path.sender is None
            else 1000.0 * path.sender.waiting / path.sender.format.sample_rate
        ),
    }
    rounded = {name: round(value, 2) for name, value in parts.items()}
    return {**rounded, "total": round(sum(rounded.values()), 2)}


def fallback(stream: CallStream) -> str | None:
    """Why the new band is missing at this moment, in words; ``None`` where it is not."""
    if stream.left_out:
        return "the machine did not keep up, so this call goes without the new band for a while"
    if stream.controls.board.get("bypass") > 0.0:
        return "bypass is on"
    return None

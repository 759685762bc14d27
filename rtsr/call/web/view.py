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
from rtsr.page.learning import Learning
from rtsr.page.view import FULL_BAND, NO_AMOUNT, about, colour_facts, rounded_parts
from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.band_limit import FULL_BAND_HZ

__all__ = ["CallSubject", "latency_parts"]


class CallSubject:
    """Shows and turns one call.

    Args:
        call: that has a line.
        engine: of the line.
        learning: binds MIDI knobs to the call's controls, if the server has a device.
    """

    names = NAMES

    def __init__(self, call: WebCall, engine: CallEngine, learning: Learning | None = None) -> None:
        self._call = call
        self._engine = engine
        self.learning = learning

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self._call.has_ended

    @property
    def _path(self) -> MediaPath:
        assert self._call.line is not None
        return self._call.line.path

    def about(self) -> dict[str, Any]:
        """Return what is constant during a call: controls with their ranges, bands, the model."""
        batch = self._engine.batch
        return about(
            f"Model {batch.model.name} on {batch.provider}.",
            self._path.stream.controls.board,
            self.names,
            learns=self.learning is not None,
            model=batch.model.name,
            provider=batch.provider,
        )

    def now(self) -> dict[str, Any]:
        """Return the current state of the call."""
        call, engine, path = self._call, self._engine, self._path
        counts = path.receiver.counts
        sender = path.sender
        monitor = path.stream.monitor
        before, after = monitor.spectra_db() if monitor is not None else ([], [])
        form = path.receiver.format
        steps = engine.batch.statistics.step_ms
        # Those that came too late have been received, and have a line of their own.
        never_came = max(0, counts.lost - counts.late)
        expected = counts.received + never_came
        return {
            "kind": "now",
            "seconds": call.seconds,
            "codec_in": form.name if form else None,
            "codec_out": call.sending.name,
            # Before the first packet there is nothing that could end anywhere.
            "cutoff_hz": path.stream.cutoff_hz if form else None,
            "before_db": before,
            "after_db": after,
            "controls": path.stream.controls.as_dict(),
            "midi": {} if self.learning is None else self.learning.bindings(),
            "latency_ms": latency_parts(path),
            "jitter_ms": round(path.receiver.jitter_ms, 1),
            "lost": never_came,
            "lost_share": round(never_came / expected, 4) if expected else 0.0,
            "late": counts.late,
            "keys": path.keys,
            "sent": 0 if sender is None else sender.sent,
            "unsent_seconds": round(sender.unsent_seconds, 2) if sender and sender.dtx else None,
            "concealed_seconds": round(counts.concealed_seconds, 2),
            "fallback_seconds": round(path.stream.fallback_seconds, 2),
            "fallback": fallback(path.stream),
            "nothing_added": nothing_added(path),
            "missed": path.missed,
            "step_p50_ms": round(steps.p50, 2),
            "step_p999_ms": round(steps.p99_9, 2),
            "colour": self._colour(),
            "calls": engine.calls,
            "capacity": engine.capacity,
        }

    def _colour(self) -> dict[str, Any] | None:
        colour, stream = self._call.colour, self._path.stream
        if colour is None:
            return None
        return colour_facts(colour.state(stream.cutoff_hz or FULL_BAND_HZ, stream.colour_share))

    def turn(self, name: str, value: float | str) -> None:
        """Turn a control of the call."""
        self._path.stream.controls.set(name, value)

    def check(self, name: str, value: float | str) -> None:
        """Raise an error if a control of the call does not take a value."""
        self._path.stream.controls.check(name, value)


def latency_parts(path: MediaPath) -> dict[str, float]:
    """Milliseconds in the bridge, in the order in which sound meets them, and their sum."""
    processing = path.processing_ms
    parts = {
        "packet": path.receiver.packet_ms,
        "jitter buffer": path.receiver.wait_ms,
        "resampler and window": 1000.0 * DELAY_SAMPLES / SAMPLE_RATE,
        "computing": float(np.median(list(processing.copy()))) if processing else 0.0,
        "part of a packet that waits": (
            0.0
            if path.sender is None
            else 1000.0 * path.sender.waiting / path.sender.format.sample_rate
        ),
    }
    return rounded_parts(parts)


def fallback(stream: CallStream) -> str | None:
    """Why the new band is missing at this moment, in words; ``None`` where it is not."""
    if stream.left_out:
        return "The sound goes out as it came for a while: the machine did not keep up."
    if stream.controls.board.get("bypass") > 0.0:
        return "The sound goes out as it came: bypass is on."
    return None


def nothing_added(path: MediaPath) -> str | None:
    """Why there is no new band at this moment, in words; ``None`` where there is one."""
    cutoff = path.stream.cutoff_hz
    if path.receiver.format is None:
        return "Nothing is added: nothing has come in yet."
    if path.stream.left_out:
        return "Nothing is added: the machine did not keep up."
    if path.stream.controls.board.get("bypass") > 0.0:
        return "Nothing is added: bypass is on."
    if path.stream.controls.board.get("wet") <= 0.0:
        return NO_AMOUNT
    return FULL_BAND if cutoff is not None and cutoff >= FULL_BAND_HZ else None

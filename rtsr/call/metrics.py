"""What a server of calls counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rtsr.errors import MissingDependencyError

if TYPE_CHECKING:
    from rtsr.call.engine import CallEngine

__all__ = ["exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(engine: CallEngine) -> bytes:
    """Return the text of ``/metrics`` (Prometheus's exposition format), as of now.

    Raises:
        MissingDependencyError: the extra ``call`` is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ModuleNotFoundError:
        raise MissingDependencyError("Counting calls for Prometheus", "call") from None
    registry = CollectorRegistry()
    registry.register(_Collector(engine))  # type: ignore[arg-type]
    return bytes(generate_latest(registry))


class _Collector:
    def __init__(self, engine: CallEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[object]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            SummaryMetricFamily,
        )

        engine = self._engine
        totals = engine.totals()
        yield GaugeMetricFamily("rtsr_calls", "Calls that are on.", engine.calls)
        yield GaugeMetricFamily("rtsr_calls_capacity", "Calls that fit.", engine.capacity)
        for name, help_text, value in (
            ("rtsr_calls_taken", "Calls that were taken.", engine.taken),
            ("rtsr_calls_refused", "Calls for which there was no room.", engine.refused),
            ("rtsr_steps", "Steps of the batch.", engine.steps),
            ("rtsr_packets_received", "RTP packets of known codecs.", totals.received),
            ("rtsr_packets_sent", "RTP packets that went out.", totals.sent),
            ("rtsr_dtx_seconds", "Silence that was not sent (Opus DTX).", totals.unsent_seconds),
            ("rtsr_packets_lost", "RTP packets that never came in time.", totals.lost),
            ("rtsr_packets_late", "RTP packets that came after their time.", totals.late),
            ("rtsr_packets_duplicate", "RTP packets that came twice.", totals.duplicates),
            ("rtsr_packets_malformed", "RTP packets that were not usable.", totals.malformed),
            ("rtsr_keys", "Keys that were pressed (RFC 4733).", totals.keys),
            ("rtsr_concealed_seconds", "Sound that was made up.", totals.concealed_seconds),
            ("rtsr_fallback_seconds", "Sound without new band.", totals.fallback_seconds),
            ("rtsr_deadlines_missed", "Deadlines that the batch missed.", totals.missed),
            (
                "rtsr_colour_learnt_seconds",
                "Wide sound that callers' colours were learnt from.",
                totals.learnt_seconds,
            ),
            (
                "rtsr_colour_skipped_seconds",
                "Wide sound that was not learnt from because too much waited.",
                totals.skipped_seconds,
            ),
            ("rtsr_calls_shed", "Times a call was left out of the batch.", totals.sheds),
            (
                "rtsr_far_packets_lost",
                "RTP packets of ours that far ends report as lost (RTCP).",
                totals.far_lost,
            ),
        ):
            yield CounterMetricFamily(name, help_text, value)
        for name, help_text, count, seconds in (
            (
                "rtsr_step_seconds",
                "Time of a step of the batch.",
                engine.steps,
                engine.step_seconds,
            ),
            (
                "rtsr_far_jitter_seconds",
                "Jitter that far ends report (RTCP).",
                totals.far_reports,
                totals.far_jitter_seconds,
            ),
            (
                "rtsr_round_trip_seconds",
                "To far ends and back, by their reports (RTCP).",
                totals.round_trips,
                totals.round_trip_seconds,
            ),
        ):
            summary = SummaryMetricFamily(name, help_text)
            summary.add_metric([], count, seconds)
            yield summary

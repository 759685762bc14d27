"""From rows of results to what the report's JSON holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rtsr_bench.quality import conditions
from rtsr_bench.quality.jobs import Values
from rtsr_bench.quality.scores import gather_scores

CONDITION_METRICS = (
    *("visqol", "lsd", "lsd_near", "mel_hf", "hf_bias_db", "hf_envelope_db", "lf_sisdr"),
)


def known(names: Sequence[str], metrics: Sequence[str]) -> tuple[str, ...]:
    """Those names that are among the metrics: ViSQOL may not be installed."""
    return tuple(name for name in names if name in metrics)


def nest(rows: Iterable[tuple[Sequence[str], Values]]) -> dict[str, Any]:
    """Put values into dictionaries by the words of their places, the first word outermost."""
    nested: dict[str, Any] = {}
    for place, values in rows:
        inner = nested
        for word in place[:-1]:
            inner = inner.setdefault(word, {})
        inner[place[-1]] = values
    return nested


def cutoffs_part(found: Mapping[str, Mapping[str, Mapping[str, Values]]]) -> dict[str, Any]:
    """Return scores as JSON by cutoff and system, of values by cutoff in Hz, system and clip."""
    return {
        cutoff: {
            system: asdict(gather_scores(float(cutoff), clips))
            for system, clips in by_system.items()
        }
        for cutoff, by_system in found.items()
    }


def conditions_part(
    found: Mapping[str, Mapping[str, Mapping[str, Values]]], metrics: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Return the part on conditions: scores as JSON by system and condition; empty without any.

    Args:
        found: values by system, condition and clip.
        metrics: all that were computed.
        seconds: of each clip.
    """
    if not found:
        return {}
    return {
        "cutoff_hz": conditions.CUTOFF_HZ,
        "seconds": seconds,
        "metrics": known(CONDITION_METRICS, metrics),
        "titles": {one.key: one.title for one in conditions.CONDITIONS},
        "scores": {
            system: {
                key: asdict(gather_scores(conditions.CUTOFF_HZ, clips))
                for key, clips in by_condition.items()
            }
            for system, by_condition in found.items()
        },
    }


def plain(value: Any) -> Any:
    """Return what JSON can hold: NaN becomes null, and no figure can pass for infinity."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "infinite"
    return value

"""From rows of results to what the report's JSON holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rtsr_bench.quality import conditions
from rtsr_bench.quality.jobs import Values
from rtsr_bench.quality.scores import gather_scores

CONDITION_METRICS = (
    *("visqol", "lsd", "lsd_near", "mel_hf", "hf_bias_db", "hf_envelope_db", "lf_sisdr"),
)

#: System, cutoff in Hz or condition, clip, and what was measured.
ClipRow = tuple[str, str, str, Values]
#: System, cutoff in Hz, and what was measured.
ProbeRow = tuple[str, str, Values]


def known(names: Sequence[str], metrics: Sequence[str]) -> tuple[str, ...]:
    """Those names that are among the metrics: ViSQOL may not be installed."""
    return tuple(name for name in names if name in metrics)


def nest_scores(rows: Sequence[ClipRow]) -> dict[str, dict[str, Any]]:
    """Scores as JSON by cutoff and system."""
    nested: dict[str, dict[str, dict[str, Values]]] = {}
    for system, place, clip, values in rows:
        nested.setdefault(place, {}).setdefault(system, {})[clip] = values
    return {
        place: {
            system: gather_scores(float(place), clips).as_json()
            for system, clips in by_system.items()
        }
        for place, by_system in nested.items()
    }


def nest_probes(rows: Sequence[ProbeRow]) -> dict[str, dict[str, Values]]:
    """Probes by cutoff and system."""
    nested: dict[str, dict[str, Values]] = {}
    for system, place, values in rows:
        nested.setdefault(place, {})[system] = values
    return nested


def conditions_part(
    rows: Sequence[ClipRow], metrics: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Return the part on conditions: scores as JSON by system and condition; empty without rows.

    Args:
        rows: (system, condition, clip, values).
        metrics: all that were computed.
        seconds: of each clip.
    """
    if not rows:
        return {}
    nested: dict[str, dict[str, dict[str, Values]]] = {}
    for system, key, clip, values in rows:
        nested.setdefault(system, {}).setdefault(key, {})[clip] = values
    return {
        "cutoff_hz": conditions.CUTOFF_HZ,
        "seconds": seconds,
        "metrics": known(CONDITION_METRICS, metrics),
        "titles": {one.key: one.title for one in conditions.CONDITIONS},
        "scores": {
            system: {
                key: gather_scores(conditions.CUTOFF_HZ, clips).as_json()
                for key, clips in by_condition.items()
            }
            for system, by_condition in nested.items()
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

"""What a system reached on some clips: medians per domain, and every clip's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rtsr.quality.compare import medians
from rtsr_bench.corpus import DOMAINS


@dataclass(frozen=True)
class Scores:
    """What one system reached at one cutoff: medians per domain, and every clip's values."""

    cutoff_hz: float
    by_domain: dict[str, dict[str, float]]
    clips: dict[str, dict[str, float]]


def gather_scores(cutoff_hz: float, clips: Mapping[str, Mapping[str, float]]) -> Scores:
    """Take medians per domain of each metric; the domain is the first part of a clip's name."""
    by_domain = {
        domain: medians(
            dict(metrics) for name, metrics in clips.items() if name.startswith(f"{domain}/")
        )
        for domain in DOMAINS
        if any(name.startswith(f"{domain}/") for name in clips)
    }
    return Scores(cutoff_hz, by_domain, {name: dict(values) for name, values in clips.items()})

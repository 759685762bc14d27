"""Does a model compute the same everywhere: captured or not, on a device or the CPU?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtsr.runtime.models import find_model
from rtsr.runtime.providers.options import CPU, ProviderOptions, parse_provider
from rtsr.runtime.session import OnnxStep
from rtsr_bench.speed.matrix import Case
from rtsr_export.step_parity import TOLERANCE, compare_steps, tolerance_to_cpu


def compare(case: Case) -> dict[str, Any]:
    """Return the largest differences over 200 hops with a fresh start in the middle.

    Returns:
        ``captured``: whether a step is one CUDA graph; ``parity_hops``; ``to_eager`` and
        ``to_cpu``, relative to the signal, ``None`` where a difference is no number; and the
        limit of each, ``to_eager_limit`` and ``to_cpu_limit``. Of the CPU alone that nothing was
        captured: there is no other way to compare it with.
    """
    model = find_model(Path(case.source["file"]))
    name, options = parse_provider(case.provider)

    def opened(provider: str, chosen: ProviderOptions | None) -> OnnxStep:
        return OnnxStep(model, provider=provider, batch=2, hops_per_step=case.hops, options=chosen)

    step = opened(name, options)
    if step.provider == CPU:
        return {"captured": False}
    eager = compare_steps(step, opened(step.provider, replace(options, graph=False)))
    return {
        "captured": step.cuda_graph,
        "parity_hops": eager.hops,
        "to_eager": _known(eager.worst),
        "to_eager_limit": TOLERANCE,
        "to_cpu": _known(compare_steps(opened(CPU, None), step).high_band),
        "to_cpu_limit": tolerance_to_cpu(step),
    }


def _known(value: float) -> float | None:
    """Return what JSON can hold: a difference that is no number is none."""
    return value if math.isfinite(value) else None


def holds(facts: Mapping[str, Any]) -> bool:
    """Whether what :func:`compare` found is within its limits."""
    return all(
        facts[name] is not None and facts[name] <= facts[f"{name}_limit"]
        for name in ("to_eager", "to_cpu")
        if name in facts
    )

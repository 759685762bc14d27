"""The fallback levels of a live session: from the model that was asked for down to dry."""

from __future__ import annotations

from pathlib import Path

from rtsr.batch.shedding import DRY, REPLICATE
from rtsr.engine.sources import HighBandSource
from rtsr.engine.statistics import Statistics
from rtsr.live.worker.settings import WorkerSettings
from rtsr.runtime.models import bundled, find_model, names

# Where no network says where its output ends.
_F_TARGET = 20000.0


def fallback_levels_of(model: str) -> tuple[str, ...]:
    """Return the fallback levels of a model: it, what is cheaper, and at last the dry signal.

    Better models than the one asked for are left out: each costs memory and time to load, also
    when a worker has to be replaced.

    Raises:
        ModelError: the model is unknown or not one of rtsr's.
    """
    if model == DRY:
        return (DRY,)
    if model == REPLICATE:
        return (REPLICATE, DRY)
    if model in bundled():
        return (model, *_smaller_networks(model), REPLICATE, DRY)
    return (_name_of(model), REPLICATE, DRY)


def _smaller_networks(model: str) -> tuple[str, ...]:
    """Bundled networks with fewer parameters, the largest first; int8 ones only below int8."""
    asked = find_model(model).metadata
    others = {name: find_model(name).metadata for name in bundled()}
    smaller = [
        name
        for name, other in others.items()
        if other.parameters < asked.parameters and other.is_for_cpu == asked.is_for_cpu
    ]
    return tuple(sorted(smaller, key=lambda name: others[name].parameters, reverse=True))


def build_sources(
    settings: WorkerSettings, statistics: Statistics
) -> tuple[dict[str, HighBandSource], float]:
    """Build every level but ``dry``; the chain takes their first steps.

    Returns:
        the sources by name, and where the best one's output ends in Hz.

    Raises:
        ModelError, ProviderError, MissingDependencyError: a model cannot be run.
    """
    from rtsr.engine.sources import ModelSource

    sources: dict[str, HighBandSource] = {}
    f_target: float | None = None
    for level in fallback_levels_of(settings.model):
        if level == DRY:
            continue
        if level == REPLICATE:
            from rtsr.engine.replicate import ReplicateSource

            sources[level] = ReplicateSource(settings.channels, seed=0)
        else:
            from rtsr.runtime.session import OnnxStep

            session = OnnxStep(
                level if level in bundled() else settings.model,
                provider=settings.provider,
                batch=settings.channels,
                threads=settings.threads,
            )
            sources[level] = ModelSource(session, 0, statistics)
            f_target = f_target or session.metadata.f_target_default
    return sources, f_target or _F_TARGET


def coloured_levels(model: str) -> frozenset[str]:
    """Name the fallback levels that a colour of ``model`` is for: those with its weights."""
    if model == DRY:
        return frozenset()
    weights = find_model(model).metadata.weights_sha256
    return frozenset(
        level
        for level in fallback_levels_of(model)
        if level != DRY
        and find_model(level if level in names() else model).metadata.weights_sha256 == weights
    )


def _name_of(path: str) -> str:
    name = find_model(path).metadata.name
    taken = name in (REPLICATE, DRY) or name in bundled()
    return Path(path).name if taken else name

"""The fallback levels of a live session: from the model that was asked for down to dry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtsr.batch.shedding import DRY, REPLICATE
from rtsr.engine.load_source import load_source
from rtsr.engine.sources import HighBandSource
from rtsr.engine.statistics import Statistics
from rtsr.live.worker.settings import WorkerSettings
from rtsr.runtime.models import bundled, find_model, find_octave_model, names

# Where no network says where its output ends.
_F_TARGET = 20000.0
_OCTAVES = {2: "+octave", 4: "+octaves"}


def fallback_levels_of(model: str, factor: int = 1) -> tuple[str, ...]:
    """Return the fallback levels of a model: it, what is cheaper, and at last the dry signal.

    Better models than the one asked for are left out: each costs memory and time to load, also
    when a worker has to be replaced. What no ear hears is the first to be done without: the octaves
    beyond 48 kHz belong to the first level alone.

    Args:
        model: name of a bundled one, path of an ``.onnx`` file, ``replicate`` or ``dry``.
        factor: rate of the timelines over 48 kHz, 1, 2 or 4.

    Raises:
        ModelError: the model is unknown or not one of rtsr's.
    """
    levels = _levels_up_to_48_khz(model)
    return (*with_octaves(model, factor), *levels)


def with_octaves(model: str, factor: int) -> dict[str, str]:
    """Return the levels that make octaves, and what makes the band up to 24 kHz in each."""
    best = _levels_up_to_48_khz(model)[0]
    return {} if factor == 1 or best == DRY else {f"{best}{_OCTAVES[factor]}": best}


def _levels_up_to_48_khz(model: str) -> tuple[str, ...]:
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
    """Build every level up to 24 kHz but ``dry``; the chain takes their first steps.

    Returns:
        the sources by name, and where the best one's output ends in Hz.

    Raises:
        ModelError, ProviderError, MissingDependencyError: a model cannot be run.
    """
    from rtsr.engine.sources import ModelSource

    sources: dict[str, HighBandSource] = {}
    f_target: float | None = None
    for level in _levels_up_to_48_khz(settings.model):
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


def build_octave_source(
    settings: WorkerSettings, factor: int, statistics: Statistics
) -> HighBandSource:
    """Build what makes the octaves beyond 48 kHz.

    Raises:
        ModelError, ProviderError, MissingDependencyError: the model cannot be run.
    """
    octave_model: Any = settings.octave_model
    if settings.model == DRY:
        # Nothing asks it for an octave.
        octave_model = REPLICATE
    elif octave_model is None:
        octave_model = find_octave_model(settings.model, 2 if factor == 4 else 1)
    return load_source(
        octave_model,
        provider=settings.provider,
        channels=settings.channels,
        hops_per_step=1,
        threads=settings.threads,
        seed=0,
        statistics=statistics,
    )


def replicate_end_hz() -> float:
    """Return the Hz where the high band of ``replicate`` ends by itself."""
    return find_model(REPLICATE).metadata.f_target_default


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

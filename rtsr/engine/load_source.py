"""From the name of a model to a running source of high bands."""

from __future__ import annotations

from pathlib import Path

from rtsr.engine.replicate import ReplicateSource
from rtsr.engine.sources import ModelSource
from rtsr.engine.statistics import Statistics
from rtsr.runtime import replicate_file
from rtsr.runtime.models import Model, find_model
from rtsr.runtime.session import OnnxStep


def load_source(
    model: Model | str | Path,
    *,
    provider: str,
    channels: int,
    hops_per_step: int,
    threads: int,
    seed: int,
    statistics: Statistics,
) -> ModelSource | ReplicateSource:
    """Load a network or the regression; ``threads`` means nothing to the latter.

    Raises:
        ModelError, ProviderError, MissingDependencyError: it cannot be run, see
            :class:`~rtsr.runtime.session.OnnxStep`.
    """
    found = model if isinstance(model, Model) else find_model(model)
    if found.name == replicate_file.NAME and not found.is_network:
        return ReplicateSource(channels, seed, hops_per_step, provider=provider)
    session = OnnxStep(
        found, provider=provider, batch=channels, hops_per_step=hops_per_step, threads=threads
    )
    return ModelSource(session, seed, statistics)

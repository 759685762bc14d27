"""The systems that a quality report holds against each other, and what each of them costs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rtsr import enhance_file
from rtsr.errors import RtsrError
from rtsr.runtime import models
from rtsr.runtime.providers import select as providers
from rtsr.upsampler import Upsampler
from rtsr_bench.chain_operations import chain_operations
from rtsr_bench.floor_command import FLOORS, floor_path
from rtsr_bench.matrix import PRECISIONS
from rtsr_bench.ridge import RidgeFloor
from rtsr_bench.validation import Enhancer

INPUT, MODEL, FLOOR = "input", "model", "floor"
FLOOR_NAME = "ridge"
#: the same without its level correction: it is the harder one to beat on some metrics
BARE_NAME = "ridge-bare"


@dataclass(frozen=True)
class System:
    """Something to be judged.

    Attributes:
        kind: ``input`` (nothing is done), ``model`` or ``floor``.
        source: name of a bundled model, path of a graph, or folder of the fitted floors.
        digest: of the weights: results belong to them, not to a name.
    """

    name: str
    kind: str
    source: str = ""
    digest: str = ""

    def enhancer(self, cutoff_hz: float) -> Enhancer | None:
        """What turns an input file into an output file; ``None`` where the input is judged."""
        if self.kind == MODEL:
            return partial(enhance_file, model=self.source, provider=providers.CPU)
        if self.kind == FLOOR:
            floor = RidgeFloor.load(floor_path(Path(self.source), cutoff_hz))
            return (replace(floor, level=0.0) if self.name == BARE_NAME else floor).enhance_file
        return None


@dataclass(frozen=True)
class SystemFacts:
    """What a system costs; figures by input rate in Hz have it as their key.

    Attributes:
        operations: per second of mono audio and part of the chain, multiply-accumulates and other.
        latency_ms: algorithmic, as the engine states it.
        real_time: seconds of audio per second of computing, filled in by the probes.
    """

    kind: str
    file_bytes: int | None = None
    parameters: int | None = None
    precision: str | None = None
    operations: dict[int, dict[str, tuple[float, float]]] = field(default_factory=dict)
    latency_ms: dict[int, float] = field(default_factory=dict)
    real_time: dict[int, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A plain object for ``json.dump``."""
        return asdict(self)

    def multiply_accumulates(self, input_rate: int) -> float | None:
        """Of the whole chain per second of mono audio."""
        parts = self.operations.get(input_rate)
        return sum(products for products, _ in parts.values()) if parts else None


def choose_systems(
    chosen: Sequence[str] | None, floors: Path | None, cutoffs: Sequence[float]
) -> list[System]:
    """Input, ``replicate`` and the models, in the order of the tables; the floor in front of them.

    Args:
        chosen: bundled names or paths of graphs; every bundled network if ``None``.
        floors: folder of the fitted floors, one for each of ``cutoffs``.

    Raises:
        ModelError: a model is unknown.
        RtsrError: two models have one name, or a floor is missing.
    """
    systems = [System("input", INPUT)]
    if floors is not None:
        files = [floor_path(floors, cutoff_hz) for cutoff_hz in cutoffs]
        for file in files:
            RidgeFloor.load(file)
        digest = _digest(files)
        systems.append(System(FLOOR_NAME, FLOOR, str(floors), digest))
        systems.append(System(BARE_NAME, FLOOR, str(floors), f"{digest}-bare"))
    wanted = [models.names()[-1], *(models.bundled() if chosen is None else chosen)]
    for source in dict.fromkeys(wanted):
        model = models.find_model(source)
        name = model.path.stem
        if any(system.name == name for system in systems):
            raise RtsrError(
                f"Two systems of the report would be called {name!r}; rename the file '{source}'."
            )
        systems.append(System(name, MODEL, str(source), _digest([model.path])))
    return systems


def missing_floors(cutoffs: Sequence[float], folder: Path = FLOORS) -> list[float]:
    """The cutoffs in Hz for which ``folder`` has no fitted floor."""
    return [hz for hz in cutoffs if not floor_path(folder, hz).is_file()]


def at_full_precision(systems: Sequence[System]) -> list[System]:
    """Without models of which there is a more precise version, ``small`` beside ``small-int8``."""
    names = {system.name for system in systems}
    return [
        system
        for system in systems
        if not any(system.name == f"{name}-{p}" for name in names for p in PRECISIONS[1:])
    ]


def describe_system(system: System, cutoffs: Sequence[float]) -> SystemFacts:
    """Size, operations and latency of a system for inputs at twice each cutoff."""
    if system.kind == FLOOR:
        files = [floor_path(Path(system.source), cutoff_hz) for cutoff_hz in cutoffs]
        numbers = [RidgeFloor.load(file).weights.size for file in files]
        return SystemFacts(FLOOR, sum(file.stat().st_size for file in files), sum(numbers))
    if system.kind == INPUT:
        return SystemFacts(INPUT)
    model = models.find_model(system.source)
    operations, latency_ms = {}, {}
    for cutoff_hz in cutoffs:
        rate = round(2.0 * cutoff_hz)
        operations[rate] = {
            part: (one.multiply_accumulates, one.other)
            for part, one in chain_operations(model, rate, cutoff_hz).items()
        }
        with Upsampler(rate, model=model, provider=providers.CPU) as upsampler:
            latency_ms[rate] = upsampler.latency.algorithmic_ms
    return SystemFacts(
        kind=MODEL,
        file_bytes=model.path.stat().st_size,
        parameters=model.metadata.parameters,
        precision=model.metadata.precision if model.is_network else None,
        operations=operations,
        latency_ms=latency_ms,
    )


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()

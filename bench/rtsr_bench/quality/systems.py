"""The systems that a quality report holds against each other, and what they cost."""

from __future__ import annotations

import functools
import hashlib
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rtsr import enhance_file
from rtsr.errors import ArgumentError
from rtsr.runtime import models
from rtsr.runtime.providers import select as providers
from rtsr.upsampler import Upsampler
from rtsr_bench.corpus import read_loudest
from rtsr_bench.quality.baseline import RidgeBaseline, baseline_path

SMALLER_PRECISIONS = ("fp16", "int8")
INPUT, MODEL, BASELINE = "input", "model", "baseline"
BASELINE_NAME = "ridge"
#: the same without its level correction: it is the harder one to beat on some metrics
BARE_NAME = "ridge-bare"
_TIMED_SECONDS, _REPETITIONS = 2.0, 5
#: samples of a block that fits no hop
_ODD_BLOCK = 37


@dataclass(frozen=True)
class System:
    """Something to be scored.

    Attributes:
        kind: ``input`` (nothing is done), ``model`` or ``baseline``.
        source: name of a bundled model, path of a graph, or folder of the fitted baselines.
        digest: of the weights: results belong to them, not to a name.
    """

    name: str
    kind: str
    source: str = ""
    digest: str = ""

    def enhance(self, file: Path, folder: Path, cutoff_hz: float) -> Path:
        """Write what this makes of an input file into a folder; returns that file or the input."""
        output = folder / f"{self.name}.wav"
        if self.kind == INPUT:
            return file
        if self.kind == MODEL:
            enhance_file(file, output, model=self.source, provider=providers.CPU)
        else:
            baseline = RidgeBaseline.load(baseline_path(Path(self.source), cutoff_hz))
            level = 0.0 if self.name == BARE_NAME else baseline.level
            replace(baseline, level=level).enhance_file(file, output)
        return output


@dataclass(frozen=True)
class SystemFacts:
    """What a system costs; figures by input rate in Hz have it as their key.

    Attributes:
        latency_ms: algorithmic, as the engine states it.
        real_time: seconds of audio per second of computing, see :func:`stream_part`.
        streaming: by how much a stream cut into blocks differs from one long block.
    """

    kind: str
    file_bytes: int | None = None
    parameters: int | None = None
    precision: str | None = None
    latency_ms: dict[int, float] = field(default_factory=dict)
    real_time: dict[int, float] = field(default_factory=dict)
    streaming: dict[int, float] = field(default_factory=dict)


def choose_systems(
    chosen: Sequence[str] | None, baselines: Path | None, cutoffs: Sequence[float]
) -> list[System]:
    """List input, baseline, ``replicate`` and the models, in the order of the tables.

    Args:
        chosen: bundled names or paths of graphs; every bundled network if ``None``.
        baselines: folder of the fitted baselines, one for each of ``cutoffs``.
        cutoffs: of the inputs in Hz.

    Raises:
        ModelError: a model is unknown.
        ArgumentError: two models have one name.
        RtsrError: a baseline is missing.
    """
    systems = [System("input", INPUT)]
    if baselines is not None:
        files = [baseline_path(baselines, cutoff_hz) for cutoff_hz in cutoffs]
        for file in files:
            RidgeBaseline.load(file)
        digest = digest_of(*files)
        systems.append(System(BASELINE_NAME, BASELINE, str(baselines), digest))
        systems.append(System(BARE_NAME, BASELINE, str(baselines), f"{digest}-bare"))
    wanted = [models.names()[-1], *(models.bundled() if chosen is None else chosen)]
    for source in dict.fromkeys(wanted):
        model = models.find_model(source)
        name = model.path.stem
        if any(system.name == name for system in systems):
            raise ArgumentError(
                f"Two systems of the report would be called {name!r}; rename the file '{source}'."
            )
        systems.append(System(name, MODEL, str(source), digest_of(model.path)))
    return systems


def at_full_precision(systems: Sequence[System]) -> list[System]:
    """Without models of which there is a more precise version, ``small`` beside ``small-int8``."""
    names = [system.name for system in systems]
    return [system for system in systems if original_of(system.name, names) is None]


def original_of(name: str, names: Sequence[str]) -> str | None:
    """Return the system of full precision that this one is a smaller version of, if it is there."""
    original, _, precision = name.rpartition("-")
    return original if precision in SMALLER_PRECISIONS and original in names else None


def describe_system(system: System, cutoffs: Sequence[float]) -> SystemFacts:
    """Describe size and latency of a system for inputs at twice each cutoff."""
    if system.kind == BASELINE:
        files = [baseline_path(Path(system.source), cutoff_hz) for cutoff_hz in cutoffs]
        numbers = [RidgeBaseline.load(file).weights.size for file in files]
        return SystemFacts(BASELINE, sum(file.stat().st_size for file in files), sum(numbers))
    if system.kind == INPUT:
        return SystemFacts(INPUT)
    model = models.find_model(system.source)
    latency_ms = {}
    for cutoff_hz in cutoffs:
        rate = round(2.0 * cutoff_hz)
        with Upsampler(rate, model=model, provider=providers.CPU) as upsampler:
            latency_ms[rate] = upsampler.latency.algorithmic_ms
    return SystemFacts(
        kind=MODEL,
        file_bytes=model.path.stat().st_size,
        parameters=model.metadata.parameters,
        precision=model.metadata.precision if model.is_network else None,
        latency_ms=latency_ms,
    )


def stream_part(model: str, path: Path) -> tuple[float, float]:
    """Stream the loudest 2 s of a file through the whole chain, with one thread.

    Returns:
        seconds of audio per second of computing in blocks of 10 ms, without loading and files; and
        the largest difference of a sample between odd blocks and one long one, which is to be zero.
    """
    samples, rate = read_loudest(path, _TIMED_SECONDS)
    samples = samples.astype(np.float32)
    with Upsampler(rate, model=model, provider=providers.CPU) as upsampler:

        def stream(block: int) -> np.ndarray:
            starts = range(0, samples.size, block)
            parts = [upsampler.process(samples[at : at + block]) for at in starts]
            return np.concatenate([*parts, upsampler.flush()])

        whole, odd = stream(samples.size), stream(_ODD_BLOCK)
        times = []
        for _ in range(_REPETITIONS):
            started = time.perf_counter()
            stream(rate // 100)
            times.append(time.perf_counter() - started)
    difference = float(np.abs(whole - odd).max()) if whole.shape == odd.shape else math.inf
    return samples.size / rate / statistics.median(times), difference


@functools.lru_cache(maxsize=4096)
def digest_of(*files: Path) -> str:
    """Return a digest of what these files hold, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()

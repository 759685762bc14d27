"""What is timed, each behind the same call: a hop in host memory in, the result in host memory.

Copies to and from a device are inside the call. The input changes from step to step, because a
constant one would show caches and not the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rtsr.errors import MissingDependencyError
from rtsr.timing import HOP, SAMPLE_RATE
from rtsr_bench.speed.matrix import EXTERNAL, MODEL, OCTAVES, REPLICATE, RESAMPLER, SOXR, Case
from rtsr_bench.speed.workload import Audio, Blocks, Workload

CUTOFF_HZ = 4000.0
_INPUT_RATE = 8000


def make_workload(case: Case) -> Workload:
    """Load what the case names.

    Raises:
        ModelError, ProviderError, MissingDependencyError: it cannot be run here.
    """
    if case.kind == EXTERNAL:
        from rtsr_bench.speed.external_model import ExternalStep

        return ExternalStep(case)
    makers: dict[str, Callable[[Case], Workload]] = {
        MODEL: WholeBatch if case.whole else ModelStep,
        OCTAVES: OctavesStep,
        REPLICATE: ReplicateStep,
        RESAMPLER: ResamplerStep,
        SOXR: SoxrStep,
    }
    return makers[case.kind](case)


class ModelStep(Workload):
    """One of rtsr's graphs, one stream per item of the batch."""

    def __init__(self, case: Case) -> None:
        from rtsr.runtime.session import OnnxStep

        self._step = OnnxStep(
            Path(case.source["file"]),
            provider=case.provider,
            batch=case.streams,
            hops_per_step=case.hops,
            threads=case.threads,
        )
        self.provider = self._step.provider
        self._audio = Blocks(*self._step.audio.shape)
        self._noise = 10.0 * Blocks(*self._step.noise.shape).next()
        self._f_prior = np.full_like(self._step.f_prior, CUTOFF_HZ)
        self._f_target = self._step.f_target.copy()

    def step(self) -> Audio:
        """Four host arrays in, the high band in a host array out."""
        return self._step.step(self._audio.next(), self._noise, self._f_prior, self._f_target)


#: Streams whose packets are sooner pushed and pulled in one call than one by one.
_AT_ONCE_FROM = 8


class WholeBatch(Workload):
    """Streams through ``BatchUpsampler``: a packet of 8 kHz each in, its enhanced twin out.

    Every stream is mono and has a detector of its own.
    """

    def __init__(self, case: Case) -> None:
        from rtsr.batch.upsampler import BatchUpsampler

        self._batch = BatchUpsampler(
            case.streams,
            model=Path(case.source["file"]),
            provider=case.provider,
            hops_per_step=case.hops,
            threads=case.threads,
        )
        self.provider = self._batch.provider
        self._streams = [self._batch.open(_INPUT_RATE, seed=seed) for seed in range(case.streams)]
        self._packets = Blocks(case.streams, round(_INPUT_RATE * case.period_ms / 1000.0))
        self._out = np.empty((case.streams, 2 * self._batch.step_samples), np.float32)

    def step(self) -> None:
        """Every stream pushes a packet, the batch steps once, every stream pulls."""
        packets, batch = self._packets.next(), self._batch
        if len(packets) >= _AT_ONCE_FROM:
            batch.push_many(self._streams, packets)
            batch.step()
            batch.pull_many(self._streams, self._out)
            return
        for stream, packet in zip(self._streams, packets, strict=True):
            stream.push(packet)
        batch.step()
        for stream, out in zip(self._streams, self._out, strict=True):
            stream.pull_into(out[:, None])

    def close(self) -> None:
        """Let go of streams and model."""
        self._batch.close()


class OctavesStep(Workload):
    """What makes octaves beyond 48 kHz, with all that belongs to it; a stream per channel."""

    def __init__(self, case: Case) -> None:
        from rtsr.engine.load_source import load_source
        from rtsr.engine.octaves import Octaves
        from rtsr.engine.statistics import Statistics

        statistics = Statistics(kept_steps=1)
        source = load_source(
            case.source["model"],
            provider=case.provider,
            channels=case.streams,
            hops_per_step=case.hops,
            threads=case.threads,
            seed=0,
            statistics=statistics,
        )
        self.provider = source.provider
        samples = HOP * case.hops
        factor = case.source["factor"]
        self._octaves = Octaves(source, samples, factor, factor * SAMPLE_RATE, 1.0, statistics)
        self._audio = Blocks(samples, case.streams)

    def step(self) -> Audio:
        """Audio at 48 kHz in, the same with its octaves out."""
        return self._octaves.step(self._audio.next())


class ReplicateStep(Workload):
    """The fallback level without a network, one stream per channel."""

    def __init__(self, case: Case) -> None:
        from rtsr.engine.replicate import ReplicateSource

        self._source = ReplicateSource(case.streams, 0, case.hops)
        self.provider = self._source.provider
        self._audio = Blocks(HOP * case.hops, case.streams)
        self._f_prior = np.full(case.hops, CUTOFF_HZ, np.float32)
        self._f_target = self._source.model.metadata.f_target_default

    def step(self) -> Audio:
        """Audio in, the high band out."""
        return self._source.generate(self._audio.next(), self._f_prior, self._f_target)


class ResamplerStep(Workload):
    """rtsr's own resampler from 8 to 48 kHz: no new content at all."""

    def __init__(self, case: Case) -> None:
        from rtsr_kernels.resample import StreamingResampler

        frames = round(_INPUT_RATE * case.period_ms / 1000.0)
        self.provider = case.provider
        self._resampler = StreamingResampler(_INPUT_RATE, SAMPLE_RATE, case.streams)
        self._audio = Blocks(frames, case.streams)
        self._out = np.empty((self._resampler.output_frames(frames) + 1, case.streams), np.float32)

    def step(self) -> int:
        """Narrow-band audio in, the same at 48 kHz out."""
        return self._resampler.process_into(self._audio.next(), self._out)


class SoxrStep(Workload):
    """soxr's streaming resampler from 8 to 48 kHz at its high quality."""

    def __init__(self, case: Case) -> None:
        try:
            import soxr
        except ImportError:
            raise MissingDependencyError("Timing soxr", "eval") from None
        self.provider = case.provider
        self._stream = soxr.ResampleStream(
            _INPUT_RATE, SAMPLE_RATE, case.streams, dtype="float32", quality="HQ"
        )
        self._audio = Blocks(round(_INPUT_RATE * case.period_ms / 1000.0), case.streams)

    def step(self) -> Any:
        """Narrow-band audio in, the same at 48 kHz out."""
        return self._stream.resample_chunk(self._audio.next())

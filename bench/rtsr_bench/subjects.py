"""What is timed, each behind the same call: a hop in host memory in, the result in host memory.

Copies to and from a device are inside the call. The input changes from step to step, because a
constant one would show caches and not the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import MissingDependencyError
from rtsr.timing import HOP
from rtsr_bench.matrix import FOREIGN, MODEL, REPLICATE, RESAMPLER, SOXR, Cell

Audio = NDArray[np.float32]

CUTOFF_HZ = 4000.0
_INPUT_RATE = 8000
_OUTPUT_RATE = 48000
_MOST_BLOCKS = 64
_MOST_INPUT_BYTES = 32 << 20


class Subject(Protocol):
    """Something that takes one step of sound at a time, for all its streams together."""

    provider: str
    """What it really runs on."""

    def step(self) -> Any:
        """Take the next hop of every stream; the result lies in host memory."""


def make_subject(cell: Cell) -> Subject:
    """Load what the cell names.

    Raises:
        ModelError, ProviderError, MissingDependencyError: it cannot be run here.
    """
    if cell.kind == FOREIGN:
        from rtsr_bench.foreign import ForeignStep

        return ForeignStep(cell)
    makers: dict[str, Callable[[Cell], Subject]] = {
        MODEL: ModelStep,
        REPLICATE: ReplicateStep,
        RESAMPLER: ResamplerStep,
        SOXR: SoxrStep,
    }
    return makers[cell.kind](cell)


class Blocks:
    """A cycle of different blocks of noise at the level of speech.

    Args:
        shape: of one block.
    """

    def __init__(self, *shape: int) -> None:
        size = 4 * int(np.prod(shape))
        count = min(max(_MOST_INPUT_BYTES // size, 2), _MOST_BLOCKS)
        random = np.random.default_rng(0)
        self._blocks = random.standard_normal((count, *shape), np.float32)
        self._blocks *= np.float32(0.1)
        self._next = 0

    def next(self) -> Audio:
        """The next block."""
        self._next = (self._next + 1) % len(self._blocks)
        return np.asarray(self._blocks[self._next])


class ModelStep:
    """One of rtsr's graphs, one stream per item of the batch."""

    def __init__(self, cell: Cell) -> None:
        from rtsr.runtime.session import OnnxStep

        self._step = OnnxStep(
            Path(cell.source["file"]),
            provider=cell.provider,
            batch=cell.streams,
            hops_per_step=cell.hops,
            threads=cell.threads,
        )
        self.provider = self._step.provider
        self._audio = Blocks(*self._step.audio.shape)
        self._noise = 10.0 * Blocks(*self._step.noise.shape).next()
        self._f_prior = np.full_like(self._step.f_prior, CUTOFF_HZ)
        self._f_target = self._step.f_target.copy()

    def step(self) -> Audio:
        """Four host arrays in, the high band in a host array out."""
        return self._step.step(self._audio.next(), self._noise, self._f_prior, self._f_target)


class ReplicateStep:
    """The rung without a network, one stream per channel."""

    def __init__(self, cell: Cell) -> None:
        from rtsr.engine.replicate import ReplicateSource

        self._source = ReplicateSource(cell.streams, 0, cell.hops)
        self.provider = self._source.provider
        self._audio = Blocks(HOP * cell.hops, cell.streams)
        self._f_prior = np.full(cell.hops, CUTOFF_HZ, np.float32)
        self._f_target = self._source.model.metadata.f_target_default

    def step(self) -> Audio:
        """Audio in, the high band out."""
        return self._source.generate(self._audio.next(), self._f_prior, self._f_target)


class ResamplerStep:
    """rtsr's own resampler from 8 to 48 kHz: no new content at all."""

    def __init__(self, cell: Cell) -> None:
        from rtsr_kernels.resample import StreamingResampler

        frames = round(_INPUT_RATE * cell.period_ms / 1000.0)
        self.provider = cell.provider
        self._resampler = StreamingResampler(_INPUT_RATE, _OUTPUT_RATE, cell.streams)
        self._audio = Blocks(frames, cell.streams)
        self._out = np.empty((self._resampler.output_frames(frames) + 1, cell.streams), np.float32)

    def step(self) -> int:
        """Narrow-band audio in, the same at 48 kHz out."""
        return self._resampler.process_into(self._audio.next(), self._out)


class SoxrStep:
    """soxr's streaming resampler from 8 to 48 kHz at its high quality."""

    def __init__(self, cell: Cell) -> None:
        try:
            import soxr
        except ImportError:
            raise MissingDependencyError("Timing soxr", "eval") from None
        self.provider = cell.provider
        self._stream = soxr.ResampleStream(
            _INPUT_RATE, _OUTPUT_RATE, cell.streams, dtype="float32", quality="HQ"
        )
        self._audio = Blocks(round(_INPUT_RATE * cell.period_ms / 1000.0), cell.streams)

    def step(self) -> Any:
        """Narrow-band audio in, the same at 48 kHz out."""
        return self._stream.resample_chunk(self._audio.next())

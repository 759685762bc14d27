"""The public object: narrow-band blocks of any length in, full-band blocks out."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.arguments import (
    check_arguments,
    check_audio_format,
    check_frequency,
    check_wet,
)
from rtsr.bandwidth import BandwidthDetector
from rtsr.blocks import as_frames, repaired
from rtsr.errors import RtsrError
from rtsr.latency import ENGINE_RATE, Latency, alignment_samples
from rtsr.runtime.engine import CutoffSource, Engine, FixedCutoff
from rtsr.runtime.models import Model
from rtsr.runtime.open_source import open_source
from rtsr.runtime.statistics import Statistics
from rtsr_kernels.resample import StreamingResampler

Audio = NDArray[np.float32]

# Bounds the buffers, whatever block length a caller uses.
_CHUNK_FRAMES = 4096


class Upsampler:
    """Causal streaming super-resolution of one stream.

    ``process`` takes float32 blocks ``(samples,)`` or ``(samples, channels)`` in [-1, 1] of any
    length, also zero, and returns blocks of the same rank. After ``n`` input samples in total,
    ``floor(n * output_rate / input_rate)`` output samples have come out, the same bits however the
    input was cut into blocks. Output sample ``o`` belongs to input time
    ``(o - latency.algorithmic_samples) / output_rate``.

    What is in the audio never raises: samples that are not numbers, or beyond
    1e10 in magnitude, become 0 and are counted.

    Args:
        input_rate: Hz, one of 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000.
        model: name of a bundled model, ``replicate`` (no network: spectral band replication at a
            fifth of the time), path of an ``.onnx`` file that rtsr exported, or a
            :class:`~rtsr.runtime.models.Model`.
        provider: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.
        channels: 1 to 8.
        hops_per_step: 1, 2 or 4 hops of 10 ms per step; more is cheaper and later.
        seed: of the model's noise; the same seed gives the same output.
        wet: 0 (only the dry signal, bit for bit at 48 kHz) to 1, gain of the generated band. The
            attribute ``wet`` may be changed at any time and is faded.
        cutoff: Hz where the input's real content ends; measured continuously if ``None``.
        ceiling: Hz where the output should end; the model's default if ``None``. The attribute
            ``ceiling`` may be changed at any time.
        threads: threads of one step of a network on the CPU.
        output_rate: 48000 or 44100 Hz.
        expected_cutoff: Hz that the measurement starts from, if it is known beforehand, as for a
            file that was looked through first.

    Raises:
        AudioFormatError: a rate or channel count that is not accepted.
        ModelError, ProviderError, MissingDependencyError: the model cannot be run, see
            :class:`~rtsr.runtime.session.OnnxStep`.
        RtsrError: any other argument out of range.
    """

    def __init__(
        self,
        input_rate: int,
        *,
        model: Model | str | Path = "small",
        provider: str = "auto",
        channels: int = 1,
        hops_per_step: int = 1,
        seed: int = 0,
        wet: float = 1.0,
        cutoff: float | None = None,
        ceiling: float | None = None,
        threads: int = 1,
        output_rate: int = ENGINE_RATE,
        expected_cutoff: float | None = None,
    ) -> None:
        check_audio_format(input_rate, output_rate, channels)
        check_arguments(hops_per_step, seed, wet, cutoff, ceiling, threads)
        self.input_rate = int(input_rate)
        self.output_rate = int(output_rate)
        self.channels = int(channels)
        self.statistics = Statistics()

        source = open_source(
            model,
            provider=provider,
            channels=self.channels,
            hops_per_step=hops_per_step,
            threads=threads,
            seed=int(seed),
            statistics=self.statistics,
        )
        self.model = source.model
        self.provider = source.provider
        native = self.input_rate / 2

        def new_cutoff_source() -> CutoffSource:
            if cutoff is not None:
                return FixedCutoff(float(cutoff))
            return BandwidthDetector(ENGINE_RATE, initial_hz=expected_cutoff, native_hz=native)

        self._engine: Engine | None = Engine(
            source,
            new_cutoff_source,
            native,
            source.model.metadata.f_target_default if ceiling is None else float(ceiling),
            float(wet),
            self.statistics,
        )
        self._wet = float(wet)
        self._before = StreamingResampler(self.input_rate, ENGINE_RATE, self.channels)
        self._after = StreamingResampler(ENGINE_RATE, self.output_rate, self.channels)
        inner = self._before.delay + source.overlap + self._engine.step_samples
        self.latency = Latency(
            resampler=self._before.delay,
            hop=self._engine.step_samples,
            overlap=source.overlap,
            alignment=alignment_samples(inner, self.output_rate),
            output_resampler=self._after.delay,
            output_rate=self.output_rate,
        )
        wide = self._before.output_frames(_CHUNK_FRAMES) + 1
        self._clean: Audio = np.zeros((_CHUNK_FRAMES, self.channels), np.float32)
        self._wide: Audio = np.zeros((wide, self.channels), np.float32)
        self._full: Audio = np.zeros((wide + self.latency.alignment, self.channels), np.float32)
        step = (self._engine.step_samples, self.channels)
        self._incoming: Audio = np.zeros(step, np.float32)
        self._outgoing: Audio = np.zeros(step, np.float32)
        self.reset()

    @property
    def cutoff_hz(self) -> float:
        """Hz where the content of the newest input ends, as given or as measured."""
        return self._running().cutoff_hz

    @property
    def wet(self) -> float:
        """Gain of the generated band, 0 to 1; a change is faded over 10 ms."""
        return self._wet

    @wet.setter
    def wet(self, value: float) -> None:
        check_wet(value)
        self._wet = self._running().wet = float(value)

    @property
    def ceiling(self) -> float:
        """Hz where the output should end; a change counts from the next step on."""
        return self._running().f_target

    @ceiling.setter
    def ceiling(self, value: float) -> None:
        check_frequency("ceiling", value)
        self._running().f_target = float(value)

    def process(self, block: NDArray[Any]) -> Audio:
        """Enhance the next block, float ``(samples,)`` or ``(samples, channels)``; same rank out.

        Raises:
            AudioFormatError: the block has another shape or holds integers.
            RtsrError: the upsampler is closed.
        """
        engine = self._running()
        audio = as_frames(block, self.channels, "this Upsampler")
        out = np.empty((self._due(len(audio)), self.channels), np.float32)
        written = 0
        for start in range(0, len(audio), _CHUNK_FRAMES):
            written += self._advance(engine, audio[start : start + _CHUNK_FRAMES], out[written:])
        self._received += len(audio)
        self._emitted += len(out)
        self._flat = np.ndim(block) == 1
        return out[:, 0] if self._flat else out

    def flush(self) -> Audio:
        """Return what is still inside and start anew.

        These are the last ``latency.algorithmic_samples`` samples (one more where ``n`` input
        samples do not make a whole number of output samples): without the first
        ``algorithmic_samples``, a whole stream is ``round(n * output_rate / input_rate)`` long and
        aligned with its input. The rank is that of the last block.
        """
        whole = round(self._received * self.output_rate / self.input_rate)
        missing = self.latency.algorithmic_samples + whole - self._emitted
        silence = np.zeros(
            (missing * self.input_rate // self.output_rate + 2, self.channels), np.float32
        )
        flat = self._flat
        rest = self.process(silence)[:missing]
        self.reset()
        return rest[:, 0] if flat else rest

    def reset(self) -> None:
        """Forget the past: the next block starts a new stream. The statistics go on."""
        self._running().reset()
        self._before.reset()
        self._after.reset()
        for buffer in (self._incoming, self._outgoing, self._full):
            buffer.fill(0.0)
        self._flat = self.channels == 1
        self._fill = 0
        self._received: int = 0
        self._emitted: int = 0

    def close(self) -> None:
        """Let go of the model; the upsampler cannot be used after that."""
        self._engine = None

    def __enter__(self) -> Upsampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _running(self) -> Engine:
        if self._engine is None:
            raise RtsrError("This Upsampler is closed; make a new one.")
        return self._engine

    def _due(self, frames: int) -> int:
        return self._after.output_frames(self._before.output_frames(frames))

    def _advance(self, engine: Engine, audio: Audio, out: Audio) -> int:
        """Enhance at most one chunk into the front of ``out``; returns the frames written."""
        audio = repaired(audio, self._clean, self.statistics)
        if self.input_rate != ENGINE_RATE:
            frames = self._before.process_into(audio, self._wide)
            audio = self._wide[:frames]
        if self.output_rate == ENGINE_RATE:
            self._step(engine, audio, out[: len(audio)])
            return len(audio)
        # The newest output goes behind the padding that makes the delay a whole number of samples.
        padding, frames = self.latency.alignment, len(audio)
        self._step(engine, audio, self._full[padding : padding + frames])
        written = self._after.process_into(self._full[:frames], out)
        self._full[:padding] = self._full[frames : frames + padding]
        return written

    def _step(self, engine: Engine, audio: Audio, out: Audio) -> None:
        """Swap samples through the step buffers: what goes in comes out one step later."""
        size = engine.step_samples
        done = 0
        while done < len(audio):
            count = min(size - self._fill, len(audio) - done)
            here, there = slice(self._fill, self._fill + count), slice(done, done + count)
            self._incoming[here] = audio[there]
            out[there] = self._outgoing[here]
            self._fill += count
            done += count
            if self._fill == size:
                engine.step(self._incoming, self._outgoing)
                self._fill = 0

"""The public object: narrow-band blocks of any length in, full-band blocks out."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.arguments import (
    MAX_CUTOFF_HZ,
    MIN_CUTOFF_HZ,
    check_arguments,
    check_expected_cutoff,
    check_frequency,
    check_stream_format,
    check_wet,
)
from rtsr.closing import Closing
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.engine.colour_learner import resolve_colour
from rtsr.engine.load_source import load_source
from rtsr.engine.octaves import Octaves
from rtsr.engine.ports import BlockPort, stream_latency
from rtsr.engine.proportion import ProportionateSource
from rtsr.engine.statistics import Statistics
from rtsr.engine.stream_engine import Engine
from rtsr.errors import ArgumentError, AudioFormatError, RtsrError
from rtsr.runtime.models import Model, check_up_to_48_khz, find_octave_model
from rtsr.timing import SAMPLE_RATE, Latency, engine_rate, octave_factor
from rtsr_kernels.highpass import LOWEST_CUTOFF_HZ
from rtsr_kernels.ports import emit_rows, make_ports, ring_capacity, take_rows
from rtsr_kernels.resample import CHUNK_FRAMES, SUPPORTED_RATES

Audio = NDArray[np.float32]

_ROW = np.zeros(1, np.int64)


class _OneThread:
    """A lock that refuses a second thread instead of letting it wait."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RtsrError(
                "This Upsampler is in use by another thread; give every thread its own, or use "
                "BatchUpsampler for many streams."
            )

    def __exit__(self, *failure: object) -> None:
        self._lock.release()


class Upsampler(Closing):
    """Causal streaming super-resolution of one stream.

    ``process`` takes blocks ``(samples,)`` or ``(samples, channels)``, float32 in [-1, 1] or int16,
    of any length, also zero, and returns blocks of the same rank and kind. After ``n`` input
    samples in total, ``m = floor(n * engine_rate / input_rate)`` have reached the engine, whose
    rate is 48000 or that of an input above, and ``floor(m * output_rate / engine_rate)`` output
    samples have come out: the same number and the same bits however the input was cut into blocks.
    Output sample ``o`` belongs to input time ``(o - latency.algorithmic_samples) / output_rate``.

    What lies beyond 48 kHz is made by one more engine, on a clock two or four times as fast
    (:class:`~rtsr.engine.octaves.Octaves`). An input of a rate above 48 kHz is not converted: the
    engine runs on its clock, and what is full band passes bit for bit.

    What is in the audio never raises: samples that are not numbers, or beyond
    1e10 in magnitude, become 0 and are counted.

    Args:
        input_rate: Hz, one of 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200,
            96000, 176400, 192000.
        model: name of a bundled model, ``replicate`` (no network: spectral band replication at a
            tenth of the time), path of an ``.onnx`` file that rtsr exported, or a
            :class:`~rtsr.runtime.models.Model`.
        provider: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.
        channels: 1 to 8.
        hops_per_step: 1, 2, 4, 8 or 16 hops of 10 ms per step; more is cheaper and later.
        seed: of the model's noise; the same seed gives the same output.
        wet: 0 (only the dry signal, bit for bit at 48 kHz) to 1, gain of the generated band. The
            attribute ``wet`` may be changed at any time and is faded.
        cutoff: Hz where the input's real content ends; measured continuously if ``None``.
        ceiling: Hz where the output should end; the model's default if ``None``, and half of the
            output's rate where that is beyond 48 kHz. The attribute ``ceiling`` may be changed at
            any time.
        threads: threads of one step of a network on the CPU.
        output_rate: 192000, 96000, 48000, 44100, 32000, 24000 or 16000 Hz; of an input above 48 kHz
            its own rate or twice that, up to 192000. ``None`` is 48000, or the input's own rate
            where that is higher.
        expected_cutoff: Hz that the measurement starts from, if it is known beforehand, as for a
            file that was looked through first.
        limiter: whether peaks above -1 dBFS are turned down so that none leaves full scale; what is
            below passes as it is. No latency; ``statistics.limited_samples`` counts.
        blocks_are_hops: whether every block is a whole number of steps long, as packets of 10 or
            20 ms are. No sample then waits for the rest of its step: ``latency.hop`` is 0, and each
            block comes back as long as it came.
        channels_first: whether blocks are ``(channels, samples)``, as PyAV and torch have them.
        octave_model: what makes the octaves beyond 48 kHz, as ``model``. If ``None`` that is
            ``octave`` where a bundled network has one octave beside it, otherwise ``model``.
        colour: gains of the generated band that were learnt for this model, up to 24 kHz, for
            inputs up to 48 kHz; they are used as far as the stream resembles what they were learnt
            from. ``auto``, or an
            :class:`~rtsr.colour.auto.AutoColour`, learns them while the input is wide enough. The
            attribute ``colour`` may be changed at any time and is faded.

    Raises:
        AudioFormatError: a rate or channel count that is not accepted.
        ModelError, ProviderError, MissingDependencyError: the model cannot be run, see
            :class:`~rtsr.runtime.session.OnnxStep`.
        RtsrError: any other argument out of range.
    """

    __slots__ = (
        "__weakref__",
        "_adds",
        "_audio",
        "_blocks_are_hops",
        "_busy",
        "_channels",
        "_clock",
        "_emitted",
        "_engine",
        "_enhanced",
        "_factor",
        "_finished",
        "_first_targets",
        "_latency",
        "_model",
        "_octaves",
        "_output_rate",
        "_overlap",
        "_planar",
        "_port",
        "_ports",
        "_provider",
        "_statistics",
    )

    _latency: Latency

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
        output_rate: int | None = None,
        expected_cutoff: float | None = None,
        limiter: bool = True,
        blocks_are_hops: bool = False,
        channels_first: bool = False,
        colour: Colour | AutoColour | str | None = None,
        octave_model: Model | str | Path | None = None,
    ) -> None:
        self._output_rate = check_stream_format(input_rate, output_rate, channels)
        check_arguments(hops_per_step, seed, wet, None, None, threads)
        # How much faster than 48 kHz the engine runs: its 1 Hz stands for so many.
        self._clock = engine_rate(int(input_rate)) / SAMPLE_RATE
        self._check_band(cutoff, ceiling)
        check_expected_cutoff(expected_cutoff, LOWEST_CUTOFF_HZ * self._clock)
        self._channels = int(channels)
        self._statistics = Statistics()
        self._blocks_are_hops = bool(blocks_are_hops)
        self._busy = _OneThread()

        options: dict[str, Any] = {
            "provider": provider,
            "channels": self._channels,
            "hops_per_step": int(hops_per_step),
            "threads": int(threads),
            "seed": int(seed),
            "statistics": self._statistics,
        }
        self._factor = octave_factor(int(input_rate), self._output_rate)
        octave = self._choose_octave_model(model, octave_model)
        if self._clock == 1.0:
            check_up_to_48_khz(model)
        source = load_source(model if self._clock == 1.0 else octave, **options)
        self._model = source.model
        self._provider = source.provider
        self._overlap = source.overlap
        self._engine: Engine | None = Engine(
            source if self._clock == 1.0 else ProportionateSource(source),
            input_rate / self._clock / 2,
            source.model.metadata.f_target_default,
            float(wet),
            self._statistics,
            cutoff=self._scaled(cutoff),
            expected_cutoff=self._scaled(expected_cutoff),
            colour=self._resolve_colour(colour),
            rate=engine_rate(int(input_rate)),
        )
        step = self._engine.step_samples
        self._octaves: Octaves | None = None
        if self._factor > 1:
            self._octaves = Octaves(
                load_source(octave, **options),
                step,
                self._factor,
                self._output_rate,
                float(wet),
                self._statistics,
            )
        if ceiling is not None:
            self._set_ceiling(float(ceiling))
        elif self._output_rate > SAMPLE_RATE and (self._clock > 1.0 or source.model.is_network):
            # Up to 48 kHz `replicate` goes no further than it does by itself.
            self._engine.f_target = MAX_CUTOFF_HZ
        self._first_targets = [engine.f_target for engine in self._engines()]
        self._make_buffers(step, input_rate, limiter, channels_first)
        self._begin(self._engine)

    def _choose_octave_model(
        self, model: Model | str | Path, given: Model | str | Path | None
    ) -> Model | str | Path:
        """Return what makes the octaves beyond 48 kHz, where the output has any."""
        if self._output_rate > SAMPLE_RATE:
            octaves = 2 if self._factor == 4 else 1
            return find_octave_model(model, octaves) if given is None else given
        if given is not None:
            raise ArgumentError(
                f"An output of {self._output_rate} Hz has no octave beyond 48 kHz for octave_model "
                "to make; leave it out, or ask for 96000 or 192000 Hz."
            )
        return model

    def _make_buffers(
        self, step: int, input_rate: int, limiter: bool, channels_first: bool
    ) -> None:
        """Make everything that a step of ``step`` samples is computed in, and the port around."""
        self._audio: Audio = np.zeros((step, self._channels), np.float32)
        self._enhanced: Audio = np.zeros((step, self._channels), np.float32)
        self._adds = np.zeros(1, np.bool_)
        self._planar: Audio = np.zeros((self._channels, step), np.float32)
        finished = step * self._factor
        self._finished: Audio = np.zeros((self._channels, finished), np.float32)
        # What a chunk is worth at 48 kHz, what is left of a step, and padding.
        room = CHUNK_FRAMES * SAMPLE_RATE // min(SUPPORTED_RATES) + 2 * step + SAMPLE_RATE // 100
        capacity = ring_capacity(room * self._factor)
        self._ports = make_ports(1, self._channels, finished, capacity)
        self._port = BlockPort(
            self._ports,
            0,
            list(range(self._channels)),
            round(input_rate / self._clock),
            round(self._output_rate / self._clock),
            self._output_rate,
            bool(limiter),
            self._statistics,
            bool(channels_first),
            "this Upsampler",
        )

    @property
    def output_rate(self) -> int:
        """Hz of what comes out."""
        return self._output_rate

    @property
    def channels(self) -> int:
        """Of both, the blocks and what comes out."""
        return self._channels

    @property
    def model(self) -> Model:
        """What makes the high band; of an input above 48 kHz what makes the octaves."""
        return self._model

    @property
    def provider(self) -> str:
        """What runs the model: ``cpu``, ``cuda`` or ``tensorrt``."""
        return self._provider

    @property
    def latency(self) -> Latency:
        """From a sample's arrival to the moment its enhanced twin comes out, in parts.

        The time for computing is not in it.
        """
        return self._latency

    @property
    def statistics(self) -> Statistics:
        """Times of steps, and what was repaired, limited and degraded."""
        return self._statistics

    @property
    def input_rate(self) -> int:
        """Hz of the blocks; settable, for a call that changes its codec.

        What was pushed before is finished first. A measured cutoff begins anew from half of the new
        rate. Where the new rate's conversion has a longer delay, ``latency`` grows by as much.
        Rates above 48 kHz have an engine of their own clock and cannot be changed. Set it in the
        thread that calls ``process``; ``cutoff``, ``wet`` and ``ceiling`` may be set in any.
        """
        return round(self._port.conversion.rate * self._clock)

    @input_rate.setter
    def input_rate(self, value: int) -> None:
        engine = self._running()
        check_stream_format(value, self._output_rate, self._channels)
        if value == self.input_rate:
            return
        if engine_rate(value) / SAMPLE_RATE != self._clock or self._clock > 1.0:
            raise AudioFormatError(
                f"An Upsampler of {self.input_rate} Hz cannot go on at {value} Hz, for beyond "
                "48 kHz the rate is its engine's clock; make another one."
            )
        with self._busy:
            self._port.change_rate(int(value))
            engine.native_hz = value / 2
            self._latency = self._find_latency(self._latency.alignment)

    @property
    def cutoff_hz(self) -> float:
        """Hz where the content of the newest input ends, as given or as measured."""
        return self._running().cutoff_hz * self._clock

    @property
    def cutoff(self) -> float | None:
        """Hz where the input's real content ends, or ``None`` where that is measured.

        Settable; a change is faded over 10 ms.
        """
        given = self._running().cutoff
        return None if given is None else given * self._clock

    @cutoff.setter
    def cutoff(self, value: float | None) -> None:
        self._check_band(value, None)
        self._running().cutoff = self._scaled(value)

    @property
    def wet(self) -> float:
        """Gain of the generated band, 0 to 1; a change is faded over 10 ms."""
        return self._running().wet

    @wet.setter
    def wet(self, value: float) -> None:
        check_wet(value)
        for engine in self._engines():
            engine.wet = float(value)

    @property
    def ceiling(self) -> float:
        """Hz where the output should end; a change counts from the next step on."""
        return self._told(self._engines()[-1].f_target)

    @ceiling.setter
    def ceiling(self, value: float) -> None:
        self._check_ceiling(value)
        if value == self._told(self._first_targets[-1]):
            # Below 48 kHz the ceiling that it began with may be another one.
            for engine, target in zip(self._engines(), self._first_targets, strict=True):
                engine.f_target = target
        else:
            self._set_ceiling(float(value))

    @property
    def colour(self) -> Colour | AutoColour | None:
        """Gains of the generated band that were learnt; a change is faded over 10 ms.

        Where ``auto`` was given it is an :class:`~rtsr.colour.auto.AutoColour`, which holds what
        was learnt.
        """
        return self._running().colour

    @colour.setter
    def colour(self, value: Colour | AutoColour | str | None) -> None:
        self._running().colour = self._resolve_colour(value)

    @property
    def colour_share(self) -> float:
        """How much of the colour is used, 0 to 1: as far as the stream resembles its source."""
        return self._running().colour_share

    def process(self, block: NDArray[Any]) -> NDArray[Any]:
        """Enhance the next block; what comes out has its rank, layout and kind of number.

        Args:
            block: ``(samples,)`` or ``(samples, channels)``, floating-point in [-1, 1] or int16.

        Raises:
            AudioFormatError: the block has another shape or holds other integers, or, with
                ``blocks_are_hops``, is not a whole number of steps long.
            RtsrError: the upsampler is closed, or another thread is in ``process``, ``flush`` or
                ``reset``, or changes ``input_rate``.
        """
        engine = self._running()
        with self._busy:
            return self._process(engine, self._port.frames(block))

    def flush(self) -> NDArray[Any]:
        """Return what is still inside and start anew.

        These are the last ``latency.algorithmic_samples`` samples (one more where ``n`` input
        samples do not make a whole number of output samples): without the first
        ``algorithmic_samples``, a whole stream is ``round(n * output_rate / input_rate)`` long and
        aligned with its input. Rank and kind of number are those of the last block.

        Raises:
            RtsrError: as for :meth:`process`.
        """
        engine = self._running()
        with self._busy:
            missing = self._latency.algorithmic_samples + self._port.whole - self._emitted
            rest, frames = self._port.empty(missing)
            silence = np.zeros((self.input_rate // 100, self._channels), np.float32)
            done = 0
            while done < missing:
                self._port.push(silence)
                self._run(engine)
                done += self._port.pull_into(frames[done:])
            self._begin(engine)
        return rest

    def reset(self) -> None:
        """Forget the past: the next block starts a new stream. The statistics go on.

        Raises:
            RtsrError: as for :meth:`process`.
        """
        engine = self._running()
        with self._busy:
            self._begin(engine)

    def close(self) -> None:
        """Let go of the model; the upsampler cannot be used after that."""
        self._engine = None
        self._octaves = None

    def _running(self) -> Engine:
        if self._engine is None:
            raise RtsrError("This Upsampler is closed; make a new one.")
        return self._engine

    def _begin(self, engine: Engine) -> None:
        """Start a new stream."""
        engine.reset()
        if self._octaves is not None:
            self._octaves.reset()
        self._port.reset()
        self._latency = self._find_latency()
        # Output begins with silence for the latency's parts that no sample has passed.
        waiting = 0 if self._blocks_are_hops else self._audio.shape[0]
        self._port.emit_silence((self._latency.alignment + waiting) * self._factor)
        self._emitted = 0

    def _process(self, engine: Engine, audio: NDArray[Any]) -> NDArray[Any]:
        port = self._port
        after = port.pushed + port.conversion.output_frames(len(audio))
        if self._blocks_are_hops and after % engine.step_samples:
            raise AudioFormatError(
                f"A block of {len(audio)} samples is no whole number of steps of "
                f"{engine.step_samples * 1000 / SAMPLE_RATE / self._clock:g} ms; with "
                "blocks_are_hops every block must be."
            )
        port.accept()
        due = after * self._port.output_rate // SAMPLE_RATE - self._emitted
        out, frames = port.empty(due)
        done = 0
        for start in range(0, len(audio), CHUNK_FRAMES):
            port.push(audio[start : start + CHUNK_FRAMES])
            self._run(engine)
            done += port.pull_into(frames[done:])
        self._emitted += due
        return out

    def _run(self, engine: Engine) -> None:
        """Take every step that waits whole."""
        # Another thread may close the upsampler meanwhile.
        octaves = self._octaves
        while self._port.waiting >= engine.step_samples:
            take_rows(self._ports, _ROW, self._planar)
            np.copyto(self._audio, self._planar.T)
            started = time.perf_counter_ns()
            engine.step(self._audio, self._enhanced)
            self._adds[0] = engine.adds[0]
            finished = self._enhanced
            if octaves is not None:
                finished = octaves.step(finished)
                self._adds |= octaves.adds
            self._statistics.record_step(time.perf_counter_ns() - started)
            self._statistics.added_steps += int(self._adds[0])
            np.copyto(self._finished, finished.T)
            emit_rows(self._ports, _ROW, self._finished, self._adds)

    def _find_latency(self, alignment: int | None = None) -> Latency:
        """Of the present input rate, and of the padding that the stream began with."""
        return stream_latency(
            self.input_rate,
            self._output_rate,
            self._audio.shape[0],
            self._overlap,
            waits_for_hop=not self._blocks_are_hops,
            alignment=alignment,
            octaves=0 if self._octaves is None else self._octaves.delay,
        )

    def _engines(self) -> list[Engine]:
        """Return the engine, and behind it that of the octaves beyond, where there are any."""
        engines = [self._running()]
        if self._octaves is not None:
            engines.append(self._octaves.engine)
        return engines

    def _told(self, target: float) -> float:
        """Return the ceiling in Hz that callers know, of the last engine's target."""
        return target * self._clock * self._factor

    def _set_ceiling(self, hz: float) -> None:
        """Let each engine end there, or where its own band does."""
        for engine, factor in zip(self._engines(), (1, self._factor), strict=False):
            engine.f_target = min(hz / (self._clock * factor), MAX_CUTOFF_HZ)

    def _scaled(self, hz: float | None) -> float | None:
        """Return what a frequency is on the engine's clock."""
        return None if hz is None else float(hz) / self._clock

    def _check_band(self, cutoff: float | None, ceiling: float | None) -> None:
        """Raise :class:`ArgumentError` unless these are frequencies that the engines can take."""
        if cutoff is not None:
            lowest, highest = MIN_CUTOFF_HZ * self._clock, MAX_CUTOFF_HZ * self._clock
            check_frequency("cutoff", cutoff, lowest, highest)
        if ceiling is not None:
            self._check_ceiling(ceiling)

    def _check_ceiling(self, hz: float) -> None:
        highest = max(MAX_CUTOFF_HZ, self._output_rate / 2)
        check_frequency("ceiling", hz, MIN_CUTOFF_HZ * self._clock, highest)

    def _resolve_colour(
        self, colour: Colour | AutoColour | str | None
    ) -> Colour | AutoColour | None:
        if colour is not None and self._clock > 1.0:
            raise ArgumentError(
                "A colour is learnt for inputs up to 48 kHz; leave it out for one of a higher rate."
            )
        return resolve_colour(colour, self._model)

    def __reduce__(self) -> Any:
        raise RtsrError(
            "An Upsampler cannot be copied or pickled, for its model runs in this process; make "
            "another one with the same arguments."
        )

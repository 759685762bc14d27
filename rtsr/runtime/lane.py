"""The way of one stream through a batch: from a ring of waiting samples to a ring of finished ones.

Between the rings everything is done by whichever thread steps the batch; other threads may write
the first ring and read the second at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rtsr.latency import ENGINE_RATE, Latency
from rtsr.runtime.engine import CutoffSource, Engine
from rtsr.runtime.slot_source import SlotSource
from rtsr.runtime.slots import SlotStep
from rtsr.runtime.statistics import Statistics
from rtsr_kernels.resample import StreamingResampler
from rtsr_kernels.ring import Ring

Audio = NDArray[np.float32]


class Lane:
    """One stream inside a batch.

    A step of the batch is :meth:`begin` for every lane that is due, one run of the batch, then
    :meth:`finish` for the same lanes.

    Args:
        step: the graph of the batch.
        slots: the slot of each channel.
        incoming: samples at 48 kHz that wait for a step; this lane is the reading side.
        outgoing: finished samples at ``latency.output_rate``; this lane is the writing side.
        new_cutoff_source: makes what says for each hop where its content ends.
        native_hz: Hz above which the input holds nothing.
        f_target: Hz where the output should end.
        wet: gain of the generated band.
        seed: of the noise.
        latency: of the stream; its alignment pads the beginning.
        statistics: counters of this stream.

    Attributes:
        slots: the slot of each channel.
        held_steps: steps of the batch that this stream sat out, since it had no whole step waiting
            or nobody took its output.
        emitted: samples written to ``outgoing`` so far.
        end: how many are to be written in total, once that is known; until then ``None``.
    """

    def __init__(
        self,
        step: SlotStep,
        slots: Sequence[int],
        incoming: Ring,
        outgoing: Ring,
        new_cutoff_source: Callable[[], CutoffSource],
        *,
        native_hz: float,
        f_target: float,
        wet: float,
        seed: int,
        latency: Latency,
        statistics: Statistics,
    ) -> None:
        self.slots = tuple(slots)
        self.held_steps = 0
        self.emitted = 0
        self.end: int | None = None
        self._incoming = incoming
        self._outgoing = outgoing
        self._source = SlotSource(step, slots, seed, statistics)
        self._statistics = statistics
        self._engine = Engine(self._source, new_cutoff_source, native_hz, f_target, wet, statistics)
        channels = len(self.slots)
        self._audio: Audio = np.zeros((self._engine.step_samples, channels), np.float32)
        self._enhanced: Audio = np.zeros_like(self._audio)
        self._after = StreamingResampler(ENGINE_RATE, latency.output_rate, channels)
        self._narrowed: Audio = np.zeros_like(self._audio)
        if latency.alignment:
            self._emit(np.zeros((latency.alignment, channels), np.float32))

    @property
    def is_due(self) -> bool:
        """Whether a step waits, whole or the rest of a finished stream, and its output has room."""
        if self._outgoing.writable < len(self._audio):
            return False
        if self.end is not None:
            return self.emitted < self.end
        return self._incoming.readable >= len(self._audio)

    @property
    def cutoff_hz(self) -> float:
        """Hz where the content of the newest hop ends."""
        return self._engine.cutoff_hz

    @property
    def wet(self) -> float:
        """Gain of the generated band; a change is faded over one hop."""
        return self._engine.wet

    @wet.setter
    def wet(self, value: float) -> None:
        self._engine.wet = value

    @property
    def f_target(self) -> float:
        """Hz where the output should end; a change counts from the next step on."""
        return self._engine.f_target

    @f_target.setter
    def f_target(self, value: float) -> None:
        self._engine.f_target = value

    def begin(self) -> None:
        """Take a step's samples, measure them and put them into the slots."""
        ready = min(self._incoming.readable, len(self._audio))
        self._incoming.read(self._audio[:ready])
        self._audio[ready:] = 0.0
        self._source.prepare(self._audio, self._engine.measure(self._audio), self._engine.f_target)

    def finish(self) -> None:
        """Collect what the batch made of it and pass the finished samples on."""
        started = time.perf_counter_ns()
        self._engine.enhance(self._audio, self._enhanced)
        self._statistics.record_step(time.perf_counter_ns() - started)
        self._emit(self._enhanced)

    def release(self) -> None:
        """Leave the slots silent, since the batch goes on running them."""
        self._source.silence()

    def _emit(self, audio: Audio) -> None:
        if self._after.output_rate != ENGINE_RATE:
            frames = self._after.process_into(audio, self._narrowed)
            audio = self._narrowed[:frames]
        if self.end is not None:
            audio = audio[: max(0, self.end - self.emitted)]
        self.emitted += self._outgoing.write(audio)

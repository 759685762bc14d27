"""Many independent streams through one model, stepped together as one batch."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rtsr.arguments import check_arguments, check_audio_format
from rtsr.bandwidth import BandwidthDetector
from rtsr.batch_stream import RESERVED_FRAMES, BatchStream
from rtsr.errors import RtsrError
from rtsr.latency import ENGINE_RATE, Latency, alignment_samples
from rtsr.runtime.engine import CutoffSource, FixedCutoff
from rtsr.runtime.lane import Lane
from rtsr.runtime.models import Model
from rtsr.runtime.slots import SlotStep
from rtsr.runtime.statistics import Statistics
from rtsr_kernels.resample import StreamingResampler
from rtsr_kernels.ring import Ring

MAX_CAPACITY = 16384
_MIN_BUFFER_MS, _MAX_BUFFER_MS = 20, 60_000
_WARM_UP_STEPS = 4
# Per stream; a batch may hold thousands.
_KEPT_STEPS = 1024


class BatchUpsampler:
    """Streams that come and go, all stepped by one run of the model.

    The capacity is fixed, since a session has one static shape: a step costs the same whether one
    slot is taken or all. Every stream has its own rate, channels, cutoff, gain and seed, and gives
    what it would give alone in an :class:`~rtsr.upsampler.Upsampler`, but for the rounding of
    matrix products whose size depends on the batch (below 1e-5; measured below 1e-6).

    >>> with rtsr.BatchUpsampler(16) as batch:                   # doctest: +SKIP
    ...     call = batch.open(8000)
    ...     call.push(packet)                                    # float32 (80,), any length
    ...     batch.step()
    ...     wide = call.pull()                                   # float32 (480,)

    ``step`` belongs to one thread at a time; ``open`` and ``close`` may be called from any, they
    wait for a step that is under way.

    Args:
        capacity: slots, one for each channel of each stream; 1 to 16384.
        model, provider, hops_per_step, threads: as for ``Upsampler``; ``model`` must be a network.
        buffer_ms: how much sound may wait on either side of a stream, 20 to 60000 ms.

    Attributes:
        statistics: times of whole steps, all streams together.

    Raises:
        ModelError, ProviderError, MissingDependencyError: the model cannot be run.
        RtsrError: any other argument out of range.
    """

    def __init__(
        self,
        capacity: int,
        *,
        model: Model | str | Path = "small",
        provider: str = "auto",
        hops_per_step: int = 1,
        threads: int = 1,
        buffer_ms: int = 250,
    ) -> None:
        check_arguments(hops_per_step, 0, 1.0, None, None, threads)
        _check_range("A batch", "slots", capacity, 1, MAX_CAPACITY)
        _check_range("A stream's buffer", "ms", buffer_ms, _MIN_BUFFER_MS, _MAX_BUFFER_MS)
        self.capacity = int(capacity)
        self.statistics = Statistics()
        step = SlotStep(
            model,
            slots=self.capacity,
            provider=provider,
            hops_per_step=hops_per_step,
            threads=threads,
        )
        for _ in range(_WARM_UP_STEPS):
            step.run()
        step.reset()
        self._step: SlotStep | None = step
        self.model = step.model
        self.provider = step.provider
        self.step_samples = step.audio.shape[2]
        waiting = ENGINE_RATE * int(buffer_ms) // 1000 + 2 * self.step_samples + RESERVED_FRAMES
        self._ring_frames = Ring.capacity_for(waiting)
        self._lock = threading.Lock()
        # The lowest free slot last, for pop.
        self._free = list(range(self.capacity))[::-1]
        self._streams: list[BatchStream] = []
        self._due: list[Lane] = []
        self._held: list[int] = []

    @property
    def streams(self) -> tuple[BatchStream, ...]:
        """The streams that are open, oldest first."""
        return tuple(self._streams)

    @property
    def free(self) -> int:
        """Slots that no stream has: so many more channels can be opened."""
        return len(self._free)

    def open(
        self,
        input_rate: int,
        *,
        channels: int = 1,
        seed: int = 0,
        wet: float = 1.0,
        cutoff: float | None = None,
        ceiling: float | None = None,
        output_rate: int = ENGINE_RATE,
        expected_cutoff: float | None = None,
    ) -> BatchStream:
        """Let a stream join; it takes part from the next step on. The others notice nothing.

        Args:
            input_rate, channels, seed, wet, cutoff, ceiling, output_rate, expected_cutoff: as for
                :class:`~rtsr.upsampler.Upsampler`.

        Raises:
            AudioFormatError: a rate or channel count that is not accepted.
            RtsrError: an argument out of range, no slots free, or the batch is closed.
        """
        check_audio_format(input_rate, output_rate, channels)
        check_arguments(1, seed, wet, cutoff, ceiling, 1)
        step = self._running()
        slots = self._take_slots(int(channels))
        try:
            stream = self._new_stream(
                step,
                slots,
                StreamingResampler(int(input_rate), ENGINE_RATE, int(channels)),
                int(output_rate),
                lambda: _cutoff_source(input_rate / 2, cutoff, expected_cutoff),
                step.metadata.f_target_default if ceiling is None else float(ceiling),
                float(wet),
                int(seed),
            )
        except BaseException:
            with self._lock:
                self._free.extend(slots)
            raise
        with self._lock:
            # Now, not before: the batch has been running the free slots all the time.
            self._running().clear(slots)
            self._streams.append(stream)
        return stream

    def step(self) -> int:
        """Advance by one step every stream that has a whole one waiting; returns how many.

        A stream that has none keeps its state as it is. Where streams arrive in step, call it once
        per hop; where several hops may wait, call it until it returns 0.

        Raises:
            RtsrError: the batch is closed.
        """
        with self._lock:
            step = self._running()
            started = time.perf_counter_ns()
            due, held = self._due, self._held
            due.clear()
            held.clear()
            for stream in self._streams:
                lane = stream.lane
                if lane.is_due:
                    due.append(lane)
                else:
                    held.extend(lane.slots)
            if not due:
                return 0
            for lane in due:
                lane.begin()
            step.run()
            step.hold(held)
            for lane in due:
                lane.finish()
            self._count_held(due)
            self.statistics.record_step(time.perf_counter_ns() - started)
            return len(due)

    def close(self) -> None:
        """Close all streams and let go of the model; the batch cannot be used after that."""
        for stream in self.streams:
            stream.close()
        with self._lock:
            self._step = None

    def __enter__(self) -> BatchUpsampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _running(self) -> SlotStep:
        if self._step is None:
            raise RtsrError("This BatchUpsampler is closed; make a new one.")
        return self._step

    def _count_held(self, due: list[Lane]) -> None:
        if len(due) == len(self._streams):
            return
        for stream in self._streams:
            if stream.lane not in due:
                stream.lane.held_steps += 1

    def _take_slots(self, channels: int) -> list[int]:
        with self._lock:
            self._running()
            if channels > len(self._free):
                raise RtsrError(
                    f"A stream of {channels} {_plural('channel', channels)} does not fit: "
                    f"{len(self._free)} of {self.capacity} slots are free; close a stream or make "
                    "a larger batch."
                )
            return [self._free.pop() for _ in range(channels)]

    def _new_stream(
        self,
        step: SlotStep,
        slots: list[int],
        before: StreamingResampler,
        output_rate: int,
        new_cutoff_source: Callable[[], CutoffSource],
        f_target: float,
        wet: float,
        seed: int,
    ) -> BatchStream:
        channels = before.channels
        incoming, outgoing = Ring(self._ring_frames, channels), Ring(self._ring_frames, channels)
        statistics = Statistics(_KEPT_STEPS)
        overlap = step.metadata.overlap
        latency = Latency(
            resampler=before.delay,
            hop=self.step_samples,
            overlap=overlap,
            alignment=alignment_samples(before.delay + overlap + self.step_samples, output_rate),
            output_resampler=StreamingResampler(ENGINE_RATE, output_rate, channels).delay,
            output_rate=output_rate,
        )
        lane = Lane(
            step,
            slots,
            incoming,
            outgoing,
            new_cutoff_source,
            native_hz=before.input_rate / 2,
            f_target=f_target,
            wet=wet,
            seed=seed,
            latency=latency,
            statistics=statistics,
        )
        return BatchStream(lane, incoming, outgoing, before, latency, statistics, self._remove)

    def _remove(self, stream: BatchStream) -> None:
        with self._lock:
            self._streams.remove(stream)
            stream.lane.release()
            self._free.extend(reversed(stream.lane.slots))


def _cutoff_source(
    native_hz: float, cutoff: float | None, expected_cutoff: float | None
) -> CutoffSource:
    if cutoff is not None:
        return FixedCutoff(float(cutoff))
    return BandwidthDetector(ENGINE_RATE, initial_hz=expected_cutoff, native_hz=native_hz)


def _check_range(what: str, unit: str, value: int, lowest: int, highest: int) -> None:
    try:
        operator.index(value)
    except TypeError:
        raise RtsrError(f"{what} has a whole number of {unit}, not {value!r}.") from None
    if not lowest <= value <= highest:
        raise RtsrError(f"{what} has {lowest} to {highest} {unit}, not {value}.")


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"

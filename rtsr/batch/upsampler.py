"""Many independent streams through one model, stepped together as one batch."""

from __future__ import annotations

import operator
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtsr.arguments import check_arguments, check_audio_format, check_expected_cutoff
from rtsr.batch.many import Packets
from rtsr.batch.row_levels import DRY_INDEX, NETWORK_INDEX, REPLICATE_INDEX, RowStep
from rtsr.batch.rows import BatchRows
from rtsr.batch.shedding import Plan, Shedding
from rtsr.batch.slots import SlotStep
from rtsr.batch.stream import BatchStream
from rtsr.closing import Closing
from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.engine.colour_learner import resolve_colour
from rtsr.engine.ports import INPUT_HISTORY, BlockPort
from rtsr.engine.statistics import Statistics
from rtsr.errors import ArgumentError, RtsrError
from rtsr.runtime.models import Model, check_up_to_48_khz
from rtsr.timing import HOP, SAMPLE_RATE, Latency
from rtsr_kernels.ports import (
    emit_rows,
    find_due,
    longest_wait,
    put_two_steps_first,
    take_rows,
)

Audio = NDArray[np.float32]

MAX_CAPACITY = 16384
OVERLOAD = ("shed", "wait")
_MIN_BUFFER_MS, _MAX_BUFFER_MS = 20, 60_000
# A stream has no step times of its own.
_KEPT_STEPS = 1


class BatchUpsampler(Closing):
    """Streams that come and go, all stepped by one run of the model.

    The capacity is fixed. On the CPU a step runs the slots that are due and no others; on a GPU,
    where a session has one static shape, it costs the same whether one is due or all. Every stream
    has its own rate, channels, cutoff, gain and seed, and gives what it would give alone in an
    :class:`~rtsr.upsampler.Upsampler`, but for the rounding of matrix products, whose size is the
    number of slots that are run (below 1e-5; measured below 1e-6). An int8 model turns a last bit
    into the next of its 256 codes now and then, which is heard as little (measured 2e-4).

    >>> with rtsr.BatchUpsampler(16) as batch:                   # doctest: +SKIP
    ...     call = batch.open(8000)
    ...     call.push(packet)                                    # float32 (160,), any length
    ...     while batch.step():
    ...         pass
    ...     wide = call.pull()                                   # float32 (960,)

    ``step`` belongs to one thread at a time; ``open`` and ``close`` may be called from any, they
    wait for a step that is under way.

    Args:
        capacity: slots, one for each channel of each stream; 1 to 16384.
        model, provider, hops_per_step, threads: as for ``Upsampler``; ``model`` must be a network.
        buffer_ms: how much sound may wait on either side of a stream, 20 to 60000 ms.
        overload: ``shed``: where steps take longer than the sound they are worth and more than
            60 ms of it wait beyond what the step takes, the batch does without its network until it
            has caught up: first with ``replicate``, then dry, cross-faded and counted in every
            stream's ``statistics``; after a second without arrears the network is tried again.
            ``wait``: it never does, as for files, which have time.

    Raises:
        ModelError, ProviderError, MissingDependencyError: the model cannot be run.
        RtsrError: any other argument out of range.
    """

    __slots__ = (
        "__weakref__",
        "_capacity",
        "_due",
        "_engine",
        "_held",
        "_high_bands",
        "_histories",
        "_most_hops",
        "_out",
        "_packets",
        "_parts",
        "_ports",
        "_provider",
        "_rows",
        "_shedding",
        "_spare",
        "_statistics",
        "_step",
        "_streams",
    )

    def __init__(
        self,
        capacity: int,
        *,
        model: Model | str | Path = "small",
        provider: str = "auto",
        hops_per_step: int = 1,
        threads: int = 1,
        buffer_ms: int = 250,
        overload: str = "shed",
    ) -> None:
        check_arguments(hops_per_step, 0, 1.0, None, None, threads)
        _check_range("A batch", "slots", capacity, 1, MAX_CAPACITY)
        _check_range("A stream's buffer", "ms", buffer_ms, _MIN_BUFFER_MS, _MAX_BUFFER_MS)
        if overload not in OVERLOAD:
            raise ArgumentError(f"overload must be one of {', '.join(OVERLOAD)}, not {overload!r}.")
        check_up_to_48_khz(model)
        self._capacity = int(capacity)
        self._statistics = Statistics()
        step = SlotStep(
            model,
            slots=self._capacity,
            provider=provider,
            hops_per_step=int(hops_per_step),
            threads=int(threads),
        )
        self._step: SlotStep | None = step
        self._provider = step.provider
        self._rows = rows = BatchRows(step, int(hops_per_step), int(buffer_ms))
        self._most_hops = len(rows.parts) * rows.step_samples // HOP
        # At hand for the step.
        self._engine, self._high_bands = rows.engine, rows.high_bands
        self._parts, self._ports = rows.parts, rows.ports
        # Of the conversions of streams of one channel, side by side so that one call serves many.
        self._histories: Audio = np.zeros((self._capacity, INPUT_HISTORY), np.float32)
        self._packets = Packets(self._ports, self._histories)
        self._out: Audio = np.zeros_like(self._parts[0])
        self._due = np.zeros(self._capacity, np.int64)
        self._spare = np.zeros(self._capacity, np.int64)
        self._held = np.zeros(self._capacity, np.int64)
        self._shedding = Shedding(
            self._high_bands.replicate.ms_per_hop() if overload == "shed" else 0.0,
            self._capacity,
            int(hops_per_step),
            is_allowed=overload == "shed",
        )
        self._streams: dict[int, BatchStream] = {}

    @property
    def capacity(self) -> int:
        """Slots, one for each channel of each stream."""
        return self._capacity

    @property
    def model(self) -> Model:
        """What makes the high bands."""
        return self._rows.model

    @property
    def provider(self) -> str:
        """What runs the model: ``cpu``, ``cuda`` or ``tensorrt``."""
        return self._provider

    @property
    def step_samples(self) -> int:
        """Samples at 48 kHz of a step."""
        return self._rows.step_samples

    @property
    def most_hops(self) -> int:
        """Hops of 10 ms that one step may take of a stream."""
        return self._most_hops

    @property
    def statistics(self) -> Statistics:
        """Times of whole steps, all streams together."""
        return self._statistics

    @property
    def streams(self) -> tuple[BatchStream, ...]:
        """The streams that are open, oldest first."""
        return tuple(self._streams.values())

    @property
    def level(self) -> str:
        """What streams put out now: ``network``, ``replicate`` or ``dry``.

        One that comes to it later than others follows in the first of its own steps, to the network
        after 20 hops of sound.
        """
        return self._shedding.level

    @property
    def free(self) -> int:
        """Slots that no stream has: so many more channels can be opened."""
        return self._rows.free

    def open(
        self,
        input_rate: int,
        *,
        channels: int = 1,
        seed: int = 0,
        wet: float = 1.0,
        cutoff: float | None = None,
        ceiling: float | None = None,
        output_rate: int = SAMPLE_RATE,
        expected_cutoff: float | None = None,
        limiter: bool = True,
        channels_first: bool = False,
        colour: Colour | AutoColour | str | None = None,
    ) -> BatchStream:
        """Let a stream join; it takes part from the next step on. The others notice nothing.

        This takes some 0.1 ms, after a step that is under way: an event loop that should not wait
        for it calls ``await asyncio.to_thread(batch.open, 8000)``.

        Args:
            input_rate: Hz of what is pushed; this and all others as for
                :class:`~rtsr.upsampler.Upsampler`.
            channels: 1 to 8; each takes a slot.
            seed: of the noise.
            wet: gain of the generated band, 0 to 1.
            cutoff: Hz where the content of the input ends; ``None`` measures it.
            ceiling: Hz where the output ends; ``None`` leaves that to the model.
            output_rate: Hz of what is pulled.
            expected_cutoff: Hz where the measuring begins.
            limiter: whether what exceeds -1 dBFS is turned down.
            channels_first: whether blocks are ``(channels, samples)``.
            colour: of the generated band, ``auto`` to learn it.

        Raises:
            AudioFormatError: a rate or channel count that is not accepted.
            ArgumentError: a value is out of its range.
            BatchFullError: not enough slots are free.
            RtsrError: the batch is closed.
        """
        check_audio_format(input_rate, output_rate, channels)
        check_arguments(1, seed, wet, cutoff, ceiling, 1)
        # Else it is the step that fails, and with it those of all other streams.
        check_expected_cutoff(expected_cutoff)
        found = resolve_colour(colour, self.model)
        rows = self._rows
        with rows.lock:
            self._running()
            row, slots = rows.take(int(channels))
            try:
                statistics = Statistics(_KEPT_STEPS)
                port = BlockPort(
                    rows.ports,
                    row,
                    slots,
                    int(input_rate),
                    int(output_rate),
                    int(output_rate),
                    bool(limiter),
                    statistics,
                    bool(channels_first),
                    "this stream",
                    self._histories[slots[0] : slots[0] + 1] if channels == 1 else None,
                )
                alignment = rows.latency(int(input_rate), int(output_rate)).alignment
                port.emit_silence(alignment)
                rows.begin(
                    row,
                    slots,
                    self.level,
                    native_hz=input_rate / 2,
                    seed=int(seed),
                    wet=float(wet),
                    cutoff=None if cutoff is None else float(cutoff),
                    ceiling=None if ceiling is None else float(ceiling),
                    expected_cutoff=None if expected_cutoff is None else float(expected_cutoff),
                    colour=found,
                )
            except BaseException:
                # Else nobody could ever have this place again.
                rows.give_back(row, slots)
                raise
            stream = BatchStream(
                rows, row, slots, port, statistics, alignment, forget=self._streams.pop
            )
            self._streams[row] = stream
        return stream

    def step(self) -> int:
        """Advance every stream that has a whole step waiting; returns how many.

        By one step or, on one thread of a CPU, by two where two wait and a step is one hop, as
        after a packet of 20 ms: one run of the network for two hops is shorter than two runs. A
        stream that has none keeps its state as it is. Where more may wait, call it until it
        returns 0.

        Raises:
            RtsrError: the batch is closed.
        """
        with self._rows.lock:
            self._running()
            started = time.perf_counter_ns()
            count, held_count = find_due(
                self._ports, self._rows.step_samples, self._due, self._held
            )
            if not count:
                return 0
            due, held = self._due[:count], self._held[:held_count]
            waiting = longest_wait(self._ports, due)
            two = 0
            if len(self._parts) > 1:
                two = put_two_steps_first(self._ports, self._rows.step_samples, due, self._spare)
            plan = self._shedding.plan(
                1000.0 * waiting / SAMPLE_RATE,
                int(self._high_bands.values["channels"][due].sum()),
                due,
                two,
            )
            for rows, steps in ((due[:two], 2), (due[two:], 1)):
                if len(rows):
                    self._advance(plan, rows, held, steps)
            elapsed = time.perf_counter_ns() - started
            self._shedding.record(elapsed * 1e-6)
            self._statistics.record_step(elapsed)
            return count

    def push_many(self, streams: Sequence[BatchStream], blocks: ArrayLike) -> None:
        """Push a packet into each of many streams, which have one channel, in one compiled call.

        It does what ``stream.push(block)`` would do for each, to the bit, in a fraction of the
        time: a server with hundreds of calls spends longer on those than on their steps.

        Args:
            streams: of this batch, each once; of one rate or several.
            blocks: ``(streams, samples)`` float32 in [-1, 1] or int16, or a sequence of as long
                packets; an array is read where it lies.

        Raises:
            ArgumentError: a stream of another batch or of several channels, or one twice.
            AudioFormatError: the blocks have another shape, or hold other integers.
            RtsrError: a stream is closed or finished, or has no room for its block; nothing was
                taken of any then.
        """
        self._packets.push(streams, blocks)

    def pull_many(self, streams: Sequence[BatchStream], out: NDArray[Any]) -> NDArray[np.int64]:
        """Move finished samples of each of many streams into the front of its row of ``out``.

        It does what ``stream.pull_into`` would do for each.

        Args:
            streams: of this batch, with one channel.
            out: ``(streams, samples)`` float32 or int16.

        Returns:
            how many samples each of them gave, ``(streams,)``.

        Raises:
            ArgumentError: a stream of another batch or of several channels, or one twice.
            AudioFormatError: ``out`` has another shape or type.
            RtsrError: a stream is closed.
        """
        return self._packets.pull(streams, out)

    def latency(
        self, input_rate: int, output_rate: int = SAMPLE_RATE, alignment: int | None = None
    ) -> Latency:
        """Return the latency of a stream of these rates in Hz, in parts.

        ``alignment`` is that of a stream that began with another input rate.
        """
        return self._rows.latency(input_rate, output_rate, alignment)

    def prepare_thread(self) -> None:
        """Take what is slow in a thread's first step on a GPU; for the thread that will step."""
        with self._rows.lock:
            self._running().prepare_thread()

    def close(self) -> None:
        """Close all streams and let go of the model; the batch cannot be used after that."""
        with self._rows.lock:
            # First, so that nobody opens another stream behind those that are closed here.
            self._step = None
        for stream in self.streams:
            stream.close()

    def __reduce__(self) -> Any:
        raise RtsrError(
            "A BatchUpsampler cannot be copied or pickled, for its model runs in this process; "
            "make another one with the same arguments."
        )

    def _running(self) -> SlotStep:
        if self._step is None:
            raise RtsrError("This BatchUpsampler is closed; make a new one.")
        return self._step

    def _advance(
        self, plan: Plan, rows: NDArray[np.int64], held: NDArray[np.int64], steps: int
    ) -> None:
        """Advance the streams in ``rows`` by so many steps, for which the network runs once."""
        parts = self._parts[:steps]
        for number, part in enumerate(parts):
            take_rows(self._ports, rows, part)
            f_prior = self._engine.begin_rows(rows, part, number)
            self._high_bands.prepare(plan, rows, f_prior, number)
        self._high_bands.run(rows, held)
        for number, part in enumerate(parts):
            made = self._high_bands.finish(rows, number)
            for row in made.unusable.tolist():
                self._engine.clear_filter(row)
                self._ports.values["degraded_hops"][row] += self._engine.hops
            self._say_levels(rows, made.levels)
            self._engine.finish_rows(rows, part, made.audio, self._out, number)
            emit_rows(self._ports, rows, self._out, self._engine.adds)

    def _say_levels(self, rows: NDArray[np.int64], levels: RowStep) -> None:
        """Have the engine, and who counts, know what the streams' high bands are made of."""
        if levels.all_network:
            self._engine.set_silent(rows, False)
            self._engine.set_coloured(rows, True)
            return
        before, after = levels.before, levels.after
        for level, hops in ((REPLICATE_INDEX, "replicate_hops"), (DRY_INDEX, "dry_hops")):
            self._ports.values[hops][rows[after == level]] += self._engine.hops
        self._engine.set_silent(rows, (before == DRY_INDEX) & (after == DRY_INDEX))
        # What another level makes is not what a colour was learnt for.
        self._engine.set_coloured(rows, after == NETWORK_INDEX)


def _check_range(what: str, unit: str, value: int, lowest: int, highest: int) -> None:
    try:
        operator.index(value)
    except TypeError:
        raise ArgumentError(f"{what} has a whole number of {unit}, not {value!r}.") from None
    if not lowest <= value <= highest:
        raise ArgumentError(f"{what} has {lowest} to {highest} {unit}, not {value}.")

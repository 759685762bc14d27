"""The worker: takes hops off the capture timeline, enhances them, puts them on the playback one.

Nothing here waits for the audio callback or makes it wait. A hop that comes too late is simply not
played; a worker that is gone leaves the callback playing the dry signal.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rtsr.bandwidth.detector import FULL_BAND_HZ
from rtsr.batch.shedding import DRY, REPLICATE
from rtsr.colour.colour import Colour
from rtsr.engine.statistics import Statistics
from rtsr.live.controls.board import ControlBoard
from rtsr.live.shared.events import RESTART, EventKind
from rtsr.live.shared.memory import STEP_BIN_NS, LiveMemory
from rtsr.live.shared.priority import hurry_worker, raise_worker
from rtsr.live.worker.chain import LiveChain
from rtsr.live.worker.fallback_levels import (
    build_octave_source,
    build_sources,
    coloured_levels,
    fallback_levels_of,
    replicate_end_hz,
    with_octaves,
)
from rtsr.live.worker.governor import Governor, GovernorSettings
from rtsr.live.worker.octave_chain import OctaveChain
from rtsr.live.worker.settings import WorkerSettings
from rtsr.runtime.models import find_model

Audio = NDArray[np.float32]
HopListener = Callable[[int, Audio, Audio], None]

# Short enough to add nothing that counts to a hop's 10 ms, long enough to cost next to nothing.
_SHORTEST_NAP = 0.0003
_LONGEST_NAP = 0.005
# A worker that comes in later goes through this much of the past before it is heard: its model
# and its detector then know where they are.
_LEAD_IN_HOPS = 8
_ACCOUNT_EVERY_HOPS = 50


class Worker:
    """One worker on one session's memory.

    Args:
        settings: what to build.
        on_hop: called with index, input and output of every hop before it is written; may change
            the output. For measurements.
        cpu_ns: the clock of the worker's own processor time: of its thread where it shares a
            process. In a process of its own that is the process', whose network may have more
            threads.

    Raises:
        ModelError, ProviderError, MissingDependencyError: a model cannot be run.
    """

    def __init__(
        self,
        memory: LiveMemory,
        settings: WorkerSettings,
        on_hop: HopListener | None = None,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._clock = memory.clock
        self._hop = memory.clock.hop
        self._capture = memory.capture
        self._playback = memory.playback
        self._events = memory.events
        self._callback = memory.callback
        self._histogram = memory.step_histogram
        self._words = memory.worker
        self._generation = int(self._words["generation"])
        self._most_behind = settings.most_hops_behind
        self._reserve = settings.reserve_frames
        self._on_hop = on_hop
        self._fallback_levels = fallback_levels_of(settings.model, self._clock.factor)
        self._statistics = Statistics()
        self._board = ControlBoard(memory.controls, self._fallback_levels)
        self._shared_colour = memory.colour
        self._taken_colour = 0.0
        self._facts = None if settings.model == DRY else find_model(settings.model).metadata
        self._chain = self._build_chain(settings)
        self._governor = Governor(
            self._fallback_levels,
            settings=GovernorSettings(fixed=not settings.governor),
            wanted=self._board.highest_level,
        )
        self._audio: Audio = np.zeros((self._hop, settings.channels), np.float32)
        self._out: Audio = np.zeros((self._hop, settings.channels), np.float32)
        self._before: Audio = np.zeros((self._chain.past, settings.channels), np.float32)
        self._due_from = 0
        self._stopped = False
        self._cpu_ns = cpu_ns
        self._cpu_before = int(self._words["cpu_ns"])

    def stop(self) -> None:
        """Ask the worker to end after the hop it is at; safe from a signal handler."""
        self._stopped = True

    def run(self, is_abandoned: Callable[[], bool] = lambda: False) -> None:
        """Work until :meth:`stop`, the session's word, or a successor.

        Args:
            is_abandoned: asked now and then; true ends the work, too.
        """
        self._is_abandoned = is_abandoned
        words = self._words
        words["pid"] = os.getpid()
        self._due_from = self._capture.written // self._hop
        hop = self._resume(self._due_from - _LEAD_IN_HOPS)
        self._tell_fallback_level(self._fallback_levels[int(words["fallback_level"])], RESTART, 0)
        self._beat()
        words["ready"] = self._generation
        self._events.write(time.monotonic_ns(), EventKind.WORKER_READY)
        while self._wait_for(hop):
            behind = self._capture.written // self._hop - (hop + 1)
            too_late = behind > self._most_behind and hop >= self._due_from
            if too_late or self._capture.read(hop * self._hop, self._audio) < self._hop:
                hop = self._skip_to_newest(hop)
                continue
            self._take(hop)
            hop += 1
            words["next_hop"] = hop
        self._account()

    def _build_chain(self, settings: WorkerSettings) -> LiveChain | OctaveChain:
        goes_beyond = self._clock.factor > 1
        sources, f_target = build_sources(settings, self._statistics)
        known_hz = self._known_cutoff()
        chain = LiveChain(
            sources,
            self._board,
            settings.channels,
            min(settings.native_hz, FULL_BAND_HZ),
            self._statistics,
            expected_cutoff_hz=known_hz,
            # An octave begins where the band below it ends; `replicate` goes no further than it
            # does by itself.
            f_target=FULL_BAND_HZ if goes_beyond else f_target,
            ends_hz={REPLICATE: replicate_end_hz()} if goes_beyond else None,
            limiter=settings.limiter and not goes_beyond,
            colour=self._new_colour(),
            coloured_levels=coloured_levels(settings.model),
        )
        if not goes_beyond:
            return chain
        return OctaveChain(
            chain,
            build_octave_source(settings, self._clock.factor, self._statistics),
            self._clock,
            settings.native_hz,
            self._statistics,
            with_octaves(settings.model, self._clock.factor),
            expected_cutoff_hz=known_hz,
            limiter=settings.limiter,
        )

    def _known_cutoff(self) -> float | None:
        """Return what the worker before this one had measured; measuring anew takes seconds."""
        return float(self._words["cutoff_hz"]) or None

    def _resume(self, hop: int) -> int:
        """Go on at a hop, or at the very first."""
        hop = max(0, hop)
        self._before.fill(0.0)
        if hop:
            self._capture.read(hop * self._hop - self._chain.past, self._before)
        self._chain.resume(hop, self._before)
        return hop

    def _skip_to_newest(self, hop: int) -> int:
        """Leave out what can no longer be in time; returns where to go on."""
        # Always on, also if this hop is the newest and cannot be read.
        newest = max(hop + 1, self._capture.written // self._hop - 1)
        self._words["overruns"] += newest - hop
        self._events.write(time.monotonic_ns(), EventKind.HOPS_SKIPPED, value=newest - hop)
        return self._resume(newest)

    def _over(self) -> bool:
        words = self._words
        return (
            self._stopped
            or bool(words["stop"])
            or words["generation"] != self._generation
            or self._is_abandoned()
        )

    def _beat(self) -> None:
        self._words["heartbeat_ns"] = time.monotonic_ns()

    def _wait_for(self, hop: int) -> bool:
        """Wait until a hop is captured; false when the worker is to end."""
        end = (hop + 1) * self._hop
        while not self._over():
            missing = end - self._capture.written
            if missing <= 0:
                return True
            self._beat()
            # What is missing comes in device blocks, at the latest when it has been played. Long
            # naps first, then short ones, so that few are needed and the last ends in time.
            nap = 0.6 * missing / self._clock.rate
            time.sleep(min(max(nap, _SHORTEST_NAP), _LONGEST_NAP))
        return False

    def _take(self, hop: int) -> None:
        started = time.perf_counter_ns()
        colour = self._new_colour()
        if colour is not None:
            self._chain.renew_colour(colour)
        self._chain.step(self._audio, self._out, self._governor.level)
        if self._on_hop is not None:
            self._on_hop(hop, self._audio, self._out)
        ready, late = self._hand_over(hop)
        elapsed = time.perf_counter_ns() - started
        self._count(hop, elapsed, late)
        self._governor.wanted = self._board.highest_level
        change = self._governor.observe(elapsed * 1e-6, ready, late)
        if change is not None:
            self._tell_fallback_level(change.from_level, change.cause, round(change.p99_ms * 1e6))

    def _new_colour(self) -> Colour | None:
        """Return what the session has learnt or read since the last time, if anything."""
        if self._facts is None:
            return None
        newest = self._shared_colour.take(
            self._taken_colour, self._facts.name, self._facts.weights_sha256
        )
        if newest is None:
            return None
        self._taken_colour, colour = newest
        return colour

    def _hand_over(self, hop: int) -> tuple[int | None, bool]:
        """Write a hop.

        Returns:
            frames at 48 kHz ready beyond the next block, and whether the hop is too late.
        """
        first = hop * self._hop
        # What a worker before this one has written stays: time goes forward only.
        if first < self._playback.written:
            return None, False
        if first > self._playback.written:
            self._playback.seek(first)
        self._playback.write(self._out)
        # Hops of the past are only gone through, and before the first callback nothing is due.
        if hop < self._due_from or not self._callback["callbacks"]:
            return None, False
        position = int(self._callback["played_position"])
        late = first < position
        # Of a device block that brought several hops only the last says what the next one finds.
        if self._capture.written >= (hop + 2) * self._hop:
            return None, late
        return (first + self._hop - position - self._reserve) // self._clock.factor, late

    def _tell_fallback_level(self, before: str, cause: int, value: int) -> None:
        """Publish the level, and how it came to be, if it is another than before."""
        fallback_level = self._governor.level
        if fallback_level == before:
            return
        source, target = (
            self._fallback_levels.index(before),
            self._fallback_levels.index(fallback_level),
        )
        now = time.monotonic_ns()
        self._events.write(now, EventKind.FALLBACK_LEVEL_CHANGED, source, target, cause, value)
        self._words["fallback_level"] = target

    def _count(self, hop: int, elapsed: int, late: bool) -> None:
        words = self._words
        self._beat()
        bins = len(self._histogram)
        self._histogram[min(elapsed // STEP_BIN_NS, bins - 1)] += 1
        if not words["steps"]:
            words["first_step_ns"] = elapsed
        if elapsed > words["max_step_ns"]:
            words["max_step_ns"] = elapsed
        words["steps"] += 1
        words["late_steps"] += late
        words["cutoff_hz"] = int(self._chain.cutoff_hz)
        words["colour_permille"] = round(1000.0 * self._chain.colour_share)
        if self._statistics.degraded_blocks:
            words["degraded"] += self._statistics.degraded_blocks
            self._statistics.degraded_blocks = 0
        if hop % _ACCOUNT_EVERY_HOPS == 0:
            self._account()

    def _account(self) -> None:
        self._words["cpu_ns"] = self._cpu_before + self._cpu_ns()


def import_everything() -> None:
    """Import now what a worker would import later: a copy of this process then starts at once."""
    from rtsr.engine import replicate  # noqa: F401
    from rtsr.errors import RtsrError
    from rtsr.runtime import session  # noqa: F401
    from rtsr.runtime.providers.select import load_onnxruntime

    # Its absence is an error only for a level that needs it.
    with contextlib.suppress(RtsrError):
        load_onnxruntime()


def worker_main(memory_name: str, settings: WorkerSettings) -> None:
    """Be the worker of that memory until told to stop; for a process of its own.

    Raises:
        RtsrError: there is no such memory, or a model cannot be run.
    """
    parent = os.getppid()
    with LiveMemory.attach(memory_name) as memory:
        worker = make_worker(memory, settings, cpu_ns=time.process_time_ns)
        signal.signal(signal.SIGTERM, lambda number, frame: worker.stop())
        # What exists by now stays until the end: no collection may go through it between hops.
        gc.collect()
        gc.freeze()
        gc.disable()
        # Without the parent nobody would end it when the session does; the guard starts another.
        worker.run(lambda: os.getppid() != parent)


def make_worker(
    memory: LiveMemory,
    settings: WorkerSettings,
    on_hop: HopListener | None = None,
    cpu_ns: Callable[[], int] = time.thread_time_ns,
) -> Worker:
    """Return a worker that is ready to run, in the calling thread, which is set up for it.

    The arguments are those of :class:`Worker`.

    Raises:
        RtsrError: a model cannot be run.
    """
    from rtsr_kernels.denormals import flush_denormals

    words = memory.worker
    words["flushes_denormals"] = flush_denormals()
    if not settings.raise_priority:
        words["priority"] = 0
        return Worker(memory, settings, on_hop, cpu_ns)
    hurry_worker()
    worker = Worker(memory, settings, on_hop, cpu_ns)
    words["priority"] = raise_worker()
    return worker

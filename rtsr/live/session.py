"""A live session: device in, engine, device out, for hours, and what it has to say about itself."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour
from rtsr.engine.colour_learner import resolve_colour
from rtsr.errors import ArgumentError, RtsrError
from rtsr.live.colour_learning import ColourLearning
from rtsr.live.controls.board import ControlBoard
from rtsr.live.device import portaudio
from rtsr.live.device.latency import StreamLatency
from rtsr.live.device.latency_polling import LatencyPolling
from rtsr.live.device.stream import DeviceStream
from rtsr.live.device.stream_format import (
    StreamFormat,
    StreamRequest,
    choose_format,
    find_devices,
)
from rtsr.live.monitor import figures
from rtsr.live.monitor.colour_state import ColourMonitor, ColourState
from rtsr.live.monitor.history import FallbackHistory
from rtsr.live.monitor.meters import Meters, levels_db, spectrum_db
from rtsr.live.monitor.report import STEP_BIN_MS, WAITING, LiveSnapshot, percentile
from rtsr.live.settings import LiveSettings
from rtsr.live.shared.memory import LiveMemory
from rtsr.live.shared.priority import describe, raised_for_new_threads
from rtsr.live.shared.timing import TIMELINE_RATES, timeline_rate
from rtsr.live.supervisor import DeviceGuard, Guard, WorkerGuard
from rtsr.live.worker.fallback_levels import fallback_levels_of
from rtsr.live.worker.process import WorkerProcess
from rtsr.live.worker.settings import WorkerSettings
from rtsr.live.worker.thread import WorkerThread
from rtsr.live.worker.worker import HopListener
from rtsr.runtime.models import find_model
from rtsr.timing import SAMPLE_RATE

_READY_SECONDS = 60.0
_HISTORY_SECONDS = 0.2
_SHOWN_CHANGES = 8
_SILENT_SECONDS = 0.5


class LiveSession:
    """The engine between two audio devices.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. The sound needs nothing
    from the program meanwhile; :attr:`controls` may be turned at any time from any one thread.

    Args:
        settings: devices, model, where the worker runs.
        on_hop: with ``worker="thread"``: called there with index, input and output of every hop
            before it is played; may change the output.

    Raises:
        ArgumentError: a setting that no machine could follow, or an unknown control.
        ModelError: an unknown model.
    """

    __slots__ = (
        "__weakref__",
        "_board",
        "_colour",
        "_colour_monitor",
        "_cpu_before",
        "_device_guard",
        "_fallback_levels",
        "_final",
        "_history",
        "_host",
        "_latency_polling",
        "_looking",
        "_memory",
        "_meters",
        "_on_hop",
        "_request",
        "_settings",
        "_started_ns",
        "_stream",
        "_undo",
        "_worker_guard",
    )

    def __init__(self, settings: LiveSettings, *, on_hop: HopListener | None = None) -> None:
        settings.check()
        if on_hop is not None and settings.worker != "thread":
            raise ArgumentError("Only a worker in a thread calls back; use worker='thread'.")
        self._settings = settings
        self._request = StreamRequest(
            input_device=settings.input_device,
            output_device=settings.output_device,
            rate=settings.rate,
            output_rate=settings.output_rate,
            block=settings.block,
            sample_format=settings.sample_format,
            allowance_ms=settings.allowance_ms,
        )
        self._request.check()
        self._fallback_levels = fallback_levels_of(str(settings.model))
        self._colour: Colour | AutoColour | None = None
        if settings.colour is not None:
            self._colour = resolve_colour(settings.colour, find_model(settings.model))
        self._on_hop = on_hop
        self._looking = threading.Lock()
        # Checked before anything is opened, as far as that can be without a device's rate.
        self._turn_controls(ControlBoard(None, self._fallback_levels, TIMELINE_RATES[-1] / 2))
        # Set while the session runs.
        self._memory: LiveMemory | None = None
        self._final: dict[str, Any] | None = None

    def start(self) -> None:
        """Load and warm everything, then open the devices; returns when sound is running.

        Raises:
            RtsrError: a device or the worker does not start; nothing is left behind then. Or the
                session runs already.
        """
        if self._memory is not None:
            raise RtsrError("This live session runs already; call stop() first.")
        chosen = self._choose_format()
        rate = timeline_rate(chosen.rates[1])
        self._settings = replace(self._settings, channels=chosen.channels)
        with contextlib.ExitStack() as undo:
            memory = undo.enter_context(LiveMemory.create(chosen.channels, rate))
            self._fallback_levels = fallback_levels_of(
                str(self._settings.model), memory.clock.factor
            )
            self._board = ControlBoard(memory.controls, self._fallback_levels, rate / 2)
            self._board.reset()
            self._turn_controls(self._board)
            memory.worker["fallback_level"] = self._fallback_levels.index(self._board.highest_level)
            known = self._known_colour()
            if known is not None:
                memory.colour.write(known)
            self._host = self._new_host(memory)
            undo.callback(self._host.close)
            undo.callback(memory.worker.__setitem__, "stop", 1)
            self._host.prepare()
            self._stream = _RaisedStream(
                memory, self._request, chosen, raised=self._settings.raise_priority
            )
            undo.callback(self._stream.close)
            self._worker_guard = WorkerGuard(memory, self._host, self._for_worker())
            self._worker_guard.start_worker()
            self._worker_guard.wait_until_ready(_READY_SECONDS)
            self._meters = Meters(memory)
            self._cpu_before = time.process_time()
            self._started_ns = time.monotonic_ns()
            self._history = FallbackHistory(
                memory.events, self._fallback_levels, self._started_ns, self._board.highest_level
            )
            self._stream.start()
            self._latency_polling = LatencyPolling(self._stream)
            self._device_guard = DeviceGuard(self._stream, self._reopened)
            guards: list[Guard] = [_Follower(self._history)]
            self._colour_monitor = None if self._colour is None else ColourMonitor(self._colour)
            if isinstance(self._colour, AutoColour):
                guards.append(ColourLearning(memory, self._colour))
            if self._settings.watchdog:
                guards += [self._worker_guard, self._device_guard]
            for guard in guards:
                guard.start()
                undo.callback(guard.close)
            self._undo = undo.pop_all()
            self._memory = memory

    def stop(self) -> None:
        """End the sound, the worker and the guards; the report stays. May be called twice."""
        if self._memory is None:
            return
        try:
            self._final = self._report(self.latency)
        finally:
            self._memory = None
            self._undo.close()

    @property
    def settings(self) -> LiveSettings:
        """As they were given; with the number of channels that was chosen, once it has started."""
        return self._settings

    @property
    def fallback_levels(self) -> tuple[str, ...]:
        """Names of the fallback levels, best first."""
        return self._fallback_levels

    @property
    def controls(self) -> ControlBoard:
        """What can be turned while the sound runs."""
        self._running()
        return self._board

    @property
    def colour(self) -> Colour | AutoColour | None:
        """The colour, as it was given; ``learnt`` of an ``AutoColour`` is what can be saved."""
        return self._colour

    @property
    def latency(self) -> StreamLatency:
        """The latency in parts, as the configuration and the devices give it at this moment.

        Raises:
            RtsrError: the session does not run.
        """
        self._running()
        # JACK's connections change it while the sound runs.
        return self._stream.refresh_latency()

    def snapshot(self) -> LiveSnapshot:
        """Return what a screen shows, as of now; from any thread.

        Raises:
            RtsrError: the session does not run.
        """
        memory = self._running()
        # The timelines still hold the last sound of a device that has gone.
        is_silent = self._device_guard.waiting or self._stream.silent_seconds > _SILENT_SECONDS
        # The meters have one place for the sound, and the screen and pages look at any time.
        with self._looking:
            captured, played = self._meters.silence() if is_silent else self._meters.newest()
            newest = self._meters.level_frames
            in_db, in_rms_db = levels_db(captured[-newest:])
            out_db, out_rms_db = levels_db(played[-newest:])
            rate = memory.clock.rate
            in_spectrum, out_spectrum = spectrum_db(captured, rate), spectrum_db(played, rate)
        histogram = memory.step_histogram.copy()
        longest = int(memory.worker["max_step_ns"]) * 1e-6
        counters = figures.counters(memory)
        latency = self._stream.latency
        return LiveSnapshot(
            seconds=self._seconds(),
            state=self._state(),
            input_name=self._stream.input_device.name,
            output_name=self._stream.output_device.name,
            rate=self._stream.rates[0],
            output_rate=self._stream.rates[1],
            block=latency.block,
            channels=memory.channels,
            in_db=in_db,
            out_db=out_db,
            in_rms_db=in_rms_db,
            out_rms_db=out_rms_db,
            in_spectrum=in_spectrum,
            out_spectrum=out_spectrum,
            latency_ms=latency.parts_ms,
            latency_total_ms=latency.total_ms,
            step_histogram=histogram,
            step_p50_ms=min(percentile(histogram, 50.0, STEP_BIN_MS), longest),
            step_p99_ms=min(percentile(histogram, 99.0, STEP_BIN_MS), longest),
            step_p999_ms=min(percentile(histogram, 99.9, STEP_BIN_MS), longest),
            step_max_ms=longest,
            fallback_level=self._fallback_levels[int(memory.worker["fallback_level"])],
            fallback_levels=self._fallback_levels,
            fallback_level_changes=self._history.changes[-_SHOWN_CHANGES:],
            underruns=counters["underruns"],
            overruns=counters["overruns"],
            late_callbacks=counters["late_callbacks"],
            xruns=counters["xruns"],
            worker_restarts=self._worker_guard.restarts,
            device_restarts=self._device_guard.restarts,
            ahead_ms=figures.ahead_ms(memory),
            cutoff_hz=float(counters["cutoff_hz"]),
            controls=self._board.as_dict(),
            limits={name: self._board.limits(name) for name in self._board.names},
            top_hz=memory.clock.rate / 2,
            cpu_percent=self._cpu_percent(),
            priority=self._priority(),
            colour=self._colour_state(float(counters["cutoff_hz"])),
        )

    def report(self) -> dict[str, Any]:
        """Everything that was counted and measured since the start; JSON can hold it.

        The latencies of a JACK server's connections may be a minute old while the session runs;
        :attr:`latency` asks the server.

        Raises:
            RtsrError: the session was never started.
        """
        if self._memory is not None:
            return self._report(self._latency_polling.recent())
        if self._final is None:
            raise RtsrError("This live session has not been started; call start() first.")
        return self._final

    def __enter__(self) -> LiveSession:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _running(self) -> LiveMemory:
        if self._memory is None:
            raise RtsrError("This live session does not run; call start() first.")
        return self._memory

    def _turn_controls(self, board: ControlBoard) -> None:
        if self._settings.cutoff_hz is not None:
            board.set("cutoff_hz", self._settings.cutoff_hz)
        for name, value in self._settings.controls.items():
            board.set(name, value)

    def _choose_format(self) -> StreamFormat:
        with _raising(self._settings.raise_priority), portaudio.undisturbed():
            devices = find_devices(self._request)
            chosen = choose_format(self._request, devices, self._settings.channels)
        played = chosen.rates[1]
        if self._settings.octave_model is not None and played <= SAMPLE_RATE:
            raise ArgumentError(
                f"{devices.sink.label} plays at {played} Hz, with no octave beyond 48 kHz for the "
                "octave model to make; leave it out, or ask for an output rate of 96000 or "
                "192000 Hz."
            )
        return chosen

    def _for_worker(self) -> WorkerSettings:
        latency = self._stream.latency
        reserve = latency.block + latency.look_ahead
        delay_hops = latency.delay // latency.hop
        return self._settings.for_worker(self._stream.rates[0] / 2.0, reserve, delay_hops)

    def _reopened(self) -> None:
        self._latency_polling.restart()
        # A server may have come back with other blocks: the worker judges by them what is late.
        self._worker_guard.adapt(self._for_worker())

    def _new_host(self, memory: LiveMemory) -> WorkerProcess | WorkerThread:
        def worker_ended() -> None:
            self._worker_guard.nudge()

        if self._settings.worker == "thread":
            return WorkerThread(memory, worker_ended, self._on_hop)
        return WorkerProcess(worker_ended)

    def _seconds(self) -> float:
        return (time.monotonic_ns() - self._started_ns) * 1e-9

    def _state(self) -> str:
        if self._device_guard.waiting:
            return WAITING
        return "restarting the worker" if self._worker_guard.restarting else "playing"

    def _priority(self) -> str:
        return describe(int(self._running().worker["priority"]))

    def _cpu_percent(self) -> float:
        """Of one core: this program, its audio callback included, and the worker."""
        own = time.process_time() - self._cpu_before
        if self._settings.worker == "process":
            own += int(self._running().worker["cpu_ns"]) * 1e-9
        return round(100.0 * own / max(self._seconds(), 1e-3), 2)

    def _known_colour(self) -> Colour | None:
        return self._colour.learnt if isinstance(self._colour, AutoColour) else self._colour

    def _colour_state(self, cutoff_hz: float) -> ColourState | None:
        if self._colour_monitor is None:
            return None
        share = int(self._running().worker["colour_permille"]) / 1000.0
        return self._colour_monitor.state(cutoff_hz, share)

    def _report(self, latency: StreamLatency) -> dict[str, Any]:
        memory = self._running()
        self._history.follow()
        colour = self._colour_state(float(memory.worker["cutoff_hz"]))
        return {
            "seconds": round(self._seconds(), 3),
            "input": self._stream.input_device.name,
            "output": self._stream.output_device.name,
            "rate": self._stream.rates[0],
            "output_rate": self._stream.rates[1],
            "block": latency.block,
            "channels": memory.channels,
            "worker": self._settings.worker,
            "worker_pid": int(memory.worker["pid"]),
            "fallback_levels": list(self._fallback_levels),
            **figures.counters(memory),
            "fallback_level": self._fallback_levels[int(memory.worker["fallback_level"])],
            "fallback_level_seconds": self._history.seconds(time.monotonic_ns()),
            "fallback_level_changes": [change.as_dict() for change in self._history.changes],
            "step_ms": figures.step_ms(memory),
            "callback_us": figures.callback_us(memory),
            "latency": {
                **{f"{name}_ms": round(part, 4) for name, part in latency.parts_ms.items()},
                "rate": latency.clock.rate,
                "algorithmic_samples": round(latency.engine_frames, 3),
                "algorithmic_ms": round(latency.engine_ms, 4),
                "total_ms": round(latency.total_ms, 4),
                "total_samples": round(latency.total_frames, 3),
            },
            "worker_restarts": self._worker_guard.restarts,
            "device_restarts": self._device_guard.restarts,
            "controls": self._board.as_dict(),
            "colour": None if colour is None else asdict(colour),
            "cpu_percent": self._cpu_percent(),
            "priority": self._priority(),
            "flushes_denormals": bool(memory.worker["flushes_denormals"]),
        }


class _RaisedStream(DeviceStream):
    """A device stream whose callbacks get more processor time, where the system allows it.

    Which of these calls starts the thread depends on the host API: JACK's comes with PortAudio
    itself, when devices are listed.
    """

    def __init__(
        self, memory: LiveMemory, request: StreamRequest, chosen: StreamFormat, raised: bool
    ) -> None:
        self._raised = raised
        with self._raising():
            super().__init__(memory, request, chosen)

    def start(self) -> None:
        with self._raising():
            super().start()

    def reopen(self) -> None:
        with self._raising():
            super().reopen()

    def _raising(self) -> contextlib.AbstractContextManager[object]:
        return _raising(self._raised)


def _raising(wanted: bool) -> contextlib.AbstractContextManager[object]:
    return raised_for_new_threads() if wanted else contextlib.nullcontext()


class _Follower(Guard):
    """Reads the worker's events before newer ones overwrite them."""

    def __init__(self, history: FallbackHistory) -> None:
        super().__init__("rtsr-level-history", _HISTORY_SECONDS)
        self._history = history

    def check(self) -> None:
        self._history.follow()

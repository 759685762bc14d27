"""One session of one graph with its state: call it once per step, everything is in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ModelError, ProviderError, RtsrError, warn
from rtsr.runtime.models import Model, find_model
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.open_session import OpenSession, SessionShape, one_reason, open_session
from rtsr.runtime.providers.options import ProviderOptions, parse_provider
from rtsr.runtime.step_memory import HIGH_BAND, DeviceMemory, HostMemory, StepMemory, StepShapes
from rtsr.timing import HOP

SIGNALS = ("audio", "noise", "f_prior", "f_target")

Audio = NDArray[np.float32]


class OnnxStep:
    """A graph at one static shape, with its recurrent state.

    Fill the arrays :attr:`audio`, :attr:`noise`, :attr:`f_prior` and :attr:`f_target` in place,
    call :meth:`run`, read :attr:`high_band`; or pass them to :meth:`step`, which copies.

    On a GPU a step is captured as a CUDA graph and replayed, where the model allows it. ONNX
    Runtime keeps such graphs per thread, so the first step of a thread is slow; the constructor
    takes it for the calling thread, :meth:`prepare_thread` for any other.

    Args:
        model: a :class:`~rtsr.runtime.models.Model`, the name of a bundled one, or a path.
        provider: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``, with options if need be:
            ``cuda:device=1:graph=off``, see :func:`~rtsr.runtime.providers.options.parse_provider`.
        batch: channels of audio; each is one item of the graph's batch.
        hops_per_step: hops of 480 samples that one step takes: 1, 2, 4, 8 or 16.
        threads: threads within one step, for the CPU provider.
        options: instead of options in ``provider``.
        row_counts: numbers of first items of the batch that a run of :attr:`memory` may take
            instead of all; for those who step it themselves, and only on the CPU.
        state_of: memory of another one on the CPU, whose state this one shares.

    Attributes:
        audio: float32 ``(batch, 1, 480 * hops)``, band-limited input at 48 kHz.
        noise: float32 ``(batch, noise_channels, hops)``, standard normal.
        f_prior: float32 ``(batch, 1, hops)``, Hz where the input's content ends.
        f_target: float32 ``(batch, 1, hops)``, Hz where the output should end.
        high_band: float32 ``(batch, 1, 480 * hops)``, the generated content of the last step.
        provider: the provider the session really runs on.
        cuda_graph: whether steps replay a captured graph.
        notes: sentences on what could not be had, such as the reason for a missing graph.
        memory: of the signals and the state; for those who change single items of it.

    Raises:
        ModelError: the model is not one of rtsr's, or its graph contradicts its metadata.
        ProviderError: the provider is absent or did not start.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        provider: str = providers.AUTO,
        batch: int = 1,
        hops_per_step: int = 1,
        threads: int = 1,
        options: ProviderOptions | None = None,
        row_counts: Sequence[int] = (),
        state_of: HostMemory | None = None,
    ) -> None:
        wanted, parsed = parse_provider(provider)
        self.options = options or parsed
        self.model = model if isinstance(model, Model) else find_model(model)
        self.metadata = self.model.metadata
        if not self.model.is_network:
            raise ModelError(
                f"Model '{self.model.name}' is no network; use it through rtsr.Upsampler."
            )
        onnxruntime = providers.load_onnxruntime()
        shape = SessionShape(batch, hops_per_step, threads, takes_fewer=bool(row_counts))
        self._row_counts = tuple(row_counts)
        self._state_of = state_of
        opened, self.memory = self._start(onnxruntime, wanted, shape)
        self.provider = opened.provider
        self.cuda_graph = opened.graph
        self.notes = tuple(opened.notes)

        signals = self.memory.signals
        self.audio: Audio = signals["audio"]
        self.noise: Audio = signals["noise"]
        self.f_prior: Audio = signals["f_prior"]
        self.f_target: Audio = signals["f_target"]
        self.f_target.fill(self.metadata.f_target_default)
        self.high_band: Audio = self.memory.high_band
        self._buffer = 0

    @property
    def buffer(self) -> int:
        """Which copy of the state the next step reads, 0 or 1."""
        return self._buffer

    def run(self) -> Audio:
        """Take one step from the arrays of this object; returns :attr:`high_band`."""
        buffer = self._buffer
        self.memory.run(buffer)
        self._buffer = 1 - buffer
        return self.high_band

    def prepare_thread(self) -> None:
        """Take the slow first step for the calling thread, without a trace in the state.

        For a thread that is to step what another one has opened. On the CPU there is nothing to do.
        """
        self.memory.prepare_thread(self._buffer)

    def step(self, audio: Audio, noise: Audio, f_prior: Audio, f_target: Audio) -> Audio:
        """Copy the inputs, take one step; the result is overwritten by the next one."""
        self.audio[...] = audio
        self.noise[...] = noise
        self.f_prior[...] = f_prior
        self.f_target[...] = f_target
        return self.run()

    def reset(self) -> None:
        """Forget everything: the next step is the first."""
        self.memory.reset()
        self._buffer = 0

    def state(self) -> dict[str, Audio]:
        """Copy the state as the next step will see it, by name."""
        return self.memory.read_state(self._buffer)

    def _start(
        self, onnxruntime: ModuleType, wanted: str, shape: SessionShape
    ) -> tuple[OpenSession, StepMemory]:
        """Open, bind and warm up; what has more than one way to go tries them in order."""
        opened = open_session(onnxruntime, self.model, wanted, self.options, shape)
        memory, failure = self._bind_and_warm_up(onnxruntime, opened, shape)
        notes = list(opened.notes)
        if failure and memory and opened.stream and opened.graph:
            # The queue may still think that it is being captured.
            opened.stream.abandon()
            note = (
                f"A step of model '{self.model.name}' could not be captured as a CUDA graph "
                f"({failure}); use {opened.provider}:graph=off."
            )
            if self.options.graph:
                raise ProviderError(note)
            notes.append(note)
            warn(note)
            opened = open_session(
                onnxruntime, self.model, opened.provider, self.options, shape, graph=False
            )
            memory, failure = self._bind_and_warm_up(onnxruntime, opened, shape)
        if failure or memory is None:
            note = (
                f"Provider {opened.provider!r} failed in the first step of model "
                f"'{self.model.name}' ({failure}); use provider 'cpu'."
            )
            if wanted != providers.AUTO or opened.provider == providers.CPU:
                raise ProviderError(note)
            notes.append(note)
            warn(note)
            opened = open_session(onnxruntime, self.model, providers.CPU, self.options, shape)
            memory = self._bind(onnxruntime, opened, shape)
        opened.notes[:] = notes
        return opened, memory

    def _bind_and_warm_up(
        self, onnxruntime: ModuleType, opened: OpenSession, shape: SessionShape
    ) -> tuple[StepMemory | None, str]:
        """Bind, and on a device take a first step; the second item says why one of them failed."""
        if opened.stream is None:
            return self._bind(onnxruntime, opened, shape), ""
        try:
            memory = self._bind(onnxruntime, opened, shape)
        except RtsrError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no common base but Exception
            return None, one_reason(error)
        return memory, _warm_up(memory)

    def _bind(
        self, onnxruntime: ModuleType, opened: OpenSession, shape: SessionShape
    ) -> StepMemory:
        try:
            check_graph(opened.session, self.model)
        except ModelError:
            if opened.provider != providers.TENSORRT:
                raise
            raise ProviderError(
                f"TensorRT takes only parts of model '{self.model.name}': its engine has other "
                "inputs or outputs than the model; use provider 'cuda'."
            ) from None
        shapes = self._shapes(shape)
        if opened.stream is None:
            return HostMemory(onnxruntime, opened.session, shapes, self._row_counts, self._state_of)
        return DeviceMemory(
            onnxruntime, opened.runs, opened.stream, shapes, device_id=self.options.device
        )

    def _shapes(self, shape: SessionShape) -> StepShapes:
        batch, hops = shape.batch, shape.hops
        samples = (batch, 1, HOP * hops)
        return StepShapes(
            signals={
                "audio": samples,
                "noise": (batch, self.metadata.noise_channels, hops),
                "f_prior": (batch, 1, hops),
                "f_target": (batch, 1, hops),
            },
            high_band=samples,
            states={
                name: (batch, *state_shape[1:])
                for name, state_shape in self.metadata.states.items()
            },
        )


def _warm_up(memory: StepMemory) -> str:
    """Take a step from either copy of the state; why that failed, if it did."""
    try:
        for buffer in range(2):
            memory.run(buffer)
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        return one_reason(error)
    memory.reset()
    return ""


def check_graph(session: Any, model: Model) -> None:
    """Refuse a graph whose inputs and outputs are not those that its metadata promises.

    Raises:
        ModelError: it names what differs.
    """
    states = model.metadata.states
    inputs = {value.name: value.shape for value in session.get_inputs()}
    outputs = {value.name for value in session.get_outputs()}
    wanted_inputs = {*SIGNALS, *(f"state.{name}" for name in states)}
    wanted_outputs = {HIGH_BAND, *(f"next.{name}" for name in states)}
    differing = sorted((wanted_inputs ^ set(inputs)) | (wanted_outputs ^ outputs))
    differing += [
        f"state.{name}"
        for name, shape in states.items()
        if f"state.{name}" in inputs and tuple(inputs[f"state.{name}"][1:]) != shape[1:]
    ]
    if differing:
        shown = ", ".join(differing[:3]) + (", ..." if len(differing) > 3 else "")
        raise ModelError(
            f"Model file '{model.path}' has a graph that does not match its metadata ({shown}); "
            "export it again."
        )

"""Slots on a device: one static shape, and a graph that gives back the states of who is held."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.select_graph import CHOSEN, OTHER, RESULT, mask_name, select_graph
from rtsr.batch.step_signals import StepSignals
from rtsr.runtime.gpu_lock import GPU_LOCK
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.open_session import quiet
from rtsr.runtime.session import OnnxStep
from rtsr.runtime.step_memory import State

Array = NDArray[np.float32]
Indices = NDArray[np.int64]


class DeviceSlots:
    """Runs the whole batch: a graph on the device chooses whose states are taken.

    Whatever the number of rows, a change reads and writes the whole state twice there, and nothing
    crosses the bus but a mask. The session's tensors stay where they are, as CUDA graphs want it.

    Args:
        step: whose states lie in the memory of a device; of the CPU for a test.

    Attributes:
        parts: see :class:`~rtsr.batch.slots.Slots`; one.
    """

    def __init__(self, step: OnnxStep) -> None:
        self._step = step
        memory = step.memory
        self.parts: tuple[StepSignals, ...] = (
            StepSignals(**memory.signals, high_band=memory.high_band),
        )
        onnxruntime = providers.load_onnxruntime()
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        device, device_id = step.memory.device, step.options.device
        states = step.memory.states
        shapes = {name: tuple(value.shape()) for name, value in states[0].items()}
        # An engine for one operator is not worth building: TensorRT's tensors are CUDA's, too.
        runs_on = providers.CUDA if step.provider == providers.TENSORRT else step.provider

        def placed(array: NDArray[Any]) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_numpy(array, device, device_id)

        def zeros() -> State:
            return {name: placed(np.zeros(shape, np.float32)) for name, shape in shapes.items()}

        with GPU_LOCK:
            with quiet(onnxruntime):
                self._session = onnxruntime.InferenceSession(
                    select_graph(shapes),
                    settings,
                    providers=providers.onnx_providers(runs_on, step.options),
                    enable_fallback=0,
                )
            batch = memory.high_band.shape[0]
            ranks = sorted({len(shape) for shape in shapes.values()})
            self._mask = np.zeros(batch, bool)
            self._masks = {
                rank: (mask, placed(mask))
                for rank, mask in ((rank, self._shaped(rank)) for rank in ranks)
            }
            never = {rank: placed(np.zeros_like(mask)) for rank, (mask, _) in self._masks.items()}
            chosen = {rank: value for rank, (_, value) in self._masks.items()}
            blank, spare = zeros(), zeros()
            # In main memory they lie in their arrays, which a binding does not keep.
            self._kept = (never, blank, spare)
            self._holds = [
                self._bind(chosen, states[1 - buffer], states[buffer], spare) for buffer in range(2)
            ]
            self._clears = [self._bind(chosen, blank, states[buffer], spare) for buffer in range(2)]
            # In place would be undefined: first into spare memory, then back.
            self._returns = [self._bind(never, blank, spare, states[buffer]) for buffer in range(2)]

    def run(self, due: Indices, held: Indices, steps: int = 1, first: int = 0) -> None:
        """See :class:`~rtsr.batch.slots.Slots`; who is neither due nor held has no stream."""
        assert (steps, first) == (1, 0), "a device has one part"
        self._step.run()
        self._change(held, self._holds)

    def clear(self, slots: Indices) -> None:
        """See :class:`~rtsr.batch.slots.Slots`."""
        self._change(slots, self._clears)

    def reset(self) -> None:
        """See :class:`~rtsr.batch.slots.Slots`."""
        self._step.reset()

    def state(self) -> dict[str, Array]:
        """See :class:`~rtsr.batch.slots.Slots`."""
        return self._step.state()

    def _change(self, slots: Indices, selects: list[Any]) -> None:
        if not len(slots):
            return
        buffer = self._step.buffer
        self._mask.fill(False)
        self._mask[slots] = True
        # The mask is copied from memory that is not page-locked.
        with GPU_LOCK:
            for mask, value in self._masks.values():
                value.update_inplace(mask)
            self._session.run_with_iobinding(selects[buffer])
            self._session.run_with_iobinding(self._returns[buffer])

    def _shaped(self, rank: int) -> NDArray[np.bool_]:
        return self._mask.reshape((-1, *[1] * (rank - 1)))

    def _bind(self, masks: dict[int, Any], chosen: State, other: State, result: State) -> Any:
        binding = self._session.io_binding()
        for rank, mask in masks.items():
            binding.bind_ortvalue_input(mask_name(rank), mask)
        for name in result:
            binding.bind_ortvalue_input(CHOSEN + name, chosen[name])
            binding.bind_ortvalue_input(OTHER + name, other[name])
            binding.bind_ortvalue_output(RESULT + name, result[name])
        return binding

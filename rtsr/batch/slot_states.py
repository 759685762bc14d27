"""The rows of a batch's state, one by one: in plain memory, or in that of a device."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.select_graph import CHOSEN, OTHER, RESULT, mask_name, select_graph
from rtsr.runtime.gpu_lock import GPU_LOCK
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.open_session import quiet

# One copy of the state: tensors (OrtValue) by name, the first dimension is the slot.
State = dict[str, Any]
Array = NDArray[np.float32]
Slots = Sequence[int] | NDArray[np.int64]


class SlotStates(Protocol):
    """Changes single rows of a session's two copies of its state."""

    def hold(self, slots: Slots, buffer: int) -> None:
        """Overwrite these rows of copy ``buffer`` by those of the other copy."""

    def clear(self, slots: Slots, buffer: int) -> None:
        """Zero these rows of copy ``buffer``."""


class HostStates:
    """Rows in the memory of the CPU, where they are arrays like any other.

    Args:
        states: the session's two copies, whose tensors lie in CPU memory; they must live on.
    """

    def __init__(self, states: Sequence[State]) -> None:
        # The tensors own the memory that the arrays look at.
        self._states = states
        self._arrays = [[_view(value) for value in state.values()] for state in states]

    def hold(self, slots: Slots, buffer: int) -> None:
        """See :class:`SlotStates`."""
        if not len(slots):
            return
        for target, source in zip(self._arrays[buffer], self._arrays[1 - buffer], strict=True):
            target[slots] = source[slots]

    def clear(self, slots: Slots, buffer: int) -> None:
        """See :class:`SlotStates`."""
        if not len(slots):
            return
        for array in self._arrays[buffer]:
            array[slots] = 0.0


class DeviceStates:
    """Rows in the memory of a device: a graph on that device chooses which are kept.

    Whatever the number of rows, a change reads and writes the whole state twice there, and nothing
    crosses the bus but a mask. The session's tensors stay where they are, as CUDA graphs want it.

    Args:
        onnxruntime: the module.
        provider: that of the session.
        device: ``cuda``, or ``cpu`` for a test.
        states: the session's two copies.
        shapes: of their tensors.
        options: of the provider.
    """

    def __init__(
        self,
        onnxruntime: ModuleType,
        provider: str,
        device: str,
        states: Sequence[State],
        shapes: dict[str, tuple[int, ...]],
        options: providers.ProviderOptions | None = None,
    ) -> None:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        device_id = options.device if options else 0
        # An engine for one operator is not worth building: TensorRT's tensors are CUDA's, too.
        runs_on = providers.CUDA if provider == providers.TENSORRT else provider
        with quiet(onnxruntime):
            self._session = onnxruntime.InferenceSession(
                select_graph(shapes),
                settings,
                providers=providers.onnx_providers(runs_on, options),
                enable_fallback=0,
            )

        def placed(array: NDArray[Any]) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_numpy(array, device, device_id)

        def zeros() -> State:
            return {name: placed(np.zeros(shape, np.float32)) for name, shape in shapes.items()}

        batch = next(iter(shapes.values()))[0]
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

    def hold(self, slots: Slots, buffer: int) -> None:
        """See :class:`SlotStates`."""
        self._change(slots, self._holds[buffer], self._returns[buffer])

    def clear(self, slots: Slots, buffer: int) -> None:
        """See :class:`SlotStates`."""
        self._change(slots, self._clears[buffer], self._returns[buffer])

    def _change(self, slots: Slots, select: Any, bring_back: Any) -> None:
        if not len(slots):
            return
        self._mask.fill(False)
        self._mask[slots] = True
        # The mask is copied from memory that is not page-locked.
        with GPU_LOCK:
            for mask, value in self._masks.values():
                value.update_inplace(mask)
            self._session.run_with_iobinding(select)
            self._session.run_with_iobinding(bring_back)

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


def _view(value: Any) -> Array:
    """Return a CPU tensor's memory as an array, which must not outlive the tensor."""
    pointer = ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, tuple(value.shape()))

"""The memory of a step, bound once: the four signals, the high band, two copies of the state.

The state is kept twice. Two prepared bindings read one copy and write the other, so a step is a run
and a swap: nothing is allocated, copied or looked up by name.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr.runtime.gpu_lock import GPU_LOCK

HIGH_BAND = "high_band"

Audio = NDArray[np.float32]
Shape = tuple[int, ...]
# One copy of the state: tensors (OrtValue) by name.
State = dict[str, Any]

# Tensors begin where the widest loads of a GPU want them.
_ALIGNMENT = 256
_FLOAT = 4


@dataclass(frozen=True)
class StepShapes:
    """Shapes of everything that goes into a step and comes out of it, all float32.

    Attributes:
        signals: by name of the input, batch first.
        high_band: of the only signal that comes out.
        states: by name without ``state.`` or ``next.``, batch first.
    """

    signals: Mapping[str, Shape]
    high_band: Shape
    states: Mapping[str, Shape]


class StepMemory(Protocol):
    """What :class:`~rtsr.runtime.session.OnnxStep` needs from either kind.

    Attributes:
        device: ``cpu`` or ``cuda``, as ONNX Runtime spells it.
        signals: host arrays to fill before a run.
        high_band: host array that a run fills.
        states: the two copies of the state.
    """

    device: str
    signals: dict[str, Audio]
    high_band: Audio
    states: list[State]

    def run(self, buffer: int) -> None:
        """Take one step from copy ``buffer`` of the state to the other."""

    def prepare_thread(self, buffer: int) -> None:
        """Set up what is kept per thread; the state in ``buffer`` stays, the other does not."""

    def read_state(self, buffer: int) -> dict[str, Audio]:
        """Copy the state that lies in ``buffer`` into plain memory, by name."""

    def reset(self) -> None:
        """Zero both copies of the state."""


class HostMemory:
    """Plain memory, where ONNX Runtime reads and writes the arrays themselves.

    A session whose batch is not fixed also runs the first rows alone, in the same memory.

    Args:
        onnxruntime: the module.
        session: on the CPU.
        shapes: of the step.
        row_counts: numbers of first rows that a run may have instead of all.
        state_of: another session's, whose state this one goes on from and writes.

    Attributes:
        copies: float32 ``(2, floats)``, the two copies of the state: in each its tensors lie behind
            one another.
        starts: where in a copy each tensor begins, by name.
    """

    device = "cpu"

    def __init__(
        self,
        onnxruntime: ModuleType,
        session: Any,
        shapes: StepShapes,
        row_counts: Sequence[int] = (),
        state_of: HostMemory | None = None,
    ) -> None:
        self._session = session
        self.signals = {name: _zeros(shape) for name, shape in shapes.signals.items()}
        self.high_band = _zeros(shapes.high_band)
        places, size = _places(shapes.states)
        self.copies: Audio = (
            np.zeros((2, size // _FLOAT), np.float32) if state_of is None else state_of.copies
        )
        self.starts = {name: place // _FLOAT for name, place in places.items()}
        tensors = [
            {
                name: _array_at(copy.view(np.uint8), places[name], shape)
                for name, shape in shapes.states.items()
            }
            for copy in self.copies
        ]
        # They share the arrays' memory.
        self.states: list[State] = [
            {
                name: onnxruntime.OrtValue.ortvalue_from_numpy(array, "cpu", 0)
                for name, array in copy.items()
            }
            for copy in tensors
        ]
        self._rows = shapes.high_band[0]
        self._bindings = {
            rows: [self._bind(tensors[buffer], tensors[1 - buffer], rows) for buffer in range(2)]
            for rows in {*row_counts, self._rows}
        }

    def _bind(self, before: Mapping[str, Audio], after: Mapping[str, Audio], rows: int) -> Any:
        binding = self._session.io_binding()
        inputs = {**self.signals, **{f"state.{name}": array for name, array in before.items()}}
        outputs = {HIGH_BAND: self.high_band}
        outputs |= {f"next.{name}": array for name, array in after.items()}
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                shape = (rows, *array.shape[1:])
                bind(name, self.device, 0, np.float32, shape, array.ctypes.data)
        return binding

    def run(self, buffer: int, rows: int | None = None) -> None:
        """See :class:`StepMemory`; ``rows`` is one of the row counts, all if ``None``."""
        rows = self._rows if rows is None else rows
        self._session.run_with_iobinding(self._bindings[rows][buffer])

    def prepare_thread(self, buffer: int) -> None:
        """Do nothing: a session on the CPU is the same to every thread."""

    def read_state(self, buffer: int) -> dict[str, Audio]:
        """See :class:`StepMemory`."""
        return {name: value.numpy().copy() for name, value in self.states[buffer].items()}

    def reset(self) -> None:
        """See :class:`StepMemory`."""
        self.copies.fill(0.0)


class Stream(Protocol):
    """A queue of work on a device, see :class:`~rtsr.runtime.providers.cuda_driver.CudaStream`."""

    def activate(self) -> None:
        """Let the calling thread use the device."""

    def upload(self, target: int, source: int, size: int) -> None:
        """Copy bytes from page-locked memory to the device."""

    def download(self, target: int, source: int, size: int) -> None:
        """Copy bytes from the device to page-locked memory."""

    def zero(self, target: int, size: int) -> None:
        """Set bytes on the device to zero."""

    def synchronize(self) -> None:
        """Wait until all of it is done."""

    def synchronize_device(self) -> None:
        """Wait until everything on the device is done."""

    def page_locked(self, size: int) -> NDArray[np.uint8]:
        """Host memory that the device reads and writes by itself."""


@dataclass(frozen=True)
class BufferRun:
    """How the step that reads one copy of the state is run.

    Attributes:
        session: on the device.
        options: ``RunOptions`` of that buffer, which name its CUDA graph.
    """

    session: Any
    options: Any


class _Thread(threading.local):
    """What is known of the calling thread."""

    is_ready = False


class DeviceMemory:
    """Memory of a device for everything that is bound, page-locked memory for the host's side.

    All signals lie behind one another, so that one copy brings them over, and the result comes back
    with another. Both copies and the run are queued on one stream, and the host waits once, at the
    end. No address ever changes, as CUDA graphs want it; the copies are not part of the graph.

    ONNX Runtime keeps graphs, handles and memory per thread, so the first step of a thread sets up
    both buffers for it, which takes as long as opening a session; the state stays as it was.

    Args:
        onnxruntime: the module.
        runs: for each buffer, in order.
        stream: which the sessions work on, too.
        shapes: of the step.
        device: ``cuda``; anything else is for tests.
        device_id: index of the device.
    """

    def __init__(
        self,
        onnxruntime: ModuleType,
        runs: Sequence[BufferRun],
        stream: Stream,
        shapes: StepShapes,
        device: str = "cuda",
        device_id: int = 0,
    ) -> None:
        self.device = device
        self._stream = stream
        self._runs = list(runs)
        self._thread = _Thread()
        with GPU_LOCK:
            self._bind(onnxruntime, shapes, device_id)

    def _bind(self, onnxruntime: ModuleType, shapes: StepShapes, device_id: int) -> None:
        stream, device = self._stream, self.device

        def value(shape: Shape) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_numpy(_zeros(shape), device, device_id)

        stream.activate()
        places, size = _places(shapes.signals)
        host = stream.page_locked(size)
        self.signals = {
            name: _array_at(host, places[name], shape) for name, shape in shapes.signals.items()
        }
        result_size = _bytes(shapes.high_band)
        self.high_band = _array_at(stream.page_locked(result_size), 0, shapes.high_band)
        self._inputs = value((size // _FLOAT,))
        self._result = value(shapes.high_band)
        self._upload = (self._inputs.data_ptr(), host.ctypes.data, size)
        self._download = (self.high_band.ctypes.data, self._result.data_ptr(), result_size)
        self.states = [
            {name: value(shape) for name, shape in shapes.states.items()} for _ in range(2)
        ]
        self._state_bytes = {name: _bytes(shape) for name, shape in shapes.states.items()}
        self._bindings = []
        for buffer, run in enumerate(self._runs):
            binding = run.session.io_binding()
            for name, shape in shapes.signals.items():
                address = self._inputs.data_ptr() + places[name]
                binding.bind_input(name, device, device_id, np.float32, shape, address)
            bind_states(binding, self.states, buffer)
            binding.bind_ortvalue_output(HIGH_BAND, self._result)
            self._bindings.append(binding)
        # What has been set up so far was queued elsewhere.
        stream.synchronize_device()

    def run(self, buffer: int) -> None:
        """See :class:`StepMemory`."""
        if not self._thread.is_ready:
            self.prepare_thread(buffer)
        self._step(buffer)

    def prepare_thread(self, buffer: int) -> None:
        """See :class:`StepMemory`."""
        if self._thread.is_ready:
            return
        with GPU_LOCK:
            self._stream.activate()
            kept = self.read_state(buffer)
            self._step(1 - buffer)
            for name, value in self.states[buffer].items():
                value.update_inplace(kept[name])
            self._step(buffer)
        self._thread.is_ready = True

    def _step(self, buffer: int) -> None:
        stream, run = self._stream, self._runs[buffer]
        stream.activate()
        stream.upload(*self._upload)
        run.session.run_with_iobinding(self._bindings[buffer], run.options)
        stream.download(*self._download)
        stream.synchronize()

    def read_state(self, buffer: int) -> dict[str, Audio]:
        """See :class:`StepMemory`."""
        with GPU_LOCK:
            return {name: value.numpy().copy() for name, value in self.states[buffer].items()}

    def reset(self) -> None:
        """See :class:`StepMemory`."""
        self._stream.activate()
        for state in self.states:
            for name, value in state.items():
                self._stream.zero(value.data_ptr(), self._state_bytes[name])
        self._stream.synchronize()


def bind_states(binding: Any, states: Sequence[State], buffer: int) -> None:
    """Bind copy ``buffer`` of the state as input, the other as output."""
    for name, value in states[buffer].items():
        binding.bind_ortvalue_input(f"state.{name}", value)
    for name, value in states[1 - buffer].items():
        binding.bind_ortvalue_output(f"next.{name}", value)


def _places(shapes: Mapping[str, Shape]) -> tuple[dict[str, int], int]:
    """Offsets in bytes of tensors that lie behind one another, and the size of the whole."""
    places, size = {}, 0
    for name, shape in shapes.items():
        places[name] = size
        size += -(-_bytes(shape) // _ALIGNMENT) * _ALIGNMENT
    return places, size


def _bytes(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64)) * _FLOAT


def _array_at(memory: NDArray[np.uint8], place: int, shape: Shape) -> Audio:
    return memory[place : place + _bytes(shape)].view(np.float32).reshape(shape)


def _zeros(shape: Shape) -> Audio:
    return np.zeros(shape, np.float32)

"""A machine with a GPU, for machines without one.

Only the hardware is made up: sessions run the real graph with the real ONNX Runtime on the CPU, and
"device" memory is host memory. What is imitated is what ONNX Runtime does on a GPU: a CUDA graph is
captured after two runs of its own, and from then on replays the addresses that it saw, whatever is
bound.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rtsr.errors import ProviderError
from rtsr.runtime.providers import open_session
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.cuda_driver import Gpu

H200 = Gpu("NVIDIA H200", "9.0", "580.95.05", (13, 0))
RUNS_BEFORE_CAPTURE = 2


class HostStream:
    """A stream whose device is the host; it notes what was queued in ``log``."""

    log: list[str]
    gpu = H200

    def __init__(self, device: int) -> None:
        if device > 1:
            raise ProviderError(f"There is no GPU {device}.")
        self.device = device
        self.handle = 0xABC0
        self.is_abandoned = False
        self.driver = self
        self.log = []

    def describe(self) -> Gpu:
        return self.gpu

    def abandon(self) -> None:
        self.is_abandoned = True

    def activate(self) -> None:
        self.log.append("activate")

    def upload(self, target: int, source: int, size: int) -> None:
        self.log.append(f"upload {size}")
        ctypes.memmove(target, source, size)

    def download(self, target: int, source: int, size: int) -> None:
        self.log.append(f"download {size}")
        ctypes.memmove(target, source, size)

    def zero(self, target: int, size: int) -> None:
        self.log.append(f"zero {size}")
        ctypes.memset(target, 0, size)

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def synchronize_device(self) -> None:
        self.log.append("synchronize device")

    def page_locked(self, size: int) -> np.ndarray:
        self.log.append(f"page-locked {size}")
        return np.zeros(size, np.uint8)


class GraphSession:
    """A session of the CPU that says it is another, and replays as a GPU does."""

    def __init__(
        self,
        machine: FakeGpu,
        path: str,
        options: Any,
        providers: list[Any],
        enable_fallback: int,
        **others: Any,
    ) -> None:
        assert enable_fallback == 0
        self.options = dict(providers[0][1]) if isinstance(providers[0], tuple) else {}
        self.names = [entry[0] if isinstance(entry, tuple) else entry for entry in providers]
        self.is_on_gpu = self.names[0] != "CPUExecutionProvider"
        # What is left out of a graph is left out for a CPU's sake.
        assert bool(others) != self.is_on_gpu
        if self.is_on_gpu:
            failure = machine.failure(self.names[0], self.options)
            if failure is not None:
                raise failure
        self._real = machine.real.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        self._machine = machine
        self._graphs: dict[str, Any] = {}
        self.replays = 0
        machine.sessions.append(self)

    def get_providers(self) -> list[str]:
        return [*self.names, "CPUExecutionProvider"]

    def get_inputs(self) -> Any:
        return self._real.get_inputs()

    def get_outputs(self) -> Any:
        return self._real.get_outputs()

    def io_binding(self) -> Any:
        return HostBinding(self._real.io_binding())

    def run_with_iobinding(self, binding: HostBinding, options: Any = None) -> None:
        self._machine.runs.append((self, options))
        if not self.is_on_gpu or not self._captures:
            self._real.run_with_iobinding(binding.real)
            return
        number = self._number(options)
        if number == "-1":
            self._real.run_with_iobinding(binding.real)
        elif number in self._graphs:
            self.replays += 1
            self._real.run_with_iobinding(self._graphs[number])
        else:
            if self._machine.capture_fails:
                raise RuntimeError("CUDA failure 900: operation not permitted ; GPU=0 ; file=x.cc")
            for _ in range(RUNS_BEFORE_CAPTURE + 1):
                self._real.run_with_iobinding(binding.real)
            self._graphs[number] = binding.real

    @property
    def _captures(self) -> bool:
        return "1" in self.options.get("enable_cuda_graph", "0") or (
            self.options.get("trt_cuda_graph_enable") == "True"
        )

    def _number(self, options: Any) -> str:
        # TensorRT's provider has one graph, whatever number it is given.
        if self.names[0] == "TensorrtExecutionProvider" or options is None:
            return "0"
        return str(options.get_run_config_entry("gpu_graph_id"))


class HostBinding:
    """A binding that takes addresses of the "device"."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def bind_input(self, name: str, device: str, device_id: int, *rest: Any) -> None:
        self.real.bind_input(name, "cpu", 0, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class DeviceValue:
    """``OrtValue`` that has memory of its own on the "device"."""

    def __init__(self, real: ModuleType) -> None:
        self._real = real

    def ortvalue_from_numpy(self, array: np.ndarray, device: str = "cpu", number: int = 0) -> Any:
        own = array if device == "cpu" else array.copy()
        return self._real.OrtValue.ortvalue_from_numpy(own, "cpu", 0)


class FakeGpu(ModuleType):
    """An ``onnxruntime`` for a machine with a GPU.

    Attributes:
        failures: by name of the provider, what making a session raises; ``graph`` for sessions
            that are to capture.
        capture_fails: whether a capture ends in an error.
        sessions: all sessions so far.
        runs: (session, run options) of all runs so far.
        streams: all streams so far.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        super().__init__("onnxruntime")
        self.real = onnxruntime
        self.__file__ = str(folder / "onnxruntime" / "__init__.py")
        self.cuda_version = "13.0"
        self.OrtValue = DeviceValue(onnxruntime)
        self.failures: dict[str, Exception] = {}
        self.capture_fails = False
        self.sessions: list[GraphSession] = []
        self.runs: list[tuple[GraphSession, Any]] = []
        self.streams: list[HostStream] = []
        self.severities: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_available_providers(self) -> list[str]:
        return list(providers.ONNX_NAMES.values())

    def set_default_logger_severity(self, severity: int) -> None:
        self.severities.append(severity)

    def InferenceSession(self, path: Any, options: Any = None, **rest: Any) -> Any:
        if isinstance(path, bytes):  # the graph that selects rows has no state to imitate
            rest["providers"] = ["CPUExecutionProvider"]
            return self.real.InferenceSession(path, options, **rest)
        return GraphSession(self, str(path), options, **rest)

    def failure(self, provider: str, options: dict[str, str]) -> Exception | None:
        captures = options.get("enable_cuda_graph") == "1"
        return (self.failures.get("graph") if captures else None) or self.failures.get(provider)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGpu:
    """ONNX Runtime on a machine with an H200; everything that rtsr opens uses it."""
    machine = FakeGpu(tmp_path / "site-packages")

    def stream(device: int) -> HostStream:
        made = HostStream(device)
        machine.streams.append(made)
        return made

    monkeypatch.setattr(providers, "load_onnxruntime", lambda: machine)
    monkeypatch.setattr(open_session, "CudaStream", stream)
    monkeypatch.setenv("RTSR_CACHE_DIR", str(tmp_path / "cache"))
    return machine


@pytest.fixture
def provider_file(tmp_path: Path) -> Callable[..., ModuleType]:
    """``provider_file(provider, *needed)``: an ``onnxruntime`` whose provider needs libraries."""
    module = ModuleType("onnxruntime")
    module.__file__ = str(tmp_path / "onnxruntime" / "__init__.py")
    module.__version__ = "1.31.1"  # type: ignore[attr-defined]
    module.cuda_version = "13.0"  # type: ignore[attr-defined]

    def write(provider: str, *needed: str) -> ModuleType:
        folder = tmp_path / "onnxruntime" / "capi"
        folder.mkdir(parents=True, exist_ok=True)
        names = b"\0".join([b"\x7fELF", *(name.encode() for name in needed), b"libm.so.6", b""])
        (folder / f"libonnxruntime_providers_{provider}.so").write_bytes(names)
        return module

    return write

"""The driver's calls, with a driver in Python whose device memory is the host's."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import numpy as np
import pytest

from rtsr.errors import ProviderError
from rtsr.runtime.providers import cuda_driver
from rtsr.runtime.providers.cuda_driver import CudaDriver, CudaStream


def _address(value: Any) -> int:
    return value if isinstance(value, int) else value.value


class Driver:
    """What ``ctypes.CDLL`` would give: functions that take ctypes' objects."""

    def __init__(self, gpus: int = 2) -> None:
        self.gpus = gpus
        self.fails: dict[str, int] = {}
        self.calls: list[str] = []
        self.memory: dict[int, Any] = {}
        self.streams = 0

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.fails:
                return self.fails[name]
            effect = getattr(type(self), f"_{name}", None)
            return int(effect(self, *arguments) or 0) if effect else 0

        return call

    def _cuGetErrorString(self, code: int, text: Any) -> None:
        if code == 2:
            text._obj.value = b"out of memory"

    def _cuDeviceGetCount(self, count: Any) -> None:
        count._obj.value = self.gpus

    def _cuDriverGetVersion(self, version: Any) -> None:
        version._obj.value = 12080

    def _cuDeviceGetName(self, text: Any, size: int, device: int) -> None:
        text.value = b"NVIDIA H200"

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> None:
        value._obj.value = {75: 9, 76: 0}[attribute]

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> None:
        context._obj.value = 0x77

    def _cuStreamCreate(self, stream: Any, flags: int) -> None:
        assert flags == 1, "a blocking stream would wait for all others"
        self.streams += 1
        stream._obj.value = 0x1000 * self.streams

    def _cuMemHostAlloc(self, address: Any, size: int, flags: int) -> None:
        memory = (ctypes.c_ubyte * size)(*([7] * size))
        self.memory[ctypes.addressof(memory)] = memory
        address._obj.value = ctypes.addressof(memory)

    def _cuMemFreeHost(self, address: Any) -> None:
        del self.memory[_address(address)]

    def _cuMemcpyHtoDAsync_v2(self, target: int, source: int, size: int, stream: Any) -> None:
        ctypes.memmove(target, source, size)

    def _cuMemcpyDtoHAsync_v2(self, target: int, source: int, size: int, stream: Any) -> None:
        ctypes.memmove(target, source, size)

    def _cuMemsetD8Async(self, target: int, value: int, size: int, stream: Any) -> None:
        ctypes.memset(target, value, size)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(cuda_driver, "_load_driver", lambda: made)
    monkeypatch.setattr(CudaStream, "_idle", {})
    return made


def test_a_gpu_is_described(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_driver_version", lambda: "570.10")
    gpu = CudaDriver(1).describe()
    assert (gpu.name, gpu.compute_capability, gpu.driver) == ("NVIDIA H200", "9.0", "570.10")
    assert gpu.cuda == (12, 8)
    monkeypatch.setattr(cuda_driver, "_driver_version", lambda: "")
    assert CudaDriver(0).describe().driver == "CUDA 12.8"


@pytest.mark.parametrize(
    ("gpus", "device", "sentence"),
    [(2, 2, "no GPU 2: GPUs 0 to 1 are"), (1, 3, "GPU 0 is visible"), (0, 0, "none is visible")],
)
def test_an_absent_gpu_is_named(driver: Driver, gpus: int, device: int, sentence: str) -> None:
    driver.gpus = gpus
    with pytest.raises(ProviderError, match=sentence):
        CudaDriver(device)


@pytest.mark.parametrize(("code", "reason"), [(2, "out of memory"), (999, "error 999")])
def test_a_failure_names_the_function(driver: Driver, code: int, reason: str) -> None:
    driver.fails["cuMemHostAlloc"] = code
    with pytest.raises(ProviderError, match=rf"failed in cuMemHostAlloc \({reason}\)"):
        CudaDriver(0).page_locked(64)


def test_no_driver_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_DRIVER", "libcuda-that-is-not-there.so.1")
    with pytest.raises(ProviderError, match="no NVIDIA driver on this machine"):
        cuda_driver._load_driver.__wrapped__()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="loads the C library")
def test_a_library_without_the_functions_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_DRIVER", "libc.so.6")
    with pytest.raises(ProviderError, match="no NVIDIA driver"):
        cuda_driver._load_driver.__wrapped__()


def test_page_locked_memory_lives_as_long_as_its_arrays(driver: Driver) -> None:
    part = CudaDriver(0).page_locked(256)[64:128].view(np.float32)
    gc.collect()
    assert len(driver.memory) == 1
    assert part.shape == (16,)
    assert not part.any()
    del part
    gc.collect()
    assert not driver.memory


def test_a_stream_copies_both_ways(driver: Driver) -> None:
    stream = CudaStream(0)
    host, device = stream.page_locked(16), np.zeros(16, np.uint8)
    host[:] = np.arange(16)
    stream.activate()
    stream.upload(device.ctypes.data, host.ctypes.data, 16)
    host.fill(0)
    stream.download(host.ctypes.data, device.ctypes.data, 16)
    stream.synchronize()
    assert np.array_equal(host, np.arange(16))
    stream.zero(device.ctypes.data, 8)
    assert np.array_equal(device, [0] * 8 + list(range(8, 16)))
    driver.fails["cuStreamSynchronize"] = 700
    with pytest.raises(ProviderError, match="failed in cuStreamSynchronize"):
        stream.synchronize()


def test_a_stream_is_handed_on_unless_it_was_abandoned(driver: Driver) -> None:
    first = CudaStream(0)
    handle = first.handle
    assert CudaStream(1).handle != handle
    del first
    gc.collect()
    second = CudaStream(0)
    assert second.handle == handle
    second.abandon()
    del second
    gc.collect()
    assert CudaStream(0).handle != handle

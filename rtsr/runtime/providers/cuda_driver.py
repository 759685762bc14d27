"""What a step needs of NVIDIA's driver beside ONNX Runtime.

That is a stream, page-locked memory and copies on that stream.

ONNX Runtime's Python interface has no page-locked memory for its CUDA provider and no copy that
does not wait, and a CUDA graph replays neither the upload of an input nor the download of an output
(https://github.com/microsoft/onnxruntime/issues/29782). The driver's own library has both. It is
there wherever a GPU works, whatever the version of the toolkit, so nothing else is needed: neither
PyTorch, nor CuPy, nor a libcudart of the right version. Streams of the driver and of the runtime
are the same objects
(https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__DRIVER.html); functions are those of
https://docs.nvidia.com/cuda/cuda-driver-api/.
"""

from __future__ import annotations

import ctypes
import re
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ProviderError
from rtsr.runtime.gpu_lock import GPU_LOCK

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MANAGEMENT = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_STREAM_NON_BLOCKING = 1
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_INT, _SIZE, _POINTER = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
_UNSIGNED, _ADDRESS = ctypes.c_uint, ctypes.c_uint64
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (_UNSIGNED,),
    "cuGetErrorString": (_INT, _POINTER),
    "cuDriverGetVersion": (_POINTER,),
    "cuDeviceGetCount": (_POINTER,),
    "cuDeviceGet": (_POINTER, _INT),
    "cuDeviceGetName": (_POINTER, _INT, _INT),
    "cuDeviceGetAttribute": (_POINTER, _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_POINTER, _INT),
    "cuCtxSetCurrent": (_POINTER,),
    "cuCtxSynchronize": (),
    "cuStreamCreate": (_POINTER, _UNSIGNED),
    "cuStreamSynchronize": (_POINTER,),
    "cuMemHostAlloc": (_POINTER, _SIZE, _UNSIGNED),
    "cuMemFreeHost": (_POINTER,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _POINTER, _SIZE, _POINTER),
    "cuMemcpyDtoHAsync_v2": (_POINTER, _ADDRESS, _SIZE, _POINTER),
    "cuMemsetD8Async": (_ADDRESS, ctypes.c_ubyte, _SIZE, _POINTER),
}


@dataclass(frozen=True)
class Gpu:
    """What tells one GPU and its driver from another.

    Attributes:
        name: as its maker calls it.
        compute_capability: ``9.0`` for a Hopper.
        driver: version of the driver.
        cuda: the newest version of CUDA that the driver runs, as ``(major, minor)``.
    """

    name: str
    compute_capability: str
    driver: str
    cuda: tuple[int, int]


class CudaDriver:
    """The driver, and the primary context of one GPU, which ONNX Runtime works in, too.

    Args:
        device: index of the GPU.

    Raises:
        ProviderError: there is no driver, no GPU, or none of that index.
    """

    def __init__(self, device: int) -> None:
        self._library = _load_driver()
        self.call("cuInit", 0)
        count = self._number("cuDeviceGetCount")
        if not 0 <= device < count:
            seen = f"GPUs 0 to {count - 1} are" if count > 1 else "GPU 0 is" if count else "none is"
            raise ProviderError(
                f"There is no GPU {device}: {seen} visible to this process "
                "(see nvidia-smi and CUDA_VISIBLE_DEVICES)."
            )
        self.device = device
        self._handle = self._number("cuDeviceGet", device)
        self._context = _POINTER()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._handle)
        self.activate()

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            ProviderError: it did not succeed.
        """
        self.check(getattr(self._library, function)(*arguments), function)

    def check(self, result: int, function: str) -> None:
        """Raise :class:`ProviderError` unless a function returned success."""
        if result == 0:
            return
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(result, ctypes.byref(text))
        reason = text.value.decode(errors="replace") if text.value else f"error {result}"
        raise ProviderError(f"The GPU's driver failed in {function} ({reason}); see nvidia-smi.")

    def function(self, name: str) -> Callable[..., int]:
        """Return a function of the driver, for use in a step; it gives the driver's code."""
        function: Callable[..., int] = getattr(self._library, name)
        return function

    @property
    def context(self) -> ctypes.c_void_p:
        """The context that a thread must have made its own before it calls anything else."""
        return self._context

    def activate(self) -> None:
        """Make this GPU's context that of the calling thread."""
        self.call("cuCtxSetCurrent", self._context)

    def describe(self) -> Gpu:
        """Facts about the GPU and the driver."""
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), self._handle)
        major, minor = (
            self._number("cuDeviceGetAttribute", attribute, self._handle)
            for attribute in (_MAJOR, _MINOR)
        )
        version = self._number("cuDriverGetVersion")
        cuda = version // 1000, version % 1000 // 10
        return Gpu(
            name=name.value.decode(errors="replace"),
            compute_capability=f"{major}.{minor}",
            driver=_driver_version() or f"CUDA {cuda[0]}.{cuda[1]}",
            cuda=cuda,
        )

    def page_locked(self, size: int) -> NDArray[np.uint8]:
        """Host memory that the GPU reads and writes by itself: zeros ``(size,)``.

        Copies from and to other memory go through a buffer of the driver and make the caller wait.
        """
        address = _POINTER()
        self.call("cuMemHostAlloc", ctypes.byref(address), max(size, 1), 0)
        # Arrays that look at the memory keep its owner, and with it the memory, alive.
        owner = (ctypes.c_ubyte * max(size, 1)).from_address(address.value or 0)
        weakref.finalize(owner, self._free, address).atexit = False
        array: NDArray[np.uint8] = np.ctypeslib.as_array(owner)[:size]
        array.fill(0)
        return array

    def _free(self, address: ctypes.c_void_p) -> None:
        with GPU_LOCK:
            self._library.cuCtxSetCurrent(self._context)
            self._library.cuMemFreeHost(address)

    def _number(self, function: str, *arguments: Any) -> int:
        number = _INT()
        self.call(function, ctypes.byref(number), *arguments)
        return number.value


class CudaStream:
    """A queue of work on a GPU, with the copies that go into it.

    Nothing here waits but :meth:`synchronize`, and every other call must come from the thread that
    called :meth:`activate` last. The queue is never destroyed but handed on to the next user, since
    a session that is being torn down may still look at it.

    Attributes:
        handle: what ONNX Runtime takes as ``user_compute_stream``.
        driver: of the GPU.
    """

    _idle: dict[int, list[int]] = {}  # noqa: RUF012 - one list per GPU, shared on purpose

    def __init__(self, device: int) -> None:
        self.driver = CudaDriver(device)
        idle = self._idle.setdefault(device, [])
        if idle:
            self.handle = idle.pop()
        else:
            handle = _POINTER()
            # Not the legacy stream's kind: that would wait for every other stream.
            self.driver.call("cuStreamCreate", ctypes.byref(handle), _STREAM_NON_BLOCKING)
            self.handle = handle.value or 0
        self._hand_on = weakref.finalize(self, idle.append, self.handle)
        self._hand_on.atexit = False
        self._stream = _POINTER(self.handle)
        self._activate = self.driver.function("cuCtxSetCurrent")
        self._upload = self.driver.function("cuMemcpyHtoDAsync_v2")
        self._download = self.driver.function("cuMemcpyDtoHAsync_v2")
        self._synchronize = self.driver.function("cuStreamSynchronize")

    def activate(self) -> None:
        """Let the calling thread use the GPU."""
        self.driver.check(self._activate(self.driver.context), "cuCtxSetCurrent")

    def abandon(self) -> None:
        """Let nobody have this queue again: it was left in the middle of a capture."""
        self._hand_on.detach()

    def upload(self, target: int, source: int, size: int) -> None:
        """Copy bytes from page-locked memory to the GPU."""
        self.driver.check(self._upload(target, source, size, self._stream), "cuMemcpyHtoDAsync")

    def download(self, target: int, source: int, size: int) -> None:
        """Copy bytes from the GPU to page-locked memory."""
        self.driver.check(self._download(target, source, size, self._stream), "cuMemcpyDtoHAsync")

    def zero(self, target: int, size: int) -> None:
        """Set bytes on the GPU to zero."""
        self.driver.call("cuMemsetD8Async", target, 0, size, self._stream)

    def synchronize(self) -> None:
        """Wait until all of it is done."""
        self.driver.check(self._synchronize(self._stream), "cuStreamSynchronize")

    def synchronize_device(self) -> None:
        """Wait until everything is done that anybody asked of the GPU in this process."""
        self.driver.call("cuCtxSynchronize")

    def page_locked(self, size: int) -> NDArray[np.uint8]:
        """See :meth:`CudaDriver.page_locked`."""
        return self.driver.page_locked(size)


@cache
def _load_driver() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_DRIVER)
        for name, signature in _SIGNATURES.items():
            getattr(library, name).argtypes = signature
    except (OSError, AttributeError):
        raise ProviderError(
            f"There is no NVIDIA driver on this machine ({_DRIVER} cannot be loaded); install it, "
            "or use provider 'cpu'."
        ) from None
    return library


def _driver_version() -> str:
    """Return the driver's version, as NVML or the kernel module has it; empty if unknown."""
    text = ctypes.create_string_buffer(96)
    try:
        library = ctypes.CDLL(_MANAGEMENT)
        if library.nvmlInit_v2() == 0:
            found = library.nvmlSystemGetDriverVersion(text, _UNSIGNED(len(text))) == 0
            library.nvmlShutdown()
            if found:
                return text.value.decode(errors="replace")
    except (OSError, AttributeError):
        pass
    try:
        match = re.search(
            r"Kernel Module.*?\s(\d+(?:\.\d+)+)", Path("/proc/driver/nvidia/version").read_text()
        )
    except OSError:
        return ""
    return match[1] if match else ""

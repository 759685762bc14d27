"""The shared libraries of a provider: load those that pip installed, name those that are missing.

ONNX Runtime says on stderr that a library is missing and then runs on the CPU. So we check first.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import mmap
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

from rtsr.errors import ProviderError
from rtsr.runtime.providers.options import CUDA, TENSORRT

_DRIVER = "libcuda.so"
_TENSORRT = ("libnvinfer.so", "libnvonnxparser.so")
_NEEDED = re.compile(
    rb"lib(?:cuda|cudart|cublas|cublasLt|cudnn|cufft|curand|nvrtc|nvinfer|nvonnxparser)"
    rb"\.so\.\d+(?=\0)"
)
# cuDNN is opened by the CUDA provider when it first needs it, so no list of the linker names it.
_OPENED_LATER = {CUDA: ("libcudnn.so.9",), TENSORRT: ()}
# The names of needed libraries stand near the beginning of a file of hundreds of megabytes.
_SEARCHED_BYTES = 4 << 20


def provider_library(onnxruntime: ModuleType, provider: str) -> Path | None:
    """Return the file of the provider in the installed ONNX Runtime, if it is one of its own."""
    origin = getattr(onnxruntime, "__file__", None)
    if origin is None:
        return None
    file = Path(origin).parent / "capi" / f"libonnxruntime_providers_{provider}.so"
    return file if file.is_file() else None


def preload(onnxruntime: ModuleType, provider: str) -> None:
    """Load the libraries that pip put where the system's loader does not look."""
    preload_dlls = getattr(onnxruntime, "preload_dlls", None)
    if preload_dlls is not None:
        # It prints what it does not find, to stdout, into a pipe's sound.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            # Only NVIDIA's packages: left to itself it would take those of an installed PyTorch.
            preload_dlls(directory="")
    # It looks only beside itself. NVIDIA's packages may lie in another folder of packages.
    _preload_from_packages(needed_libraries(onnxruntime, CUDA))
    if provider == TENSORRT:
        _preload_tensorrt()


def _preload_from_packages(names: Sequence[str]) -> None:
    """Load libraries out of the package ``nvidia``; several folders may have parts of it."""
    folders = [folder for entry in sys.path if (folder := Path(entry) / "nvidia").is_dir()]
    waiting = [name for name in names if not _loads(name)]
    for _ in range(len(waiting)):
        # One may need another that stands behind it.
        left = [name for name in waiting if not _load_from(folders, name)]
        if len(left) == len(waiting):
            return
        waiting = left


def _load_from(folders: Sequence[Path], name: str) -> bool:
    for file in (file for folder in folders for file in sorted(folder.glob(f"*/lib/{name}"))):
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
            return True
    return False


def _preload_tensorrt() -> None:
    try:
        package = importlib.import_module("tensorrt_libs")
    except Exception:  # not installed, or a placeholder of the package index that raises
        return
    for folder in map(Path, package.__path__):
        for library in _TENSORRT:
            for file in sorted(folder.glob(f"{library}.*")):
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)


def needed_libraries(onnxruntime: ModuleType, provider: str) -> list[str]:
    """Names of NVIDIA's libraries that the provider needs; empty where we cannot tell."""
    file = provider_library(onnxruntime, provider)
    if file is None or not sys.platform.startswith("linux"):
        return []
    with file.open("rb") as handle:
        size = min(file.stat().st_size, _SEARCHED_BYTES)
        if size == 0:
            return []
        with mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ) as content:
            found = {match.group().decode() for match in _NEEDED.finditer(content)}
    return sorted(found | set(_OPENED_LATER[provider]))


def missing_libraries(onnxruntime: ModuleType, provider: str) -> list[str]:
    """Which of the needed libraries cannot be loaded, after :func:`preload`."""
    needed = needed_libraries(onnxruntime, provider)
    if provider == TENSORRT:
        needed += needed_libraries(onnxruntime, CUDA)
    return [name for name in dict.fromkeys(needed) if not _loads(name)]


def require_libraries(onnxruntime: ModuleType, provider: str) -> None:
    """Load what the provider needs.

    Raises:
        ProviderError: something is missing; it says what, what is there, and how to get the rest.
    """
    preload(onnxruntime, provider)
    missing = missing_libraries(onnxruntime, provider)
    if not missing:
        return
    if any(name.startswith(_DRIVER) for name in missing):
        raise ProviderError(
            f"Provider {provider!r} needs an NVIDIA GPU with its driver, and there is no driver "
            f"({_DRIVER}.1); install the driver, or use provider 'cpu'."
        )
    raise ProviderError(
        f"Provider {provider!r} of {_runtime(onnxruntime)} lacks {', '.join(missing)}; install "
        f"with {' and '.join(_commands(onnxruntime, missing))}, or use provider 'cpu'."
    )


def require_driver_for(onnxruntime: ModuleType, provider: str, driver: tuple[int, int]) -> None:
    """Refuse a driver that is too old for the CUDA that ONNX Runtime was built with.

    Args:
        onnxruntime: the module.
        provider: ``cuda`` or ``tensorrt``.
        driver: the newest CUDA that the driver runs, ``(major, minor)``.

    Raises:
        ProviderError: it is of an earlier major version.
    """
    built = _cuda_version(onnxruntime)
    if built is not None and driver[0] < built:
        raise ProviderError(
            f"Provider {provider!r} of {_runtime(onnxruntime)} is built for CUDA {built}, and this "
            f"machine's driver runs CUDA {driver[0]}.{driver[1]} at most; update the driver, or "
            f"install an onnxruntime-gpu that is built for CUDA {driver[0]}."
        )


def installed_distributions() -> list[str]:
    """Which distributions of ONNX Runtime are installed, with their versions; one is right."""
    names = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
    found = []
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _commands(onnxruntime: ModuleType, missing: list[str]) -> list[str]:
    """Word the ``pip install`` of what is missing; ONNX Runtime's extras know the versions."""
    commands = []
    if any(not name.startswith(_TENSORRT) for name in missing):
        version = getattr(onnxruntime, "__version__", "")
        exact = f"=={version}" if version else ""
        commands.append(f'pip install "onnxruntime-gpu[cuda,cudnn]{exact}"')
    for name in missing:
        if name.startswith(_TENSORRT):
            major = name.rpartition(".")[2]
            suffix = f"-cu{cuda}" if (cuda := _cuda_version(onnxruntime)) else ""
            commands.append(f'pip install "tensorrt{suffix}=={major}.*"')
            break
    return commands


def _cuda_version(onnxruntime: ModuleType) -> int | None:
    match = re.match(r"(\d+)", str(getattr(onnxruntime, "cuda_version", "") or ""))
    return int(match[1]) if match else None


def _runtime(onnxruntime: ModuleType) -> str:
    return f"ONNX Runtime {getattr(onnxruntime, '__version__', '')}".rstrip()

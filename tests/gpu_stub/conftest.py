"""ONNX Runtime's real CUDA provider on stand-ins for NVIDIA's libraries.

``make test-gpu-stub`` puts onnxruntime-gpu into a folder of its own and that folder before the
others; everywhere else these tests are skipped, and say why.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "build_stand_ins", Path(__file__).with_name("build_stand_ins.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Gpu:
    """What the stand-ins saw, and what they shall do."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.stand_in_take_events.restype = ctypes.c_size_t
        library.stand_in_take_events.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
        library.stand_in_eager_kernels.restype = ctypes.c_long

    def events(self) -> list[str]:
        """What happened since the last call, in order."""
        size = self.library.stand_in_take_events(None, 0) + 4096
        text = ctypes.create_string_buffer(size)
        self.library.stand_in_take_events(text, size)
        return text.value.decode().splitlines()

    def eager_kernels(self) -> int:
        """Kernels that were launched one by one, since the process began."""
        return int(self.library.stand_in_eager_kernels())

    def fail(self, function: str, code: int = 999) -> None:
        """Let a function fail from now on; an empty name ends it."""
        self.library.stand_in_fail(function.encode(), code)

    def slow_captures(self, milliseconds: int) -> None:
        """Let every capture take so long, for others to get in between."""
        self.library.stand_in_set_capture_milliseconds(milliseconds)


@pytest.fixture(scope="session")
def provider_library() -> Path:
    """The file of the CUDA provider that is installed."""
    from rtsr.runtime.providers.libraries import provider_library

    onnxruntime = pytest.importorskip("onnxruntime")
    file = provider_library(onnxruntime, "cuda")
    if file is None or not sys.platform.startswith("linux"):
        pytest.skip("the installed ONNX Runtime has no CUDA provider; use `make test-gpu-stub`")
    return file


@pytest.fixture(scope="session")
def stand_ins(provider_library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The stand-ins as files, compiled now."""
    builder = _load_builder()
    try:
        found: list[Path] = builder.build(provider_library, tmp_path_factory.mktemp("stand-ins"))
    except builder.NoCompilerError as error:
        pytest.skip(str(error))
    return found


@pytest.fixture(scope="session")
def _loaded(stand_ins: list[Path]) -> Gpu:
    libraries = [ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL) for file in stand_ins]
    return Gpu(libraries[0])


@pytest.fixture
def gpu(_loaded: Gpu) -> Iterator[Gpu]:
    """A machine with one GPU, which has done nothing yet."""
    _loaded.events()
    yield _loaded
    _loaded.fail("")
    _loaded.slow_captures(0)


@pytest.fixture
def of_kind(gpu: Gpu) -> Callable[[str], list[str]]:
    """``of_kind(word)``: the events since the last call that begin with a word."""
    return lambda word: [event for event in gpu.events() if event.startswith(word)]

"""Denormal numbers really become zero, in the thread that asked for it and in no other."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import threading
from collections.abc import Callable

import numpy as np
import pytest
from numba import boolean, cfunc, float32, float64, njit

from rtsr_kernels.denormals import denormals_flushed, flush_denormals

KNOWN = platform.machine().lower() in ("x86_64", "amd64", "i686", "aarch64", "arm64")


@pytest.fixture(autouse=True)
def standard_arithmetic() -> None:
    """Other tests may have left this thread flushing, as ONNX Runtime does; threads inherit it."""
    library = ctypes.util.find_library("m")
    if library is not None:
        standard = ctypes.c_void_p(-1)  # FE_DFL_ENV of glibc and of Apple's x86 library
        ctypes.CDLL(library).fesetenv(standard)
    if denormals_flushed():
        pytest.skip("this thread takes denormals for zero and cannot be set back")


@njit(float32(float32, float32), nogil=True)
def product32(a, b):  # type: ignore[no-untyped-def]
    return a * b


@njit(float64(float64, float64), nogil=True)
def product64(a, b):  # type: ignore[no-untyped-def]
    return a * b


def in_new_thread(action: Callable[[], object]) -> object:
    """The result of `action` in a thread of its own, as the setting outlasts the call."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()
    thread.join()
    return results[0]


def products() -> tuple[float, float, float, float]:
    return (
        float(product32(np.float32(1e-30), np.float32(1e-10))),
        float(product64(1e-200, 1e-110)),
        # A denormal operand, which would give a normal result.
        float(product32(np.float32(1e-40), np.float32(1e20))),
        float((np.full(64, 1e-30, np.float32) * np.float32(1e-10)).max()),
    )


def test_denormals_are_kept_unless_asked() -> None:
    assert in_new_thread(denormals_flushed) is False
    kept = in_new_thread(products)
    assert isinstance(kept, tuple)
    assert all(value > 0.0 for value in kept)


@pytest.mark.skipif(not KNOWN, reason="no flush-to-zero known for this processor")
def test_denormals_become_zero() -> None:
    def flush_and_multiply() -> tuple[object, ...]:
        before = denormals_flushed()
        return before, flush_denormals(), denormals_flushed(), *products()

    assert in_new_thread(flush_and_multiply) == (False, True, True, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.skipif(not KNOWN, reason="no flush-to-zero known for this processor")
def test_other_threads_are_left_alone() -> None:
    flushed, checked = threading.Event(), threading.Event()

    def hold() -> bool:
        answer = flush_denormals()
        flushed.set()
        checked.wait(10)
        return answer

    thread = threading.Thread(target=hold)
    thread.start()
    assert flushed.wait(10)
    assert denormals_flushed() is False
    assert min(products()) > 0.0
    checked.set()
    thread.join()


@pytest.mark.skipif(KNOWN, reason="this processor has flush-to-zero")
def test_says_so_where_nothing_can_be_done() -> None:
    assert in_new_thread(flush_denormals) is False


def test_usable_from_a_c_callback() -> None:
    @cfunc(boolean())
    def callback():  # type: ignore[no-untyped-def]
        return flush_denormals()

    assert in_new_thread(lambda: (callback.ctypes(), denormals_flushed())) == (KNOWN, KNOWN)

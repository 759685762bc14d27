"""The system's monotonic clock as a C function, for the audio callback to read.

PortAudio has a clock for each open stream only, and one that a sound server may let go in steps.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import cfunc, float64, types
from numba.core import cgutils
from numba.extending import intrinsic

_WORD = ir.IntType(64)


@functools.lru_cache(maxsize=1)
def monotonic_clock() -> Any:
    """Return numba's C function `double clock(void)`: seconds of `time.monotonic`; see `.address`.

    `None` where the system has no clock that is known here. The callback then measures no times.
    """
    read = _reader()
    if read is None:
        return None

    # Not cached on disk: the system function's address is compiled in.
    @cfunc(float64())
    def clock() -> float:
        return read()

    return clock


def _reader() -> Callable[[], float] | None:
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    if os.name == "nt":
        return _performance_counter()
    try:
        function = ctypes.CDLL(None).clock_gettime
    except (OSError, AttributeError):
        return None
    # On macOS `time.monotonic` reads the clock that stands still while the machine sleeps.
    clock_id = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
    return _clock_gettime(_address(function), clock_id)


def _clock_gettime(address: int, clock_id: int) -> Any:
    def read(typing_context: Any) -> Any:
        """`clock_gettime` of POSIX: seconds and nanoseconds, two 64-bit words."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            spec = cgutils.alloca_once(builder, ir.ArrayType(_WORD, 2))
            kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), spec.type])
            function = builder.inttoptr(ir.Constant(_WORD, address), kind.as_pointer())
            builder.call(function, [ir.Constant(ir.IntType(32), clock_id), spec])
            seconds, nanoseconds = (
                builder.sitofp(
                    builder.load(cgutils.gep_inbounds(builder, spec, 0, index)), ir.DoubleType()
                )
                for index in (0, 1)
            )
            scaled = builder.fmul(nanoseconds, ir.Constant(ir.DoubleType(), 1e-9))
            return builder.fadd(seconds, scaled)

        return types.float64(), generate

    return intrinsic(read)


def _performance_counter() -> Any:
    kernel32: Any = ctypes.CDLL("kernel32")
    frequency = ctypes.c_int64()
    kernel32.QueryPerformanceFrequency(ctypes.byref(frequency))
    address = _address(kernel32.QueryPerformanceCounter)
    tick = 1.0 / frequency.value

    def read(typing_context: Any) -> Any:
        """`QueryPerformanceCounter` of Windows: one 64-bit word."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            count = cgutils.alloca_once(builder, _WORD)
            kind = ir.FunctionType(ir.IntType(32), [count.type])
            function = builder.inttoptr(ir.Constant(_WORD, address), kind.as_pointer())
            builder.call(function, [count])
            ticks = builder.sitofp(builder.load(count), ir.DoubleType())
            return builder.fmul(ticks, ir.Constant(ir.DoubleType(), tick))

        return types.float64(), generate

    return intrinsic(read)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0

"""Plain machine addresses in compiled code: what a C callback gets, and what its state holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray as numba_carray
from numba import float32, njit, types
from numba.core import cgutils
from numba.extending import intrinsic


def _pointer_to(typing_context: Any, address: Any) -> Any:
    """Return the untyped pointer that an integer address means."""
    if not isinstance(address, types.Integer):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


def _read_clock(typing_context: Any, address: Any) -> Any:
    """Seconds as told by the C function `double clock(void)` at `address`."""
    if not isinstance(address, types.Integer):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.DoubleType(), [])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [])

    return types.float64(address), generate


# An intrinsic is called with one argument fewer than it is written with: hence the bare type.
pointer_to: Any = intrinsic(_pointer_to)
read_clock: Any = intrinsic(_read_clock)


# Its stubs know numpy's types only, compiled code needs numba's.
carray: Any = numba_carray


@njit(inline="always")
def frames_at(address: int, frames: int, channels: int) -> np.ndarray:
    """float32 `(frames, channels)` at `address`, without a copy. Nothing is checked."""
    return carray(pointer_to(address), (frames, channels), float32)

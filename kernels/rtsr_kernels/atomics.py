"""Acquire loads and release stores on array elements: what a lock-free queue needs, for any CPU.

numba offers no CPU atomics, and a plain load or store may be moved by the compiler (everywhere) or
by the processor (ARM) past the copying of samples that it is meant to guard. A fence does the same
for the side that an acquire load or a release store leaves open. All are for compiled code only.

numba's disk cache notices a change of the module that uses these, not a change made here: after
one, touch the text of that module too.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WORD_BYTES = 8


def _is_word_array(array: Any) -> bool:
    return bool(
        isinstance(array, types.Array)
        and array.ndim == 1
        and array.layout == "C"
        and array.dtype in (types.int64, types.uint64)
    )


def _element_pointer(
    context: Any, builder: Any, array_type: Any, array: Any, index_type: Any, index: Any
) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    index = context.cast(builder, index, index_type, types.intp)
    return cgutils.gep_inbounds(builder, view.data, index)


def _load_acquire(typing_context: Any, array: Any, index: Any) -> Any:
    """`array[index]` of a C-contiguous 1-D int64 or uint64 array, as an atomic acquire load.

    No later read or write of this thread moves in front of it. The index is not checked.
    """
    if not (_is_word_array(array) and isinstance(index, types.Integer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, index_type = signature.args
        pointer = _element_pointer(
            context, builder, array_type, arguments[0], index_type, arguments[1]
        )
        return builder.load_atomic(pointer, "acquire", _WORD_BYTES)

    return array.dtype(array, index), generate


def _store_release(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """`array[index] = value` as an atomic release store; array as for `load_acquire`, but writable.

    No earlier read or write of this thread moves behind it. The index is not checked.
    """
    if not (
        _is_word_array(array)
        and array.mutable
        and isinstance(index, types.Integer)
        and isinstance(value, types.Integer)
    ):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, index_type, value_type = signature.args
        pointer = _element_pointer(
            context, builder, array_type, arguments[0], index_type, arguments[1]
        )
        word = context.cast(builder, arguments[2], value_type, array_type.dtype)
        builder.store_atomic(word, pointer, "release", _WORD_BYTES)
        return context.get_dummy_value()

    return types.void(array, index, value), generate


def _fence_acquire(typing_context: Any) -> Any:
    """No later read or write of this thread moves in front of any earlier read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("acquire")
        return context.get_dummy_value()

    return types.void(), generate


def _fence_release(typing_context: Any) -> Any:
    """No earlier read or write of this thread moves behind any later write."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("release")
        return context.get_dummy_value()

    return types.void(), generate


# An intrinsic is called with one argument fewer than it is written with: hence the bare type.
load_acquire: Any = intrinsic(_load_acquire)
store_release: Any = intrinsic(_store_release)
fence_acquire: Any = intrinsic(_fence_acquire)
fence_release: Any = intrinsic(_fence_release)

"""Switch denormal numbers off, for the calling thread.

The tail of every recursive filter decays through numbers below 1e-38, on which x86 processors take
a hundred times longer: silence would be the most expensive input. Nothing that small is audible.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import boolean, types
from numba.core import cgutils
from numba.extending import intrinsic

from .compiled import kernel

# MXCSR of x86: flush results to zero, and take denormal operands for zero.
_X86_FLUSH = (1 << 15) | (1 << 6)
# FPCR of 64-bit ARM: FZ, for results and operands alike.
_ARM_FLUSH = 1 << 24


def _architecture() -> str:
    name = llvmlite.binding.get_process_triple().split("-")[0]
    if name in ("x86_64", "amd64", "i386", "i586", "i686"):
        return "x86"
    if name in ("aarch64", "arm64", "arm64e"):
        return "arm"
    return "other"


def _function(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _update_control_word(builder: Any, architecture: str, bits: int) -> Any:
    """Set `bits` in the control word where there is one; returns an i1, whether all are set now."""
    if architecture == "x86":
        word = ir.IntType(32)
        slot = cgutils.alloca_once(builder, word)
        address = builder.bitcast(slot, ir.IntType(8).as_pointer())
        store = _function(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [address.type])
        load = _function(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [address.type])
        builder.call(store, [address])
        if bits:
            builder.store(builder.or_(builder.load(slot), word(bits)), slot)
            builder.call(load, [address])
            builder.call(store, [address])
        value = builder.load(slot)
        mask = word(_X86_FLUSH)
    elif architecture == "arm":
        word = ir.IntType(64)
        get = _function(builder, "llvm.aarch64.get.fpcr", word, [])
        put = _function(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [word])
        if bits:
            builder.call(put, [builder.or_(builder.call(get, []), word(bits))])
        value = builder.call(get, [])
        mask = word(_ARM_FLUSH)
    else:
        return ir.IntType(1)(0)
    return builder.icmp_unsigned("==", builder.and_(value, mask), mask)


def _set_flush(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        architecture = _architecture()
        bits = _X86_FLUSH if architecture == "x86" else _ARM_FLUSH
        return _update_control_word(builder, architecture, bits)

    return types.boolean(), generate


def _get_flush(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _update_control_word(builder, _architecture(), 0)

    return types.boolean(), generate


_set: Any = intrinsic(_set_flush)
_get: Any = intrinsic(_get_flush)


@kernel(boolean())
def flush_denormals() -> bool:
    """Make this thread treat denormal results and operands as zero; return whether it does.

    On x86 and 64-bit ARM True; on any other processor nothing is done and the answer is False. The
    setting belongs to the thread: threads started later may or may not inherit it, and code that
    sets the control word itself (some libraries do while they compute) undoes it. Callable from
    Python and from compiled code, and cheap enough for once per block.
    """
    return _set()


@kernel(boolean())
def denormals_flushed() -> bool:
    """Say whether this thread treats denormal numbers as zero."""
    return _get()

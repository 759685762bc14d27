"""How every kernel of this package is compiled: ahead of its first call, without the GIL, cached.

Compiling happens at import, so that the first audio block is as fast as every later one. The
machine code is kept on disk by numba: in `NUMBA_CACHE_DIR` where that is set, beside the module
where that is writable, else in the user's cache directory or a temporary folder. Where it lies
already it is used, also if nothing can be written there, and not if a module has changed. The
logger `rtsr_kernels` tells of each function that had to be compiled (level INFO).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from numba import cfunc, float32, float64, int64, njit, types

from .disk_cache import cached, cached_c_function
from .temporary_cache import use_temporary_cache

_log = logging.getLogger("rtsr_kernels")

Function = TypeVar("Function", bound=Callable[..., Any])

AUDIO = types.Array(float32, 2, "C")
"""Writable float32 audio, C-contiguous `(frames, channels)`."""

# numba converts a writable array to a read-only one but never the other way round, so one
# signature with read-only inputs also takes what `numpy.frombuffer` and shared memory hand out.
AUDIO_IN = types.Array(float32, 2, "C", readonly=True)
"""float32 audio that is only read, C-contiguous `(frames, channels)`."""

SAMPLES = types.Array(float32, 1, "C")
"""Writable float32 samples of one channel, C-contiguous."""
SAMPLES_IN = types.Array(float32, 1, "C", readonly=True)
LINE = types.Array(float32, 1, "A")
"""Writable float32 samples of one channel, of any stride, such as a column of `AUDIO`."""
LINE_IN = types.Array(float32, 1, "A", readonly=True)

VECTOR = types.Array(float64, 1, "C")
VECTOR_IN = types.Array(float64, 1, "C", readonly=True)
MATRIX = types.Array(float64, 2, "C")
MATRIX_IN = types.Array(float64, 2, "C", readonly=True)
STATE = types.Array(float64, 3, "C")
INDICES_IN = types.Array(int64, 1, "C", readonly=True)
INDICES = types.Array(int64, 1, "C")


def kernel(signature: Any, **options: Any) -> Callable[[Function], Function]:
    """Compile a function at once for one signature, cached on disk where any place for it exists.

    Where the disk is full, or there is not even a temporary folder, the function is compiled in
    memory instead: a slower import, never a failed one.
    """

    def compile_now(function: Function) -> Function:
        compiled = _from_disk(lambda: cached(function, signature, options))
        if compiled is None:
            compiled = njit(signature, nogil=True, **options)(function)
        if not compiled.stats.cache_hits:
            _log.info("compiled %s", function.__name__)
        return compiled

    return compile_now


def c_function(function: Callable[..., Any], signature: Any) -> Any:
    """Return a function that C calls, as ``numba.cfunc`` makes it, from the same places."""
    compiled = _from_disk(lambda: cached_c_function(function, signature))
    if compiled is None:
        compiled = cfunc(signature)(function)
    if not compiled.cache_hits:
        _log.info("compiled %s", function.__name__)
    return compiled


def _from_disk(find: Callable[[], Any]) -> Any:
    """Return what is found or written on disk, else in a temporary folder, else ``None``."""
    found = find()
    return find() if found is None and use_temporary_cache() else found

"""numba's cache of compiled code on disk, also read-only, and valid for all sources together.

numba looks at the file of a function alone, and not at those whose functions it calls and has in
its own machine code: after an upgrade it would run the old ones. And it takes only a folder that it
can write, so that it would compile everything again where an image or an installer has left the
code: at each start, in a container whose own files are read-only.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core import caching
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature

__all__ = ["cached", "cached_c_function"]

#: numba's own places, in its order; some versions have an underscore before the name.
_PLACES: list[Any] = [
    each
    for each in caching.CompileResultCacheImpl._locator_classes
    if each.__name__.lstrip("_")
    in ("UserProvidedCacheLocator", "InTreeCacheLocator", "UserWideCacheLocator")
]


class _NotThereError(Exception):
    """The code of a function is not there, or is for another machine, version or source."""


def cached(function: Callable[..., Any], signature: Any, options: dict[str, Any]) -> Any:
    """Return a function from the disk, or compiled and written there; ``None`` if neither can be.

    The first place that can be written is the one where code goes. Those before it are read.
    """

    def compiled(cache: Any) -> Any:
        dispatcher = njit(nogil=True, **options)(function)
        dispatcher._cache = cache
        for each in signature if isinstance(signature, list) else [signature]:
            dispatcher.compile(each)
        dispatcher.disable_compile()
        return dispatcher

    return _from_any_place(function, compiled)


def cached_c_function(function: Callable[..., Any], signature: Any) -> Any:
    """Return the same of a function that C calls, as ``numba.cfunc`` makes it."""

    def compiled(cache: Any) -> Any:
        made: Any = CFunc(function, normalize_signature(signature), {}, {})
        made._cache = cache
        made.compile()
        return made

    return _from_any_place(function, compiled)


def _from_any_place(function: Callable[..., Any], compiled: Callable[[Any], Any]) -> Any:
    source = function.__code__.co_filename
    if not os.path.exists(source):
        return None
    for place in _PLACES:
        if "UserProvided" in place.__name__ and not config.CACHE_DIR:  # type: ignore[attr-defined]
            continue
        locator = place(function, source)
        try:
            locator.ensure_cache_path()
            is_writable = True
        except OSError:
            is_writable = False
        if not is_writable and not os.path.isdir(locator.get_cache_path()):
            continue
        try:
            return compiled(_cache(function, place, is_writable))
        except (_NotThereError, OSError):
            continue
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
    return None


def _package_around(folder: Path) -> Path:
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return folder


@functools.cache
def _sources_hash(package: Path) -> str:
    """Return a hash of this package's modules and those of another.

    A function may call those of both, and have their constants in its machine code.
    """
    files = [*Path(__file__).parent.glob("*.py"), *package.rglob("*.py")]
    found = hashlib.sha256()
    for file in sorted(set(files)):
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


def _cache(function: Callable[..., Any], place: type[Any], is_writable: bool) -> Any:
    class Place(place):  # type: ignore[misc]
        def ensure_cache_path(self) -> None:
            if is_writable:
                super().ensure_cache_path()

        def get_source_stamp(self) -> Any:
            return _sources_hash(_package_around(Path(self._py_file).parent))

    class Files(caching.CompileResultCacheImpl):  # type: ignore[misc]
        _locator_classes: Any = (Place,)

        def __init__(self, function: Any) -> None:
            super().__init__(function)
            # An environment variable of numba's may name other places.
            self._locator = Place(function, function.__code__.co_filename)

    class Cache(caching.FunctionCache):  # type: ignore[misc]
        _impl_class = Files

        def load_overload(self, *arguments: Any) -> Any:
            try:
                found = super().load_overload(*arguments)
            except OSError:
                raise
            except Exception:  # what unpickling damaged files raises has no common base
                found = None
                if is_writable:
                    # What is compiled now is entered into an index that can be read.
                    self.flush()
            if found is None and not is_writable:
                raise _NotThereError
            return found

    return Cache(function)

"""Compiled code that an image or an installer has left where this user can read and not write.

numba takes only a folder for its cache that it can write, so that it would compile everything again
although the code lies there: at each start, in a container whose own files are read-only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core import caching

__all__ = ["kept"]

#: numba's own places, in its order; some versions have an underscore before the name.
_PLACES: list[Any] = [
    each
    for each in caching.CompileResultCacheImpl._locator_classes
    if each.__name__.lstrip("_")
    in ("UserProvidedCacheLocator", "InTreeCacheLocator", "UserWideCacheLocator")
]


class _NotKeptError(Exception):
    """The code of a function is not there, or is for another machine, version or source."""


def kept(function: Callable[..., Any], signature: Any, options: dict[str, Any]) -> Any:
    """Return the compiled function from a read-only folder; ``None`` where numba's way is taken.

    numba's way is taken as soon as one of its places can be written: it reads from there, too.
    """
    source = function.__code__.co_filename
    for place in _PLACES:
        if "UserProvided" in place.__name__ and not config.CACHE_DIR:  # type: ignore[attr-defined]
            continue
        folder = place(function, source).get_cache_path()
        if _can_be_written(Path(folder)):
            return None
        if os.path.isdir(folder):
            try:
                return _loaded(function, signature, options, place)
            except (_NotKeptError, OSError):
                continue
    return None


def _loaded(
    function: Callable[..., Any], signature: Any, options: dict[str, Any], place: type[Any]
) -> Any:
    class Place(place):  # type: ignore[misc]
        def ensure_cache_path(self) -> None:
            """Let a folder count that cannot be written."""

    class Files(caching.CompileResultCacheImpl):  # type: ignore[misc]
        _locator_classes: Any = (Place,)

    class Cache(caching.FunctionCache):  # type: ignore[misc]
        _impl_class = Files

        def load_overload(self, *arguments: Any) -> Any:
            found = super().load_overload(*arguments)
            if found is None:
                raise _NotKeptError
            return found

    dispatcher = njit(nogil=True, **options)(function)
    dispatcher._cache = Cache(function)
    for each in signature if isinstance(signature, list) else [signature]:
        dispatcher.compile(each)
    dispatcher.disable_compile()
    return dispatcher


def _can_be_written(folder: Path) -> bool:
    """Whether a folder can be written, or made where there is none."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)

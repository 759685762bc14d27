"""Files that appear under their names only when they are whole, and the JSON in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rtsr import whole_file
from rtsr.errors import RtsrError


def write_text(path: Path, text: str) -> None:
    """Put a text under a name only when it is whole.

    Raises:
        RtsrError: the file cannot be written.
    """
    try:
        whole_file.write_whole(path, text)
    except OSError as error:
        raise RtsrError(f"'{path}' cannot be written: {error.strerror or error}.") from None


def write_json(path: Path, values: Any) -> None:
    """Write strict JSON, whole or not at all.

    Raises:
        RtsrError: the file cannot be written.
        ValueError: a number is not finite.
    """
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Read JSON; ``what`` says in an error what the file should have been.

    Raises:
        RtsrError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise RtsrError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise RtsrError(f"'{path}' is not JSON; {what} writes such files.") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def flat(value: Any, *place: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the single values of nested JSON, and lists of them, each with its place."""
    if isinstance(value, Mapping):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        parts = enumerate(value)
    else:
        yield place, value
        return
    for name, part in parts:
        yield from flat(part, *place, str(name))


def check_writable(*paths: Path | None) -> None:
    """Raise :class:`RtsrError` now and not after half an hour if there is no place for a file.

    Args:
        paths: of the files; ``None`` is none.
    """
    for path in paths:
        if path is not None:
            whole_file.check_writable(path)

"""The file of results: one JSON object, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr_bench.compare import FIGURES

FORMAT = 1
KIND = "rtsr bench"


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write results, strictly JSON.

    Raises:
        RtsrError: the file cannot be written.
    """
    write_text(path, json.dumps(results, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Put a text under a name only when it is whole.

    Raises:
        RtsrError: the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RtsrError(f"'{path}' cannot be written: {error.strerror or error}.") from None


def check_writable(path: Path) -> None:
    """Raise :class:`RtsrError` now and not after half an hour if there is no place for a file."""
    if path.is_dir():
        raise RtsrError(f"'{path}' is a folder; name a file.")
    if not path.parent.is_dir():
        raise RtsrError(f"There is no folder '{path.parent}'; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise RtsrError(f"'{path}' cannot be written: its folder is not writable.")


def read_results(path: Path) -> dict[str, Any]:
    """Read what :func:`write_results` wrote.

    Raises:
        RtsrError: the file cannot be read, or is something else.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RtsrError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise RtsrError(f"'{path}' is not JSON; `rtsr bench --json` writes such files.") from None
    if not isinstance(results, dict) or results.get("kind") != KIND:
        raise RtsrError(f"'{path}' holds no results of `rtsr bench --json`.")
    if results.get("format") != FORMAT:
        raise RtsrError(
            f"'{path}' has format {results.get('format')!r}, this rtsr reads format {FORMAT}; "
            "measure again."
        )
    cells = results.get("cells")
    if not isinstance(cells, list) or not all(_is_cell(entry) for entry in cells):
        raise RtsrError(f"'{path}' is damaged: its cells are not what `rtsr bench` writes.")
    searches = results.get("searches")
    if not isinstance(searches, list) or not all(_is_search(entry) for entry in searches):
        raise RtsrError(f"'{path}' is damaged: its searches are not what `rtsr bench` writes.")
    return results


def _is_search(entry: Any) -> bool:
    wanted = {"label", "streams", "fails_at", "finished"}
    return (
        isinstance(entry, dict)
        and wanted <= set(entry)
        and isinstance(entry["label"], str)
        and isinstance(entry["streams"], int)
        and isinstance(entry["fails_at"], int | None)
    )


def _is_cell(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("label"), str)
        and isinstance(entry.get("repetitions"), list)
        and all(_is_repetition(repetition) for repetition in entry["repetitions"])
    )


def _is_repetition(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    if not all(isinstance(entry.get(name, 0), int) for name in ("steps", "missed_deadlines")):
        return False
    return all(isinstance(entry.get(figure), int | float | None) for figure in FIGURES)

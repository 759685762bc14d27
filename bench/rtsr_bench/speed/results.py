"""The file of results of ``rtsr bench speed --json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr_bench.files import read_json
from rtsr_bench.speed.compare import FIGURES

FORMAT = 2
KIND = "rtsr bench"
#: What the error of a case begins with that was not worth its time.
LEFT_OUT = "Left out: "


def read_results(path: Path) -> dict[str, Any]:
    """Read what ``rtsr bench speed --json`` wrote, also before cases were called so (format 1).

    Raises:
        RtsrError: the file cannot be read, or is something else.
    """
    results = read_json(path, "`rtsr bench speed --json`")
    if not isinstance(results, dict) or results.get("kind") != KIND:
        raise RtsrError(f"'{path}' holds no results of `rtsr bench speed --json`.")
    if results.get("format") == 1:
        results["cases"] = results.pop("cells", None)
    elif results.get("format") != FORMAT:
        raise RtsrError(
            f"'{path}' has format {results.get('format')!r}, this rtsr reads format {FORMAT}; "
            "measure again."
        )
    for part, is_right in (("cases", _is_case), ("searches", _is_search)):
        found = results.get(part)
        if not isinstance(found, list) or not all(map(is_right, found)):
            raise RtsrError(
                f"'{path}' is damaged: its {part} are not what `rtsr bench speed` writes."
            )
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


def _is_case(entry: Any) -> bool:
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

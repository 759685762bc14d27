"""The file of results of ``rtsr bench speed --json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr_bench.files import read_json
from rtsr_bench.speed.compare import compare

FORMAT = 2
KIND = "rtsr bench"
#: What the error of a case begins with that was not worth its time.
LEFT_OUT = "Left out: "


def read_results(path: Path) -> dict[str, Any]:
    """Read what ``rtsr bench speed --json`` wrote.

    Raises:
        RtsrError: the file cannot be read, or is something else.
    """
    results = read_json(path, "`rtsr bench speed --json`")
    if not isinstance(results, dict) or results.get("kind") != KIND:
        raise RtsrError(f"'{path}' holds no results of `rtsr bench speed --json`.")
    if results.get("format") != FORMAT:
        raise RtsrError(
            f"'{path}' has format {results.get('format')!r}, this rtsr reads format {FORMAT}; "
            "measure again."
        )
    try:
        # With itself, only to see that all is there that a comparison reads.
        compare(results, results)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RtsrError(
            f"'{path}' is damaged: it does not hold what `rtsr bench speed` writes."
        ) from None
    return results

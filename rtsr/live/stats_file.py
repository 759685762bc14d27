"""Figures of a session for programs: one JSON object at the end, one line a second on request."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rtsr.errors import RtsrError

STDOUT = "-"


class StatsFile:
    """Writes a session's figures, each object on a line of its own.

    Args:
        path: of the file, ``-`` for stdout, ``None`` for nowhere.

    Raises:
        RtsrError: the file cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        self._file: TextIO | None = None
        if path == STDOUT:
            self._file = sys.stdout
        elif path is not None:
            try:
                # Now, and not after hours of sound.
                self._file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115 (close())
            except OSError as error:
                raise RtsrError(
                    f"Stats file '{path}' cannot be written: {error.strerror or error}."
                ) from None

    def write(self, figures: dict[str, Any]) -> None:
        """Append one object; whoever reads the file sees it at once."""
        if self._file is not None:
            self._file.write(json.dumps(figures) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._file is not sys.stdout:
            self._file.close()
        self._file = None

    def __enter__(self) -> StatsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

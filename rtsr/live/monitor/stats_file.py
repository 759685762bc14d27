"""Figures of a session for programs: one JSON object at the end, one line a second on request."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any, TextIO

from rtsr.closing import Closing
from rtsr.errors import RtsrError

STDOUT = "-"


class StatsFile(Closing):
    """Writes a session's figures, each object on a line of its own.

    A file that is there already stays as it is until the first line is written: a session that
    does not start takes nothing away, and leaves nothing behind.

    Args:
        path: of the file, ``-`` for stdout, ``None`` for nowhere.

    Raises:
        RtsrError: the file cannot be written, or stdout is closed.
    """

    def __init__(self, path: str | None) -> None:
        self._file: TextIO | None = None
        self._path = path
        self._written = path == STDOUT
        self._made = False
        if path == STDOUT:
            if sys.stdout is None:
                raise RtsrError("stdout is closed; connect it to a program or file.")
            self._file = sys.stdout
        elif path is not None:
            try:
                self._made = not os.path.exists(path)
                # Now, and not after hours of sound.
                self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 (close())
            except OSError as error:
                raise self._refusal(error) from None

    def write(self, figures: dict[str, Any]) -> None:
        """Append one object; whoever reads the file sees it at once.

        Raises:
            RtsrError: the disk is full, or the like.
            BrokenPipeError: nobody reads any more.
        """
        if self._file is None:
            return
        try:
            if not self._written:
                self._written = True
                self._clear()
            self._file.write(json.dumps(figures) + "\n")
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._refusal(error) from None

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is None or file is sys.stdout:
            return
        # What is still to be written was complained about when it could not be.
        with contextlib.suppress(OSError):
            file.close()
        if self._made and not self._written:
            with contextlib.suppress(OSError):
                os.unlink(str(self._path))

    def _clear(self) -> None:
        assert self._file is not None
        if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._file.truncate(0)

    def _refusal(self, error: OSError) -> RtsrError:
        name = "stdout" if self._path == STDOUT else f"'{self._path}'"
        return RtsrError(f"Stats file {name} cannot be written: {error.strerror or error}.")

"""One run at a time in a folder: two would overwrite each other's checkpoint."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rtsr.errors import RtsrError

#: locked by the system for as long as the process that locked it has it open, so that no crash
#: leaves it locked; forked processes close it
LOCK = ".lock"

if sys.platform == "win32":
    import msvcrt

    def lock_file(file: IO[bytes]) -> None:
        """Lock an open file, or fail at once where another process has."""
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def lock_file(file: IO[bytes]) -> None:
        """Lock an open file, or fail at once where another process has."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_open: set[IO[bytes]] = set()


def _close_in_child() -> None:
    # A lock of this kind belongs to the open file, which a fork shares: it would outlive its run.
    for file in _open:
        file.close()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a run's folder for this process until the block ends; it is made where it is missing.

    Processes that it forks do not have it, and do not keep it when this one ends.

    Raises:
        RtsrError: another run has it, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    except OSError as error:
        raise RtsrError(f"Nothing can be written to {folder}: {error.strerror}.") from error
    with file:
        _open.add(file)
        try:
            _take(file, folder)
            yield
        finally:
            _open.discard(file)


def _take(file: IO[bytes], folder: Path) -> None:
    try:
        lock_file(file)
    except (BlockingIOError, PermissionError) as error:
        raise RtsrError(
            f"Another training writes to {folder}; wait until it ends, or choose another "
            "--out folder."
        ) from error
    except OSError:
        # A file system without locks.
        pass

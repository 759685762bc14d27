"""One run at a time in a folder: two would overwrite each other's checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rtsr.errors import RtsrError

#: held by the system for the process that has it open, so that no crash leaves it locked
LOCK = ".lock"

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a run's folder for this process until the block ends; it is made where it is missing.

    Raises:
        RtsrError: another run has it, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    except OSError as error:
        raise RtsrError(f"Nothing can be written to {folder}: {error.strerror}.") from error
    with file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            raise RtsrError(
                f"Another training writes to {folder}; wait until it ends, or choose another "
                "--out folder."
            ) from error
        except OSError:
            # A file system without locks.
            pass
        yield

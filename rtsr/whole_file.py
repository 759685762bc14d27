"""Files that appear under their names only when they are whole."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path

from rtsr.errors import ArgumentError, RtsrError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write beside a file and then rename, so that no crash leaves half of one; text as UTF-8.

    A link stays a link, and a file that is replaced keeps its mode. A device or a pipe is written
    to as it is.

    Raises:
        OSError: the file cannot be written; what was there before is as it was.
    """
    written = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(written)
        return
    target = Path(os.path.realpath(path))
    beside = name_beside(target)
    try:
        with beside.open("xb") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, beside)
        os.replace(beside, target)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            # The system names the file beside it, or none.
            error.filename, error.filename2 = str(path), None
        raise


def name_beside(target: Path) -> Path:
    """Return a hidden name in the same folder, which no other file has, to write under first."""
    # Systems count the bytes of a name, up to 255 of them, and not its letters.
    start = os.fsencode(target.name)[:200]
    begins = start.decode(sys.getfilesystemencoding(), errors="ignore")
    return target.with_name(f".{begins}.{secrets.token_hex(4)}.partial")


def check_writable(path: Path) -> None:
    """Raise :class:`RtsrError` now and not after half an hour if there is no place for a file."""
    if path.is_dir():
        raise RtsrError(f"'{path}' is a folder; name a file.")
    if path.exists() and not os.access(path, os.W_OK):
        raise RtsrError(f"'{path}' cannot be written: the file is write-protected.")
    if path.exists() and not path.is_file():
        return
    final = Path(os.path.realpath(path))
    if not final.parent.is_dir():
        raise RtsrError(f"There is no folder '{missing_folder(path, final)}'; make it first.")
    if not os.access(final.parent, os.W_OK):
        raise RtsrError(f"'{path}' cannot be written: its folder is not writable.")


def check_different(source: Path, target: Path) -> None:
    """Raise :class:`ArgumentError` where a file would be replaced by what is made of it.

    Raises:
        RtsrError: the system refuses to look, as where a name is too long.
    """
    try:
        same = source.exists() and target.exists() and os.path.samefile(source, target)
    except OSError as error:
        name = error.filename or target
        raise RtsrError(f"'{name}' cannot be opened: {error.strerror or error}.") from None
    if same:
        raise ArgumentError(
            f"Input and output are the same file '{source}'; give the output another name."
        )


def missing_folder(path: Path, final: Path) -> Path:
    """Return the folder that is missing for ``path``, which as a link leads to ``final``."""
    return final.parent if path.parent.is_dir() else path.parent

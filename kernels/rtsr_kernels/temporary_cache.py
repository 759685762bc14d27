"""A folder for compiled code where neither the package nor the user's home can be written."""

from __future__ import annotations

import getpass
import logging
import os
import stat
import tempfile
from pathlib import Path

from numba import config

_log = logging.getLogger("rtsr_kernels")

VARIABLE = "NUMBA_CACHE_DIR"


def use_temporary_cache() -> bool:
    """Let numba keep compiled code in a temporary folder of this user; say so once, as a warning.

    The folder belongs to this user alone, because whoever can write it can run code here. Processes
    that this one starts find it in the environment.

    Returns:
        whether there is such a folder now. ``False`` where one was already in use, too: then it
        has not helped.
    """
    if os.environ.get(VARIABLE):
        return False
    folder = Path(tempfile.gettempdir()) / f"rtsr-cache-{_user()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _belongs_to_this_user(folder):
            _log.warning(
                "'%s' belongs to another user, so compiled code is kept nowhere and every start "
                "takes a minute; set %s to a folder of your own.",
                folder,
                VARIABLE,
            )
            return False
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return False
    os.environ[VARIABLE] = str(folder)
    config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    _log.warning(
        "Compiled code goes to '%s', as neither the package's folder nor the user's cache can be "
        "written; set %s to a folder that outlasts a restart.",
        folder,
        VARIABLE,
    )
    return True


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


def _belongs_to_this_user(folder: Path) -> bool:
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        return False
    if not hasattr(os, "getuid"):
        return True
    return facts.st_uid == os.getuid() and not facts.st_mode & 0o077

"""Where files lie that can be made again: below the user's cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

OVERRIDE = "RTSR_CACHE_DIR"


def user_cache() -> Path:
    """``RTSR_CACHE_DIR``, else ``rtsr`` in the place that the system has for caches.

    On Linux that is ``XDG_CACHE_HOME`` or ``~/.cache``
    (https://specifications.freedesktop.org/basedir-spec/latest/). The folder may not exist yet.
    """
    override = os.environ.get(OVERRIDE)
    if override:
        return Path(override).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rtsr"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    base = os.environ.get(variable, "")
    # The specification wants a relative path to be ignored.
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return folder / "rtsr"

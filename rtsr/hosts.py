"""What hosts are called."""

from __future__ import annotations

import re

__all__ = ["is_host"]

_OUTSIDE_NAMES = re.compile(r"[\s\0\[\]/?#@<>\"]")


def is_host(text: str) -> bool:
    """Whether a text can be a host: an address without brackets, or a name that may be looked up.

    Python itself raises a ``UnicodeError`` where it looks others up, as those with an empty part.
    """
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return bool(text) and not _OUTSIDE_NAMES.search(text)

"""Why a request is refused, for whoever looks for the fault in a telephone (RFC 3261, 20.43)."""

from __future__ import annotations

import re

__all__ = ["warning"]

# What would end the quotation or the line; a part of the text may be what the other end has sent.
_NOT_QUOTABLE = re.compile(r"[^ !#-\[\]-~]")


def warning(text: str) -> str:
    """Return the value of a ``Warning`` that says ``text``; 399 is one of no further meaning."""
    return f'399 rtsr "{_NOT_QUOTABLE.sub("?", text)}"'

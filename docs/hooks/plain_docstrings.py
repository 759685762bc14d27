"""Let the API reference read docstrings as their authors wrote them."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|meth|func|data|attr|mod|exc):`(?:~[\w.]*?(\w+)|([\w.]+))`")
_LITERAL_BLOCK = re.compile(r"::$", re.MULTILINE)
# One entry for several parameters, with the lines that are indented more deeply than it is.
_SHARED_ENTRY = re.compile(r"^( +)(\w+(?:,\s+\w+)+)(:.*(?:\n\1 +\S.*)*)", re.MULTILINE)
_PARAMETERS = re.compile(r"^( *)Args:\n(?:\1 +\S.*\n?|\n)+", re.MULTILINE)


class PlainDocstrings(Extension):
    """Rewrite what neither Markdown nor the Google convention knows.

    Roles such as ``:class:`~package.Name` `` become names in code style, a ``::`` that begins a
    literal block becomes ``:``, and ``one, other: text`` under ``Args:`` becomes an entry for each.
    """

    def on_object(self, *, obj: Object, **rest: Any) -> None:
        """Rewrite the docstring of each object that has one."""
        if obj.docstring is not None:
            text = _ROLE.sub(lambda match: f"`{match[1] or match[2]}`", obj.docstring.value)
            text = _LITERAL_BLOCK.sub(":", text)
            obj.docstring.value = _PARAMETERS.sub(_separate, text)


def _separate(section: re.Match[str]) -> str:
    return _SHARED_ENTRY.sub(
        lambda entry: "\n".join(
            f"{entry[1]}{name}{entry[3]}" for name in re.split(r",\s+", entry[2])
        ),
        section[0],
    )

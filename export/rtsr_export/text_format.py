"""Protobuf's text format, as far as a configuration file needs it.

https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]
Scalar = str | bool | int | float

_INDENT = "  "
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Symbol(str):
    """A name that stands without quotes: the value of an enumeration."""

    __slots__ = ()


def to_text(message: Message) -> str:
    """Return the text of a message: dictionaries are messages, lists are repeated fields."""
    return "".join(line + "\n" for line in _lines(message, ""))


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, dict):
            yield from _block(name, value, indent)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for item in value:
                if not isinstance(item, dict):
                    raise TypeError(f"field {name!r} mixes messages and scalars")
                yield from _block(name, item, indent)
        elif isinstance(value, list):
            items = ", ".join(_scalar(item) for item in value)
            yield f"{indent}{name}: [ {items} ]" if items else f"{indent}{name}: []"
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _block(name: str, message: Message, indent: str) -> Iterator[str]:
    yield f"{indent}{name} {{"
    yield from _lines(message, indent + _INDENT)
    yield f"{indent}}}"


def _scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Symbol):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(character, character) for character in value) + '"'
    return repr(value)

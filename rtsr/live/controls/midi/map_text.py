"""The text of a MIDI map: where its keys stand, and changes that leave its comments alone.

TOML parsers give values without their places, and writers know nothing of comments; a map is
simple enough (tables of one-line keys) to be read line by line for both.
"""

from __future__ import annotations

import json
import re
from typing import Any

_HEADER = re.compile(r"\s*\[\[\s*\"?control\"?\s*\]\]")
_OTHER_HEADER = re.compile(r"\s*\[")
_KEY = re.compile(r"(\s*)[\"']?([\w.-]+)[\"']?\s*=\s*")
_REST = re.compile(r"(?P<value>\"[^\"]*\"|'[^']*'|[^#]*?)(?P<tail>\s*(?:#.*)?)$")
_SYNTAX_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)\s*$")


class MapText:
    """Places in the text of a map; lines and columns are counted from 1."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._headers: list[int] = []
        self._keys: dict[tuple[int | None, str], tuple[int, int, int]] = {}
        table: int | None = None
        for number, line in enumerate(self._lines):
            if _HEADER.match(line):
                table = len(self._headers)
                self._headers.append(number)
            elif header := _OTHER_HEADER.match(line):
                name = line.strip().strip("[]").split("#")[0].strip().strip("]")
                self._keys.setdefault((None, name.split(".")[0]), (number, header.end() - 1, 0))
            elif key := _KEY.match(line):
                place = (number, key.end(1), key.end())
                self._keys.setdefault((table, key.group(2).split(".")[0]), place)

    def header(self, table: int) -> tuple[int, int]:
        """Where the ``[[control]]`` of a table stands."""
        if table >= len(self._headers):
            return self.key(None, "control")
        line = self._headers[table]
        return line + 1, self._lines[line].index("[") + 1

    def key(self, table: int | None, key: str) -> tuple[int, int]:
        """Where a key stands; ``None`` is the place before all tables."""
        line, start, _ = self._keys.get((table, key), (0, 0, 0))
        return line + 1, start + 1

    def value(self, table: int, key: str) -> tuple[int, int]:
        """Where a key's value stands."""
        if (table, key) not in self._keys:
            return self.header(table)
        line, _, start = self._keys[table, key]
        return line + 1, start + 1

    def syntax_error(self, message: str) -> tuple[str, tuple[int, int]]:
        """Return a parser's message without its place, as part of a sentence, and the place."""
        found = _SYNTAX_PLACE.search(message)
        problem = _SYNTAX_PLACE.sub("", message)
        problem = problem[:1].lower() + problem[1:]
        if found and found.group(1):
            return problem, (int(found.group(1)), int(found.group(2)))
        last = self._lines[-1] if self._lines else ""
        return problem, (max(1, len(self._lines)), len(last) + 1)

    @staticmethod
    def table(values: dict[str, Any]) -> str:
        """One table as text."""
        return "\n".join(["[[control]]", *(f"{k} = {_toml(v)}" for k, v in values.items()), ""])

    def edited(self, table: int | None, values: dict[str, Any], removed: list[int]) -> str:
        """Return the text with some tables removed, and one changed or (``None``) added."""
        lines: list[str | None] = list(self._lines)
        if table is not None and table < len(self._headers):
            last = self._last_line(table)
            added = []
            for key, value in values.items():
                if (table, key) not in self._keys:
                    added.append(f"{key} = {_toml(value)}")
                    continue
                number, _, start = self._keys[table, key]
                rest = _REST.match(self._lines[number][start:])
                tail = rest.group("tail") if rest else ""
                lines[number] = self._lines[number][:start] + _toml(value) + tail
            lines[last] = "\n".join([str(lines[last]), *added])
        for gone in removed:
            if gone < len(self._headers):
                for number in range(self._headers[gone], self._last_line(gone) + 1):
                    lines[number] = None
        text = "\n".join(line for line in lines if line is not None).rstrip("\n")
        text = re.sub(r"\n{3,}", "\n\n", text) + "\n" if text else ""
        if table is None:
            text += ("\n" if text else "") + self.table(values)
        return text

    def _last_line(self, table: int) -> int:
        """Return the last line of a table: comments after it belong to the next one."""
        ends = [place[0] for (owner, _), place in self._keys.items() if owner == table]
        return max([self._headers[table], *ends])


def _toml(value: Any) -> str:
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() else repr(value)
    # Names are plain words; JSON's strings, numbers and booleans are TOML's.
    return json.dumps(value)

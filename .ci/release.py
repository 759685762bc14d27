"""What a release needs beside the packages: its notes, and the addresses that its metadata names.

``python .ci/release.py notes v0.2.0`` prints the section of CHANGELOG.md, if everything agrees;
``python .ci/release.py urls https://...`` writes ``[project.urls]`` into pyproject.toml.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


class ReleaseError(Exception):
    """One sentence on why this cannot be released."""


def version(root: Path = ROOT) -> str:
    """Return the version that ``pyproject.toml`` states."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise ReleaseError("pyproject.toml states no version.")
    return found[1]


def notes(tag: str, root: Path = ROOT) -> str:
    """Return the changelog's section of the version that a tag names.

    Args:
        tag: ``v`` and the version.
        root: of the repository.

    Raises:
        ReleaseError: the tag is not the version's, or its section is absent, empty or not dated.
    """
    current = version(root)
    if tag != f"v{current}":
        raise ReleaseError(f"The tag {tag!r} does not fit version {current!r} of pyproject.toml.")
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(rf"^## {re.escape(current)}(?: \((.*)\))?$", text, re.MULTILINE)
    if heading is None:
        raise ReleaseError(f"CHANGELOG.md has no section '## {current} (YYYY-MM-DD)'.")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", heading[1] or ""):
        raise ReleaseError(f"CHANGELOG.md gives {heading[1]!r} for a date of {current}.")
    section = re.split(r"^## ", text[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not section:
        raise ReleaseError(f"CHANGELOG.md says nothing about {current}.")
    return section


def write_urls(address: str, root: Path = ROOT) -> None:
    """Write ``[project.urls]`` of a repository's address into ``pyproject.toml``.

    Raises:
        ReleaseError: the table is there already, or the address is none.
    """
    path = root / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    if "[project.urls]" in text:
        raise ReleaseError("pyproject.toml has a table [project.urls] already.")
    if not re.fullmatch(r"https://[\w.-]+(?:/[\w.-]+)+", address):
        raise ReleaseError(f"{address!r} is not the address of a repository.")
    table = (
        "[project.urls]\n"
        f'Source = "{address}"\n'
        f'Issues = "{address}/issues"\n'
        f'Changelog = "{address}/blob/v{version(root)}/CHANGELOG.md"\n\n'
    )
    path.write_text(text.replace("[project.scripts]", table + "[project.scripts]"), "utf-8")


def main(arguments: list[str]) -> int:
    """Run one of the two commands; return the exit code."""
    try:
        if len(arguments) == 2 and arguments[0] == "notes":
            print(notes(arguments[1]))
        elif len(arguments) == 2 and arguments[0] == "urls":
            write_urls(arguments[1])
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How this package prints through rich: as it stands."""

from __future__ import annotations

from rich.console import Console


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console that prints text as it is given.

    Rich would take ``[live]`` in the name of a file, a device or a model for its markup, and
    ``:bell:`` for a picture.
    """
    return Console(stderr=stderr, width=width, markup=False, emoji=False)

"""Commands of training that are modules of their own: ``python -m rtsr.train.NAME``."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from rtsr.errors import RtsrError


def run(command: Callable[..., None]) -> None:
    """Run a command; errors that rtsr raises on purpose are one sentence and exit code 2."""
    try:
        typer.run(command)
    except RtsrError as error:
        typer.echo(f"rtsr: {error}", err=True)
        sys.exit(2)

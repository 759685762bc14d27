"""How every ``python -m rtsr_bench...`` ends: well, or with one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from rtsr.errors import RtsrError


def run_command(command: Callable[..., None], description: str | None) -> None:
    """Run a program that is one command; see :func:`run_program`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=description)(command)
    run_program(app)


def run_program(app: Callable[[], object]) -> None:
    """Run a command line; errors that rtsr raises on purpose are one sentence and exit code 2."""
    try:
        app()
    except RtsrError as error:
        typer.echo(f"rtsr: {error}", err=True)
        sys.exit(2)

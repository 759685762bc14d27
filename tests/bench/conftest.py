"""The program ``rtsr bench`` as a user starts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from rtsr.cli import app as application


@pytest.fixture(scope="session")
def bench() -> Callable[..., Any]:
    """``bench(*arguments)``: the result of ``rtsr bench ARGUMENTS`` on 80 columns."""
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"})

    def run(*arguments: object) -> Any:
        return runner.invoke(application.app, ["bench", *map(str, arguments)])

    return run

"""The command line: ``rtsr COMMAND``, one small module per command."""

from __future__ import annotations

import signal
import sys
from typing import Any


def main() -> None:
    """Entry point of the ``rtsr`` program."""
    # A stop request unwinds like Ctrl-C does, so that no half-written file stays behind.
    signal.signal(signal.SIGTERM, _stop)
    from rtsr.cli.app import app

    app(prog_name="rtsr")


def _stop(number: int, frame: Any) -> None:
    sys.exit(128 + number)

"""The command line: ``rtsr COMMAND``, one small module per command."""

from __future__ import annotations

import signal
import sys
from typing import Any


def main() -> None:
    """Entry point of the ``rtsr`` program."""
    try:
        # A stop request unwinds like Ctrl-C does, so that no half-written file stays behind.
        signal.signal(signal.SIGTERM, _stop)
        # Under nohup the end of the terminal is not one.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, _stop)
        from rtsr.cli.app import app

        app(prog_name="rtsr")
    except KeyboardInterrupt:
        # While modules are loaded; later the application itself takes care of it.
        sys.exit(128 + signal.SIGINT)


def _stop(number: int, frame: Any) -> None:
    sys.exit(128 + number)

"""What a first start says on a terminal while the kernels are compiled for this machine."""

from __future__ import annotations

import contextlib
import logging
import sys

LOGGER = "rtsr_kernels"


class CompileMessages(logging.Handler):
    """Tells of the first compilation on a terminal, and of every warning anywhere, on stderr."""

    def __init__(self) -> None:
        super().__init__()
        self._has_told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning as a sentence of ours; of compiled functions only the first is told."""
        if record.levelno >= logging.WARNING:
            _print(record.getMessage())
        elif not self._has_told and sys.stderr is not None and sys.stderr.isatty():
            self._has_told = True
            _print("compiling for this machine, which only a first start does; about a minute ...")


def tell_of_compiling() -> None:
    """Let the kernels' logger speak through the command line."""
    # Without a writable home it says at length that it keeps its fonts in a temporary folder.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(handler, CompileMessages) for handler in logger.handlers):
        logger.addHandler(CompileMessages())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _print(sentence: str) -> None:
    with contextlib.suppress(OSError):
        print(f"rtsr: {sentence}", file=sys.stderr, flush=True)

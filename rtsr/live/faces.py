"""Screen and keyboard of a running session."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console

from rtsr.live.controls import ControlBoard
from rtsr.live.keyboard import Keyboard, KeyControls
from rtsr.live.report import LiveSnapshot
from rtsr.live.screen import PICTURES_PER_SECOND, LiveScreen

# A slow terminal gets fewer pictures instead of more of the processor.
_MOST_OF_A_CORE = 0.1


class Faces:
    """Shows a session in the terminal and lets keys turn its controls, until closed.

    Each works where it can: no screen without a terminal to draw on, no keys without one to read
    from. Drawing has its own thread, which sleeps nearly all the time.

    Args:
        board: the controls that the keys turn.
        snapshot: gives what is to be shown, called ten times a second.
        on_quit: called when somebody presses the key to stop.
        console: where to draw; stdout, or stderr if stdout is no terminal.
    """

    def __init__(
        self,
        board: ControlBoard,
        snapshot: Callable[[], LiveSnapshot],
        on_quit: Callable[[], None],
        console: Console | None = None,
    ) -> None:
        terminal = sys.stdout is not None and sys.stdout.isatty()
        self._snapshot = snapshot
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.keyboard = Keyboard(KeyControls(board, on_quit))
        self.screen = LiveScreen(self.keyboard.controls, console or Console(stderr=not terminal))
        if self.screen.usable:
            self._thread = threading.Thread(target=self._draw, name="rtsr-screen", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop both and leave the terminal as it was."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.screen.close()
        self.keyboard.close()

    def __enter__(self) -> Faces:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _draw(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            started = time.perf_counter()
            try:
                self.screen.show(self._snapshot())
            except OSError:
                # The terminal was closed; the sound goes on.
                return
            took = time.perf_counter() - started
            pause = max(1.0 / PICTURES_PER_SECOND - took, took / _MOST_OF_A_CORE)

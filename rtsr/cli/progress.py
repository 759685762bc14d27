"""Progress displays for long work on a terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.status import Status

_REDRAW_SECONDS = 0.1

_Shown = TypeVar("_Shown", bound="ShownWhile")


class ShownWhile:
    """Shows something of rich's while a block runs, or nothing if it is ``None``."""

    def __init__(self, shown: Progress | Status | None) -> None:
        self._shown = shown

    def __enter__(self: _Shown) -> _Shown:
        if self._shown is not None:
            self._shown.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown is not None:
            self._shown.stop()


class Waiting(ShownWhile):
    """Says on a terminal's stderr what is waited for, then takes it away; elsewhere nothing."""

    def __init__(self, label: str, enabled: bool = True) -> None:
        console = Console(stderr=True)
        shown = enabled and console.is_terminal and not console.is_dumb_terminal
        # Rarely drawn: where a model runs in a thread it waits meanwhile.
        super().__init__(console.status(label, refresh_per_second=2) if shown else None)


class AudioProgress(ShownWhile):
    """Shows seconds of audio done and the speed, on a terminal's stderr; elsewhere nothing."""

    def __init__(self, label: str, rate: int | None = None, enabled: bool = True) -> None:
        console = Console(stderr=True)
        self._enabled = enabled and console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._enabled,
        )
        super().__init__(self._bar)
        self._task = self._bar.add_task(label, total=None, speed="")
        self._rate = rate
        self._started = time.perf_counter()
        self._drawn = 0.0

    def show(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` samples are processed."""
        now = time.perf_counter()
        if not self._enabled or (now - self._drawn < _REDRAW_SECONDS and done < total):
            return
        self._drawn = now
        speed = ""
        if self._rate:
            speed = f"{done / self._rate / max(now - self._started, 1e-6):.1f}x real time"
        self._bar.update(self._task, completed=done, total=total, speed=speed)

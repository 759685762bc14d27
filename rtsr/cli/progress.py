"""A progress bar that says how much faster than the sound itself the work goes."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_REDRAW_SECONDS = 0.1


class AudioProgress:
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
        self._task = self._bar.add_task(label, total=None, speed="")
        self._rate = rate
        self._started = time.perf_counter()
        self._drawn = 0.0

    def show(self, done: int, total: int) -> None:
        """Take note of ``done`` of ``total`` samples."""
        now = time.perf_counter()
        if not self._enabled or (now - self._drawn < _REDRAW_SECONDS and done < total):
            return
        self._drawn = now
        speed = ""
        if self._rate:
            speed = f"{done / self._rate / max(now - self._started, 1e-6):.1f}x real time"
        self._bar.update(self._task, completed=done, total=total, speed=speed)

    def __enter__(self) -> AudioProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

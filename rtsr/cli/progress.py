"""Progress displays for long work on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from rtsr.terminal import plain_console

_REDRAW_SECONDS = 0.1


@contextmanager
def counting(label: str, enabled: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how many things are done of how many, on a terminal's stderr."""
    console = plain_console(stderr=True)
    columns = (
        *(TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()),
        TimeRemainingColumn(),
    )
    hidden = not (enabled and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def waiting(label: str, enabled: bool = True) -> Iterator[None]:
    """Say on a terminal's stderr what is waited for, then take it away; elsewhere nothing."""
    console = plain_console(stderr=True)
    if not enabled or not console.is_terminal or console.is_dumb_terminal:
        yield
        return
    # Rarely drawn: where a model runs in a thread it waits meanwhile.
    with console.status(Text(label), refresh_per_second=2):
        yield


class AudioProgress:
    """Shows seconds of audio done and the speed, on a terminal's stderr; elsewhere nothing."""

    def __init__(self, label: str, rate: int | None = None, enabled: bool = True) -> None:
        console = plain_console(stderr=True)
        self._enabled = enabled and console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._enabled,
        )
        self._task = self._bar.add_task(label, total=None, speed="")
        self._rate = rate
        self._started = time.perf_counter()
        self._drawn = 0.0

    def __enter__(self) -> AudioProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

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

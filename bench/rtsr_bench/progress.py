"""Progress of long work, on the terminal's error stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, ProgressColumn, TextColumn

from rtsr.terminal import plain_console

#: told what is being done, how much of it is done, and how much there is
Show = Callable[[str, int, int], None]


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Return a bar that goes when it is left as a context; without columns it has rich's own."""
    own = (TextColumn("{task.description}", markup=False), *Progress.get_default_columns()[1:])
    return Progress(*(columns or own), console=plain_console(stderr=True), transient=True)


@contextmanager
def shown_progress(*columns: ProgressColumn) -> Iterator[Show]:
    """Give a function that moves a bar."""
    with progress_bar(*columns) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total
        )

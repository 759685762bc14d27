"""How many streams fit: found by trying, because a batch of twice the size takes no fixed multiple.

Doubling from one stream until a trial fails, then halving the gap between the largest number that
passed and the smallest that failed until it is a small part of the number, and at last a longer run
that confirms the number that is reported. A trial fails when it fails twice; the confirmation has
to pass at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SHARE_OF_PERIOD = 0.8
# Above this many streams the gap is narrowed to a part of the number instead of to one stream.
EXACT_UP_TO = 32


class OutOfTimeError(Exception):
    """An attempt was not made, or not finished, because there is no time left."""


@dataclass(frozen=True)
class Trial:
    """One number of streams that was tried: p99.9 of its steps, or why there is none."""

    streams: int
    p99_9_ms: float | None
    passed: bool
    reason: str | None = None


Attempt = Callable[[int, bool], Trial]


@dataclass
class Search:
    """What a search found.

    Attributes:
        limit_ms: what p99.9 had to stay below.
        streams: the largest number that passed; 0 if not even one did.
        fails_at: the smallest number that is known to fail, ``None`` if none did.
        finished: whether the gap was closed and the number confirmed; else it is an estimate.
    """

    limit_ms: float
    streams: int = 0
    fails_at: int | None = None
    finished: bool = False
    trials: list[Trial] = field(default_factory=list)


def find_most_streams(
    attempt: Attempt, limit_ms: float, most: int, exact_up_to: int = EXACT_UP_TO, first: int = 1
) -> Search:
    """Search the largest number of streams that passes.

    Args:
        attempt: tries a number of streams; the flag asks for the longer run that confirms. It
            raises :class:`OutOfTimeError` to end the search with what is known.
        limit_ms: what a trial has to stay below, for the record.
        most: streams that are tried at most.
        exact_up_to: streams up to which the number is exact; above, within this part of it.
        first: number to begin with, where something is known.
    """
    search = Search(limit_ms)
    try:
        streams = min(first, most)
        while _passes(search, attempt, streams) and streams < most:
            streams = min(2 * streams, most)
        while not search.finished:
            _bisect(search, attempt, exact_up_to)
            _confirm(search, attempt)
    except OutOfTimeError:
        pass
    return search


def _bisect(search: Search, attempt: Attempt, exact_up_to: int) -> None:
    while search.fails_at is not None:
        gap = search.fails_at - search.streams
        if gap <= max(1, search.streams // exact_up_to):
            return
        _passes(search, attempt, search.streams + gap // 2)


def _passes(search: Search, attempt: Attempt, streams: int) -> bool:
    trial = attempt(streams, False)
    search.trials.append(trial)
    if not trial.passed and trial.p99_9_ms is not None:
        # One stall of the machine is no lack of room; two in a row are one.
        trial = attempt(streams, False)
        search.trials.append(trial)
    if trial.passed:
        search.streams = streams
    else:
        search.fails_at = streams
    return trial.passed


def _confirm(search: Search, attempt: Attempt) -> None:
    if search.streams == 0:
        search.finished = True
        return
    trial = attempt(search.streams, True)
    search.trials.append(trial)
    search.finished = trial.passed
    if trial.passed:
        return
    search.fails_at = search.streams
    passed = {trial.streams for trial in search.trials if trial.passed}
    search.streams = max((one for one in passed if one < search.fails_at), default=0)

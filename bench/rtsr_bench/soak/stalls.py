"""For how long this machine does not run what it should.

On every core a program of the highest priority sleeps for 2 ms at a time. Whatever it wakes up late
by, no other program did: the system did, or the host of a virtual machine, and no sound that is due
within that time can be in time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rtsr.errors import RtsrError
from rtsr_bench.soak import stall_watch

LONGEST_SECONDS = 86400.0


@dataclass(frozen=True)
class Stalls:
    """What all cores together saw.

    Attributes:
        seconds: how long was looked.
        realtime: whether the watch had real-time priority; if not, other programs are in it, too.
        wake_ups: of the watching programs.
        late: of these, by more than so many ms.
        worst_ms: the latest of them; 0 if none was late by more than the least of these limits.
    """

    seconds: float
    realtime: bool
    wake_ups: int
    late: dict[str, int]
    worst_ms: float

    def rows(self) -> list[tuple[str, str]]:
        """For a table."""
        what = "stalls" if self.realtime else "stalls (the watch has no priority)"
        rows = [(f"{what} over {limit} ms", f"{count}") for limit, count in self.late.items()]
        return [*rows, ("longest stall", f"{self.worst_ms:.1f} ms")]


class StallWatch:
    """Looks for stalls on every core while it is a context, and once more afterwards tells.

    Raises:
        RtsrError: the system does not let programs choose their core.
    """

    def __enter__(self) -> StallWatch:
        if not hasattr(os, "sched_setaffinity"):
            raise RtsrError("Stalls are only measured on Linux; this is another system.")
        program = [sys.executable, str(Path(stall_watch.__file__))]
        self._programs = [
            subprocess.Popen([*program, str(core)], stdout=subprocess.PIPE, text=True)
            for core in sorted(os.sched_getaffinity(0))
        ]
        for one in self._programs:
            assert one.stdout is not None
            one.stdout.readline()
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.monotonic() - self._started
        for one in self._programs:
            one.terminate()
        found = [json.loads(one.communicate()[0]) for one in self._programs]
        counts = [sum(core) for core in zip(*(one["counts"] for one in found), strict=True)]
        self.found = Stalls(
            round(seconds, 3),
            all(one["realtime"] for one in found),
            sum(one["wakes"] for one in found),
            {f"{limit:g}": n for limit, n in zip(stall_watch.LIMITS_MS, counts, strict=True)},
            round(max(one["worst_ms"] for one in found), 2),
        )

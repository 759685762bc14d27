"""A program that embeds a live session and leaves it no moment of the interpreter's lock.

    python -m rtsr_bench.soak.hog FILE MODEL

Runs until SIGINT, writes the session's figures to FILE, one line at the start and one a second.
"""

from __future__ import annotations

import signal
import sys
import time

from rtsr.live.monitor.stats_file import StatsFile
from rtsr.live.session import LiveSession
from rtsr.live.settings import LiveSettings


def main(path: str, model: str) -> None:
    """Spin in pure Python while the session plays."""
    stopped: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))
    settings = LiveSettings(model=model)
    with StatsFile(path) as stats:
        session = LiveSession(settings)
        with session:
            due = 0.0
            while not stopped:
                if time.monotonic() >= due:
                    due = time.monotonic() + 1.0
                    stats.write(session.report())
        stats.write(session.report())


if __name__ == "__main__":
    main(*sys.argv[1:])

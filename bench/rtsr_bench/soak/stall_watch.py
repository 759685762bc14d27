"""One core's part of :mod:`rtsr_bench.soak.stalls`, a program of its own: ``stall_watch.py CORE``.

It imports nothing that takes time or memory. Counts until it is told to stop, then prints JSON; it
ends without a word with the program that started it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time

PERIOD = 0.002
LIMITS_MS = (1.0, 2.0, 5.0, 10.0)
# Above JACK, its clients and PipeWire: what keeps this waiting, keeps all of them waiting.
LEVEL = 90


def raise_priority() -> bool:
    """Whether the system grants real time."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(LEVEL))
    except OSError:
        return False
    return True


def main() -> None:
    """Count late wake-ups on one core until told to stop."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    realtime = raise_priority()
    gc.disable()
    stopped: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: stopped.append(number))
    parent = os.getppid()
    counts, worst, wakes = [0] * len(LIMITS_MS), 0.0, 0
    print(flush=True)
    due = time.monotonic()
    while not stopped:
        if os.getppid() != parent:
            return
        due += PERIOD
        time.sleep(max(0.0, due - time.monotonic()))
        late = time.monotonic() - due
        wakes += 1
        if late > 1e-3 * LIMITS_MS[0]:
            worst = max(worst, late)
            for index, limit in enumerate(LIMITS_MS):
                counts[index] += late > 1e-3 * limit
            # One stall is counted once, not again for every period in it.
            due += late
    result = {"realtime": realtime, "wakes": wakes, "counts": counts, "worst_ms": 1e3 * worst}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

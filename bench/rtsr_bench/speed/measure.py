"""One repetition of one case, in this process: load, first step, warm-up, timed steps."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtsr_bench.resources import PackageEnergy, resident_megabytes
from rtsr_bench.speed import steady
from rtsr_bench.speed.matrix import Case
from rtsr_bench.speed.steady import Milliseconds
from rtsr_bench.speed.workloads import Workload, make_workload

MOST_STEPS = 20_000
# A clock that is asked less often than this cannot be late by more.
_SHORTEST_SLEEP_S = 0.0005


@dataclass(frozen=True)
class Protocol:
    """How one repetition is taken.

    Attributes:
        seconds: of timed steps.
        warm_up_seconds: of steps before them, at most.
        limit_ms: give up as soon as p99.9 can no longer be below it.
        most_steps: timed steps, at most.
    """

    seconds: float = 2.0
    warm_up_seconds: float = 1.0
    limit_ms: float | None = None
    most_steps: int = MOST_STEPS


def measure(case: Case, protocol: Protocol, launched_ns: int | None) -> dict[str, Any]:
    """Take one repetition: load, first step, warm-up, timed steps without the garbage collector.

    Args:
        case: what to time.
        protocol: how.
        launched_ns: ``time.time_ns()`` when this process was started; ``None`` if it is no fresh
            one, so that there is no cold start.

    Returns:
        Facts as JSON holds them; ``times_ms`` are the timed steps in order, ``timed_between``
        their begin and end in seconds of ``time.time()``.
    """
    launch_ms = None if launched_ns is None else (time.time_ns() - launched_ns) * 1e-6
    loading = time.perf_counter_ns()
    workload = make_workload(case)
    load_ms = (time.perf_counter_ns() - loading) * 1e-6
    first_step_ms = _timed(workload)
    gc.collect()
    gc.freeze()
    gc.disable()
    warm, has_settled = steady.warm_up(
        lambda: _timed(workload), protocol.warm_up_seconds, protocol.most_steps
    )
    energy = PackageEnergy()
    began = time.time()
    times, late = take_steps(workload, case, protocol)
    joules, ended = energy.joules(), time.time()
    gc.enable()
    gc.unfreeze()
    memory = resident_megabytes()
    workload.close()
    return {
        "provider": workload.provider,
        "launch_ms": launch_ms,
        "load_ms": load_ms,
        "first_step_ms": first_step_ms,
        "cold_start_ms": None if launch_ms is None else launch_ms + load_ms + first_step_ms,
        "warm_up_steps": len(warm),
        "warm_up_settled": has_settled,
        "times_ms": times.round(6).tolist(),
        "missed_by_the_clock": late,
        "timed_between": [began, ended],
        "cpu_power_w": None if joules is None else joules / max(ended - began, 1e-9),
        "rss_mb": memory,
    }


def _timed(workload: Workload) -> float:
    started = time.perf_counter_ns()
    workload.step()
    return (time.perf_counter_ns() - started) * 1e-6


def take_steps(
    workload: Workload, case: Case, protocol: Protocol
) -> tuple[Milliseconds, int | None]:
    """Take the timed steps.

    Returns:
        Their times in order, and how many ended after their slot if they were paced.
    """
    times = np.zeros(protocol.most_steps, np.int64)
    hopeless = _hopeless_after(protocol)
    clock, step = time.perf_counter_ns, workload.step
    period_ns = round(case.period_ms * 1e6)
    last = clock() + round(protocol.seconds * 1e9)
    slot, late, over, taken = clock(), 0, 0, 0
    for taken in range(1, protocol.most_steps + 1):
        if case.paced:
            slot += period_ns
            _sleep_until(slot, clock)
        started = clock()
        step()
        ended = clock()
        times[taken - 1] = ended - started
        late += ended > slot + period_ns
        if protocol.limit_ms is not None and ended - started > protocol.limit_ms * 1e6:
            over += 1
            if over >= hopeless:
                break
        if ended >= last:
            break
    return np.asarray(times[:taken] * 1e-6, np.float64), late if case.paced else None


def _hopeless_after(protocol: Protocol) -> int:
    """Return how many steps over the limit put p99.9 over it, even if all others are quick.

    With n steps, the value at rank ``floor(0.999 (n - 1))`` is then one of them.
    """
    return protocol.most_steps - int(0.999 * (protocol.most_steps - 1))


def _sleep_until(moment: int, clock: Callable[[], int]) -> None:
    while (left := (moment - clock()) * 1e-9) > 0.0:
        time.sleep(max(left, 0.0) if left > _SHORTEST_SLEEP_S else 0.0)

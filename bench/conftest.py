"""After the benchmarks, p50, p99, p99.9 and the slowest call of each.

pytest-benchmark's own table stops at quartiles, and stalls hide above them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from rich.table import Table

from rtsr.terminal import plain_console
from rtsr_bench.machine import describe_machine

PERCENTILES = (50.0, 99.0, 99.9)
#: group, name and the time of each call in seconds
_TIMED = pytest.StashKey[list[tuple[str, str, np.ndarray]]]()


@pytest.fixture(autouse=True)
def keep_times(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep what a benchmark has timed, if it has."""
    used = "benchmark" in request.fixturenames
    benchmark: Any = request.getfixturevalue("benchmark") if used else None
    yield
    if benchmark is not None and benchmark.stats is not None:
        seconds = np.array(benchmark.stats.stats.data)
        rows = request.config.stash.setdefault(_TIMED, [])
        rows.append((benchmark.group or "other", benchmark.name, seconds))


def pytest_terminal_summary(config: pytest.Config) -> None:
    """Print a row for each benchmark, by group, and what machine it ran on."""
    rows = sorted(config.stash.get(_TIMED, []), key=lambda row: row[0])
    if not rows:
        return
    table = Table(title="time per call in microseconds")
    for heading in ("benchmark", "rounds", *(f"p{level:g}" for level in PERCENTILES), "max"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    for group, members in groupby(rows, key=lambda row: row[0]):
        table.add_section()
        table.add_row(group, style="bold")
        for _, name, seconds in members:
            times = (*np.percentile(seconds, PERCENTILES), seconds.max())
            table.add_row(f"  {name}", str(seconds.size), *(f"{1e6 * time:,.1f}" for time in times))
    machine = describe_machine()["cpu"]
    model = machine["model"] or machine["architecture"]
    table.caption = f"{model}, {machine['threads']} threads, Python {platform.python_version()}"
    plain_console().print(table)

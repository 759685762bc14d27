"""What ``make bench`` prints of single calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("option", ["--benchmark-max-time=0.001", "--benchmark-disable"])
def test_percentiles_of_each_benchmark_stand_at_the_end(option: str) -> None:
    """As far as anything was timed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-quiet"]
    chosen = ["bench/test_kernels.py", "-k", "test_resampler_design", option]
    # One of several processes of tests times nothing, and what it starts would take itself for one.
    own = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    wide = {**own, "COLUMNS": "120"}
    done = subprocess.run(
        [*command, *chosen], cwd=ROOT, env=wide, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if " Hz " in line]
    if option == "--benchmark-disable":
        assert rows == []
        return
    assert "p99.9" in done.stdout
    assert len(rows) == 2
    for row in rows:
        p50, p99, p99_9, slowest = (float(cell.replace(",", "")) for cell in row[2:])
        assert 0.0 < p50 <= p99 <= p99_9 <= slowest

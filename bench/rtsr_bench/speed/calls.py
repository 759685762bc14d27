"""Single calls: run the benchmarks under ``bench/`` and tabulate p50, p99 and p99.9 of each.

pytest-benchmark's own table stops at quartiles, and stalls hide above them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from rtsr.errors import RtsrError

PERCENTILES = (50.0, 99.0, 99.9)


def run_benchmarks(arguments: list[str]) -> dict[str, Any]:
    """Run pytest-benchmark with every round's time kept; returns its report.

    Raises:
        RtsrError: there are no benchmarks here, or one failed; pytest has said why.
    """
    if not arguments and not Path("bench/test_kernels.py").is_file():
        raise RtsrError("There is no folder bench with benchmarks here; run it in the source tree.")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "benchmarks.json"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "--no-header", "--benchmark-only"),
            *("--benchmark-quiet", "--benchmark-save-data", f"--benchmark-json={report}"),
            *(arguments or ["bench"]),
        ]
        finished = subprocess.run(command, check=False)
        if finished.returncode != 0:
            raise RtsrError("A benchmark failed; pytest said why above.")
        return json.loads(report.read_text())


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}"


def build_table(report: dict[str, Any]) -> Table:
    """One row per benchmark, grouped, times in microseconds."""
    table = Table(title="time per call in microseconds", caption=_machine(report))
    for heading in ("benchmark", "rounds", *(f"p{level:g}" for level in PERCENTILES), "max"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    group = None
    for entry in sorted(report["benchmarks"], key=lambda entry: str(entry["group"])):
        if entry["group"] != group:
            group = entry["group"]
            table.add_section()
            table.add_row(group or "other", style="bold")
        seconds = np.array(entry["stats"]["data"])
        cases = [_microseconds(value) for value in np.percentile(seconds, PERCENTILES)]
        table.add_row(
            f"  {entry['name']}", str(len(seconds)), *cases, _microseconds(float(seconds.max()))
        )
    return table


def _machine(report: dict[str, Any]) -> str:
    machine = report["machine_info"]
    processor = machine.get("cpu", {}).get("brand_raw", machine.get("processor", ""))
    return f"{processor}, Python {machine.get('python_version', '')}"

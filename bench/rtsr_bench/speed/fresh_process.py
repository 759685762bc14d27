"""Runs a repetition in a fresh process, so that none profits from what another one left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr.runtime.providers import select as providers
from rtsr_bench.speed.gpu_monitor import GpuMonitor
from rtsr_bench.speed.matrix import Case
from rtsr_bench.speed.measure import Protocol

LONGEST_SECONDS = 900.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class RepetitionError(RtsrError):
    """A repetition did not come back with times; the sentence says why."""


class GivenUpError(RepetitionError):
    """It took longer than it was allowed to."""


def run_repetition(
    case: Case, protocol: Protocol, longest_seconds: float = LONGEST_SECONDS
) -> dict[str, Any]:
    """Return the answer of :func:`rtsr_bench.speed.measure.measure`, and ``gpu_power_w``.

    Raises:
        GivenUpError: it took too long.
        RepetitionError: it failed or died.
    """
    provider, options = providers.parse_provider(case.provider)
    monitor = GpuMonitor(options.device) if provider != providers.CPU else None
    with tempfile.TemporaryDirectory() as folder:
        answer_file = Path(folder) / "answer.json"
        job = {
            "case": asdict(case),
            "protocol": asdict(protocol),
            "answer": str(answer_file),
            "launched_ns": time.time_ns(),
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", "rtsr_bench.speed.child"],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=longest_seconds,
                env=_environment(case.threads),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise GivenUpError(
                f"'{case.label}' was given up after {longest_seconds:.0f} s."
            ) from None
        finally:
            if monitor is not None:
                monitor.stop()
        if not answer_file.is_file():
            raise RepetitionError(f"'{case.label}' {_how_it_died(done)}.")
        answer: dict[str, Any] = json.loads(answer_file.read_text(encoding="utf-8"))
    if "error" in answer:
        raise RepetitionError(answer["error"])
    if answer["provider"] != provider:
        raise RepetitionError(f"'{case.label}' ran on {answer['provider']}.")
    seen = {} if monitor is None else monitor.between(*answer["timed_between"])
    answer["gpu_power_w"] = seen.get("gpu_power_w")
    return answer


def _environment(threads: int) -> dict[str, str]:
    """No library may start more threads than the case says."""
    return {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}


def _how_it_died(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        hint = ", probably out of memory" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    lines = done.stderr.strip().splitlines()
    reason = " ".join(lines[-1].split())[:200].rstrip(".") if lines else "no message"
    return f"stopped with code {done.returncode} ({reason})"

"""Runs a repetition in a fresh process, so that none profits from what another one left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr.runtime.providers import select as providers
from rtsr_bench.matrix import Cell
from rtsr_bench.measure import Protocol
from rtsr_bench.probes import gpu_identifier

LONGEST_SECONDS = 900.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class RepetitionError(RtsrError):
    """A repetition did not come back with times; the sentence says why."""


class GivenUpError(RepetitionError):
    """It took longer than it was allowed to."""


def run_repetition(
    cell: Cell, protocol: Protocol, longest_seconds: float = LONGEST_SECONDS
) -> dict[str, Any]:
    """The answer of :func:`rtsr_bench.measure.measure`, and ``gpu_power_w``.

    Raises:
        GivenUpError: it took too long.
        RepetitionError: it failed or died.
    """
    provider, options = providers.parse_provider(cell.provider)
    power = GpuPower(options.device) if provider != providers.CPU else None
    with tempfile.TemporaryDirectory() as folder:
        answer_file = Path(folder) / "answer.json"
        job = {
            "cell": asdict(cell),
            "protocol": asdict(protocol),
            "answer": str(answer_file),
            "launched_ns": time.time_ns(),
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", "rtsr_bench.child"],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=longest_seconds,
                env=_environment(cell.threads),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise GivenUpError(
                f"'{cell.label}' was given up after {longest_seconds:.0f} s."
            ) from None
        finally:
            samples = power.stop() if power else []
        if not answer_file.is_file():
            raise RepetitionError(f"'{cell.label}' {_how_it_died(done)}.")
        answer: dict[str, Any] = json.loads(answer_file.read_text(encoding="utf-8"))
    if "error" in answer:
        raise RepetitionError(answer["error"])
    if answer["provider"] != provider:
        raise RepetitionError(f"'{cell.label}' ran on {answer['provider']}.")
    began, ended = answer["timed_between"]
    watts = [watt for moment, watt in samples if began <= moment <= ended]
    answer["gpu_power_w"] = sum(watts) / len(watts) if watts else None
    return answer


def _environment(threads: int) -> dict[str, str]:
    """No library may start more threads than the cell says."""
    return {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}


def _how_it_died(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        hint = ", probably out of memory" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    lines = done.stderr.strip().splitlines()
    reason = " ".join(lines[-1].split())[:200].rstrip(".") if lines else "no message"
    return f"stopped with code {done.returncode} ({reason})"


class GpuPower:
    """Samples the power draw of the GPU ten times a second from outside of the timed process."""

    def __init__(self, device: int = 0) -> None:
        self._samples: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None
        if shutil.which("nvidia-smi") is None:
            return
        command = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
        self._process = subprocess.Popen(
            [*command, "-i", gpu_identifier(device), "-lms", "100"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def stop(self) -> list[tuple[float, float]]:
        """``(time.time(), watts)`` of all samples; empty where the driver does not tell."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._reader.join()
        return self._samples

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._samples.append((time.time(), float(line)))
            except ValueError:  # "[N/A]"
                continue

"""Processes that measure: a fresh one for each repetition, or one that is kept while it lives.

A fresh process profits from nothing that another one left behind. A process that is kept spends no
budget on starting; one that crashes on a device costs its own job, and the next gets a fresh one.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from typing import Any

from rtsr.errors import RtsrError
from rtsr.runtime.providers import select as providers
from rtsr_bench.processes import thread_limits
from rtsr_bench.speed.gpu_monitor import GpuMonitor, gpu_megabytes
from rtsr_bench.speed.matrix import Case
from rtsr_bench.speed.measure import Protocol

LONGEST_SECONDS = 900.0
_STOP_SECONDS = 2.0


class RepetitionError(RtsrError):
    """A repetition did not come back with times; the sentence says why."""


class GivenUpError(RepetitionError):
    """It took longer than it was allowed to."""


class Workers:
    """Takes one job at a time to a process; ends what it started when it is left as a context.

    Args:
        kept: whether a process takes the next job, too.
    """

    def __init__(self, kept: bool = False) -> None:
        self._kept = kept
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._monitors: dict[int, GpuMonitor] = {}
        self._threads = 0
        self._launched_ns: int | None = None
        self._gpu_megabytes_before: float | None = None

    def measure(
        self, case: Case, protocol: Protocol, longest_seconds: float = LONGEST_SECONDS
    ) -> dict[str, Any]:
        """Return the answer of :func:`~rtsr_bench.speed.measure.measure` and what its GPU used.

        Raises:
            GivenUpError: it took too long.
            RepetitionError: it failed or died.
        """
        job = {"case": asdict(case), "protocol": asdict(protocol)}
        answer = self._ask(job, case, longest_seconds)
        provider, options = providers.parse_provider(case.provider)
        if answer["provider"] != provider:
            raise RepetitionError(f"'{case.label}' ran on {answer['provider']}.")
        seen: dict[str, float | None] = {}
        if provider != providers.CPU:
            seen = self._monitors[options.device].between(*answer["timed_between"])
        used, before = seen.get("gpu_memory_mb"), self._gpu_megabytes_before
        answer["device_mb"] = None if used is None or before is None else used - before
        answer["gpu_power_w"] = seen.get("gpu_power_w")
        return answer

    def compare(self, case: Case, longest_seconds: float = LONGEST_SECONDS) -> dict[str, Any]:
        """Return the answer of :func:`rtsr_bench.speed.parity.compare`.

        Raises:
            RepetitionError: as :meth:`measure`.
        """
        return self._ask({"case": asdict(case)}, case, longest_seconds)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._errors.close()
        for monitor in self._monitors.values():
            monitor.stop()

    def _ask(self, job: dict[str, Any], case: Case, seconds: float) -> dict[str, Any]:
        if self._threads != case.threads:
            self._stop()
        process = self._process or self._start(case)
        assert process.stdin is not None
        job["launched_ns"], self._launched_ns = self._launched_ns, None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            process.kill()
            self._stop()
            raise GivenUpError(f"'{case.label}' was given up after {seconds:.0f} s.") from None
        except OSError:
            line = ""
        if not line:
            process.wait()
            self._stop()
            raise RepetitionError(f"'{case.label}' {self._how_it_died(process.returncode)}.")
        answer: dict[str, Any] = json.loads(line)
        if answer.pop("is_broken", False) or not self._kept:
            self._stop()
        if "error" in answer:
            raise RepetitionError(answer["error"])
        return answer

    def _start(self, case: Case) -> subprocess.Popen[str]:
        provider, options = providers.parse_provider(case.provider)
        if provider != providers.CPU:
            if options.device not in self._monitors:
                self._monitors[options.device] = GpuMonitor(options.device)
            self._gpu_megabytes_before = gpu_megabytes(options.device)
        self._errors.seek(0)
        self._errors.truncate()
        self._threads = case.threads
        self._launched_ns = time.time_ns()
        process = subprocess.Popen(
            [sys.executable, "-m", "rtsr_bench.speed.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # No library may start more threads than the case says.
            env={**os.environ, **thread_limits(case.threads)},
        )
        self._process, self._answers = process, queue.Queue()
        threading.Thread(target=_read, args=(process, self._answers), daemon=True).start()
        return process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _how_it_died(self, code: int) -> str:
        if code < 0:
            name = signal.Signals(-code).name
            return f"was ended by {name}{', probably out of memory' * (name == 'SIGKILL')}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = " ".join(lines[-1].split())[:200].rstrip(".") if lines else "no message"
        return f"stopped with code {code} ({reason})"


def _read(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("")

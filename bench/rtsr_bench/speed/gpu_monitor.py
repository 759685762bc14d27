"""Watches the GPU from outside, over a whole run: power and memory."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from statistics import fmean

from rtsr.errors import RtsrError
from rtsr_bench.resources import gpu_command, gpu_query

_FIELDS = ("power.draw", "memory.used")
_PERIOD_MS = 100
_MEGA = 1.048576
#: What somebody else leaves of a GPU that counts as free.
_BUSY_PERCENT, _FULL_SHARE = 30.0, 0.25


@dataclass(frozen=True)
class Sample:
    """One reading: ``moment`` in seconds of ``time.time()``; what is not told is ``None``."""

    moment: float
    power_w: float | None
    memory_mb: float | None


class GpuMonitor:
    """Asks ``nvidia-smi`` ten times a second until it is stopped."""

    def __init__(self, device: int) -> None:
        self.samples: list[Sample] = []
        self._process: subprocess.Popen[str] | None = None
        if shutil.which("nvidia-smi") is None:
            return
        self._process = subprocess.Popen(
            [*gpu_command(*_FIELDS, device=device), "-lms", str(_PERIOD_MS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def between(self, began: float, ended: float) -> dict[str, float | None]:
        """Mean power, and the most memory, of what was seen in between."""
        seen = [sample for sample in self.samples if began <= sample.moment <= ended]
        powers = [sample.power_w for sample in seen if sample.power_w is not None]
        memories = [sample.memory_mb for sample in seen if sample.memory_mb is not None]
        return {
            "gpu_power_w": fmean(powers) if powers else None,
            "gpu_memory_mb": max(memories, default=None),
        }

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._reader.join()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            values = [_number(cell) for cell in line.split(",")]
            if len(values) == len(_FIELDS):
                power, memory = values
                memory = None if memory is None else memory * _MEGA
                self.samples.append(Sample(time.time(), power, memory))


def gpu_megabytes(device: int) -> float | None:
    """Ask for the memory in use on a GPU now, by everybody; ``None`` where nothing tells.

    In a container, processes cannot be told apart. A monitor's last sample may be of a moment when
    a process that has ended since still held memory.
    """
    rows = gpu_query("memory.used", device=device)
    used = _number(rows[0][0]) if rows else None
    return None if used is None else used * _MEGA


def require_free(device: int) -> None:
    """Refuse a GPU that somebody else is using; one that tells nothing counts as free.

    Raises:
        RtsrError: it is more than 30 % busy, or a quarter of its memory is taken.
    """
    rows = gpu_query("utilization.gpu", "memory.used", "memory.total", device=device)
    if not rows:
        return
    busy, used, total = (_number(cell) for cell in (*rows[0], "", "", "")[:3])
    is_full = used is not None and total and used > _FULL_SHARE * total
    if (busy or 0.0) > _BUSY_PERCENT or is_full:
        raise RtsrError(
            f"GPU {device} is used by somebody else ({busy or 0.0:.0f} % busy, "
            f"{used or 0.0:.0f} MiB taken), so nothing measured on it would be worth quoting; end "
            "that program, or take another GPU with --provider cuda:device=N."
        )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None

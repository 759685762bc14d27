"""What a process and its device use: memory and energy, read where the system tells, never guessed.

Every reading that cannot be had is ``None``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_POWER_ZONES = Path("/sys/class/powercap")
_MEGA = 1e6


def resident_megabytes() -> float | None:
    """Resident memory of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return _most_resident_megabytes()
    return pages * os.sysconf("SC_PAGE_SIZE") / _MEGA


def _most_resident_megabytes() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) * (1.0 if sys.platform == "darwin" else 1024.0) / _MEGA


def gpu_query(*fields: str, device: int = 0) -> list[list[str]]:
    """Rows that ``nvidia-smi`` answers for a session's GPU; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    command += ["-i", gpu_identifier(device)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]


def gpu_identifier(device: int = 0) -> str:
    """Return the GPU that a session calls ``device``, as ``nvidia-smi -i`` takes it."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[device] if device < len(visible) and visible[device] else str(device)


class PackageEnergy:
    """RAPL: what the processor packages have used, all programs together."""

    def __init__(self, zones: Path = _POWER_ZONES) -> None:
        self._packages = [
            zone
            for zone in sorted(zones.glob("intel-rapl:*"))
            if zone.name.count(":") == 1 and _read_text(zone / "name").startswith("package")
        ]
        self._before = self._read()

    @property
    def readable(self) -> bool:
        """Whether there are counters and this user may read them."""
        return self._before is not None

    def joules(self) -> float | None:
        """Energy since this object was made; a counter may have begun anew once."""
        now = self._read()
        if now is None or self._before is None:
            return None
        total = 0.0
        for zone, before, after in zip(self._packages, self._before, now, strict=True):
            if after < before:
                after += int(_read_text(zone / "max_energy_range_uj") or 0)
            total += (after - before) / _MEGA
        return total

    def _read(self) -> list[int] | None:
        try:
            values = [int((zone / "energy_uj").read_text()) for zone in self._packages]
        except (OSError, ValueError):
            return None
        return values or None


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

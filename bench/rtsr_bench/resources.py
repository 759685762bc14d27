"""What a process and its device use: memory and energy, read where the system tells, never guessed.

Every reading that cannot be had is ``None``.
"""

from __future__ import annotations

import os
from pathlib import Path

from rtsr_bench.processes import output_of

_POWER_ZONES = Path("/sys/class/powercap")
_MEGA = 1e6


def resident_megabytes() -> float | None:
    """Resident memory of this process now, which Linux tells: others only tell the most so far."""
    pages = (text_of(Path("/proc/self/statm")) or "").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / _MEGA if pages else None


def gpu_query(*fields: str, device: int = 0) -> list[list[str]]:
    """Rows that ``nvidia-smi`` answers for a session's GPU; empty where there is none."""
    lines = (output_of(*gpu_command(*fields, device=device)) or "").splitlines()
    return [[cell.strip() for cell in line.split(",")] for line in lines]


def gpu_command(*fields: str, device: int) -> list[str]:
    """Return the command that asks for a session's GPU, whatever else it counts among its own."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    name = visible[device] if device < len(visible) and visible[device] else str(device)
    query = f"--query-gpu={','.join(fields)}"
    return ["nvidia-smi", query, "--format=csv,noheader,nounits", "-i", name]


class PackageEnergy:
    """RAPL: what the processor packages have used, all programs together."""

    def __init__(self, zones: Path = _POWER_ZONES) -> None:
        self._packages = [
            zone
            for zone in sorted(zones.glob("intel-rapl:*"))
            if zone.name.count(":") == 1 and (text_of(zone / "name") or "").startswith("package")
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
                after += int(text_of(zone / "max_energy_range_uj") or 0)
            total += (after - before) / _MEGA
        return total

    def _read(self) -> list[int] | None:
        try:
            values = [int((zone / "energy_uj").read_text()) for zone in self._packages]
        except (OSError, ValueError):
            return None
        return values or None


def text_of(file: Path) -> str | None:
    """Return what a file of the system says, if it is there and may be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None

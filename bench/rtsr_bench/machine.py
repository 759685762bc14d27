"""What the figures were measured with: machine, driver, libraries, revision.

Facts only, none that name a person, a host or a folder: results are published.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import rtsr
from rtsr.errors import RtsrError
from rtsr.runtime.providers import select as providers
from rtsr_bench.processes import output_of
from rtsr_bench.resources import PackageEnergy, gpu_query, text_of

_CPU = Path("/sys/devices/system/cpu")
_LIBRARIES = (
    *("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "onnx"),
    *("numpy", "scipy", "numba", "llvmlite", "soxr", "torch"),
)
_GPU_FIELDS = (
    *("name", "driver_version", "memory.total"),
    *("power.limit", "clocks.max.sm", "mig.mode.current"),
)


def describe_machine() -> dict[str, Any]:
    """Everything that a reader needs to judge or repeat a measurement; ``None`` is unknown."""
    return {
        "cpu": {
            "model": _cpu_model(),
            "architecture": platform.machine(),
            "cores": _physical_cores(),
            "threads": os.cpu_count(),
            "usable_threads": _usable_threads(),
            "governor": text_of(_CPU / "cpu0/cpufreq/scaling_governor"),
            "most_mhz": _megahertz(_CPU / "cpu0/cpufreq/cpuinfo_max_freq"),
            "virtual": _is_virtual(),
        },
        "memory_gb": _memory_gigabytes(),
        "gpus": [
            dict(zip(_GPU_FIELDS, row, strict=True))
            for row in gpu_query(*_GPU_FIELDS)
            if len(row) == len(_GPU_FIELDS)
        ],
        "system": f"{platform.system()} {_leading_version(platform.release())}",
        "load_average": load_average(),
        "power_counters": {
            "cpu": "RAPL" if PackageEnergy().readable else None,
            "gpu": "nvidia-smi" if gpu_query("power.draw") else None,
        },
    }


def describe_software() -> dict[str, Any]:
    """Versions, the providers of ONNX Runtime, and the revision of the source."""
    return {
        "rtsr": rtsr.__version__,
        "revision": git_revision(Path(rtsr.__file__).parent),
        "python": platform.python_version(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
        "providers": _providers(),
    }


# Behind the beginning of a word, an option or an item of a list; of Windows and of addresses, too.
_FOLDERS = r"((?:^|[=,])(?:-[a-z])?)(?:file:|[A-Za-z]:(?=[\\/]))?[./~\\][^,]*[/\\]"


def command_line() -> str:
    """Write how this program was asked for it, without the folders of this machine."""
    # Of each path, which begins a word or an item of a list, also behind -m or --model=.
    words = [re.sub(_FOLDERS, r"\1", word) for word in sys.argv[1:]]
    return shlex.join(["rtsr", *words])


def load_average() -> float | None:
    """Programs that wanted to run over the last minute, one of them this one's parent."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):  # Windows
        return None


def git_revision(folder: Path) -> str | None:
    """Return the commit of the source in that folder, with ``+`` where files differ from it."""
    git = partial(output_of, "git", "--no-optional-locks", "-C", str(folder))
    revision = git("rev-parse", "HEAD")
    tracked = git("ls-files", "--error-unmatch", "__init__.py")
    changed = git("status", "--porcelain", "--untracked-files=no")
    if revision is None or not tracked or changed is None:
        return None
    return revision + "+" * bool(changed)


def _providers() -> list[str]:
    try:
        return providers.available(providers.load_onnxruntime())
    except RtsrError:
        return []


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_info() -> dict[str, str]:
    pairs = (line.partition(":") for line in (text_of(Path("/proc/cpuinfo")) or "").splitlines())
    return {name.strip(): value.strip() for name, _, value in reversed(list(pairs))}


def _cpu_model() -> str | None:
    found = _cpu_info().get("model name") or output_of("sysctl", "-n", "machdep.cpu.brand_string")
    return found or platform.processor() or None


def _physical_cores() -> int | None:
    siblings = set(map(text_of, _CPU.glob("cpu[0-9]*/topology/thread_siblings_list")))
    return len(siblings - {None}) or None


def _usable_threads() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count()


def _is_virtual() -> bool | None:
    flags = _cpu_info().get("flags")
    return None if flags is None else "hypervisor" in flags.split()


def _memory_gigabytes() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _megahertz(file: Path) -> float | None:
    text = text_of(file)
    return None if text is None else float(text) / 1000.0


def _leading_version(release: str) -> str:
    """Without the name that whoever built a kernel gave it."""
    match = re.match(r"[0-9.]+", release)
    return match[0].rstrip(".") if match else release

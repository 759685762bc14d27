"""What a running engine takes of the machine: processor time by part, and memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """At one moment, of a session's program and its workers.

    Attributes:
        main_s: processor seconds of the program's main thread.
        others_s: of its other threads, the audio callback among them.
        worker_s: of its child processes, those that have ended included.
        memory_mb: resident, of all of them; what is shared with others counts in part.
        anonymous_mb: what they have asked for themselves. It grows only if something leaks, while
            the other figure changes with every program that shares a library.
    """

    main_s: float
    others_s: float
    worker_s: float
    memory_mb: float
    anonymous_mb: float


def usage_of(pid: int) -> Usage:
    """Of that process and its descendants, as Linux tells.

    Raises:
        FileNotFoundError: there is no such process, or no ``/proc``.
    """
    threads = {
        int(path.name): _seconds(path / "stat") for path in (_PROC / str(pid) / "task").iterdir()
    }
    main = threads.get(pid, 0.0)
    whole = _seconds(_PROC / str(pid) / "stat")
    children = _descendants(pid)
    worker = sum(_seconds(_PROC / str(child) / "stat", ended=True) for child in children)
    family = (pid, *children)
    memory = sum(_megabytes(process, "smaps_rollup", "Pss:") for process in family)
    anonymous = sum(_megabytes(process, "status", "RssAnon:") for process in family)
    return Usage(main, max(0.0, whole - main), worker, memory, anonymous)


def _descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for path in _PROC.iterdir():
        if path.name.isdigit():
            fields = _fields(path / "stat")
            if fields:
                parents[int(path.name)] = int(fields[1])
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def _fields(path: Path) -> list[str]:
    """Return the fields of a ``stat`` file from the state on; none if the process has gone."""
    try:
        # The name before them is in parentheses and may hold anything.
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _seconds(path: Path, ended: bool = False) -> float:
    fields = _fields(path)
    wanted = fields[11:15] if ended else fields[11:13]
    return sum(map(int, wanted)) / os.sysconf("SC_CLK_TCK")


def _megabytes(pid: int, file: str, name: str) -> float:
    try:
        lines = (_PROC / str(pid) / file).read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return 0.0
    return kilobytes * 1.024e-3

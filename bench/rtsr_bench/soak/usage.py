"""What a running engine takes of the machine: processor time by part, and memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from rtsr.errors import MissingDependencyError, RtsrError

try:
    import psutil
except ImportError as error:
    raise MissingDependencyError("Saying what the engine takes", "dev") from error


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
    """Return what that process and its descendants have taken, as Linux tells.

    Raises:
        RtsrError: there is no such process.
    """
    try:
        program = psutil.Process(pid)
        main = sum(one.user_time + one.system_time for one in program.threads() if one.id == pid)
        whole = program.cpu_times()
    except psutil.NoSuchProcess:
        raise RtsrError(f"The engine's process {pid} has ended; its log says why.") from None
    worker = memory = anonymous = 0.0
    for one in (program, *program.children(recursive=True)):
        # A process that has gone takes nothing.
        with contextlib.suppress(psutil.Error), one.oneshot():
            took, used = one.cpu_times(), one.memory_info()
            memory += one.memory_full_info().pss
            anonymous += used.rss - used.shared
            if one != program:
                worker += took.user + took.system + took.children_user + took.children_system
    others = max(0.0, whole.user + whole.system - main)
    return Usage(main, others, worker, memory / 1e6, anonymous / 1e6)

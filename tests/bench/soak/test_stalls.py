"""The watch for stalls: it sees one that is really there, and tells what it could not have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtsr.errors import RtsrError
from rtsr_bench.soak.stalls import Stalls, StallWatch

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="stalls are measured on Linux"
)


@pytest.mark.alone
def test_a_stall_is_seen_once() -> None:
    with StallWatch() as watch:
        time.sleep(0.1)
        watching = _watchers_of(os.getpid())
        for process in watching:
            os.kill(process, signal.SIGSTOP)
        time.sleep(0.3)
        for process in watching:
            os.kill(process, signal.SIGCONT)
        time.sleep(0.1)
    cores = len(os.sched_getaffinity(0))
    stalls = watch.found
    assert stalls.worst_ms > 200.0
    assert stalls.late["10"] >= cores
    # Every period in it counted for itself would be 150 of each.
    assert stalls.late["10"] < 50 * cores
    assert stalls.wake_ups >= 10 * cores
    assert list(stalls.late.values()) == sorted(stalls.late.values(), reverse=True)


def test_the_watch_ends_with_the_program_that_wanted_it() -> None:
    program = (
        "from rtsr_bench.soak.stalls import StallWatch; import time\n"
        "with StallWatch():\n"
        "    print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        watching = _watchers_of(process.pid)
        process.kill()
    assert watching
    deadline = time.monotonic() + 5.0
    while any(map(_runs, watching)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, watching))


def _watchers_of(parent: int) -> list[int]:
    """Processes that watch the cores for a program."""
    return [
        process
        for children in Path(f"/proc/{parent}/task").glob("*/children")
        for process in map(int, children.read_text().split())
        if b"stall_watch" in Path(f"/proc/{process}/cmdline").read_bytes()
    ]


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_rows_say_when_the_watch_was_no_better_than_others() -> None:
    for realtime in (True, False):
        rows = dict(Stalls(1.0, realtime, 500, {"1": 3, "5": 1}, 7.25).rows())
        assert rows["longest stall"] == "7.2 ms"
        assert ("stalls over 5 ms" in rows) == realtime
        assert any("no priority" in name for name in rows) != realtime


def test_a_system_without_cores_to_choose_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(RtsrError, match="Linux"), StallWatch():
        pass


def test_the_command_counts_and_refuses() -> None:
    command = [sys.executable, "-m", "rtsr", "bench", "stalls", "--seconds"]
    done = subprocess.run([*command, "0.2"], capture_output=True, text=True, check=True)
    assert "longest stall" in done.stdout
    refused = subprocess.run([*command, "0"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.startswith("rtsr: --seconds")

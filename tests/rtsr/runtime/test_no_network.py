"""Enhancing sound opens no socket and leaves nothing in the user's folders."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

# The system call ``socket`` (<asm/unistd.h>) and the architecture (<linux/audit.h>).
_SYSTEMS = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}

# A filter of the kernel's (seccomp, classic BPF): whoever calls ``socket`` is killed with SIGSYS.
FORBID_SOCKETS = """
import ctypes, struct
SOCKET, ARCHITECTURE = {socket}, {architecture}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
program = b"".join(
    struct.pack("HBBI", *line)
    for line in (
        (LOAD, 0, 0, 4), (EQUAL, 0, 2, ARCHITECTURE),
        (LOAD, 0, 0, 0), (EQUAL, 1, 0, SOCKET),
        (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, KILL),
    )
)
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("lines", ctypes.c_void_p)]
lines = ctypes.create_string_buffer(program)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
filters = Program(len(program) // 8, ctypes.addressof(lines))
if libc.prctl(22, 2, ctypes.byref(filters), 0, 0):
    raise SystemExit(77)
"""

ENHANCE = """
import numpy as np
from rtsr import Upsampler
with Upsampler(8000) as upsampler:
    for _ in range(50):
        upsampler.process(np.zeros((80, 1), np.float32))
print("enhanced")
"""


def _run(body: str, home: Path) -> subprocess.CompletedProcess[str]:
    if sys.platform != "linux" or platform.machine() not in _SYSTEMS:
        pytest.skip("system calls are filtered on Linux alone")
    socket, architecture = _SYSTEMS[platform.machine()]
    code = FORBID_SOCKETS.format(socket=socket, architecture=architecture) + body
    kept = {"NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", "")}
    variables = {
        name: value
        for name, value in (os.environ | kept | {"HOME": str(home)}).items()
        if value and name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=300
    )
    if done.returncode == 77:
        pytest.skip("this system takes no filters of system calls")
    return done


def test_the_filter_kills_whoever_opens_a_socket(tmp_path: Path) -> None:
    done = _run("import socket; socket.socket()", tmp_path)
    assert done.returncode == -31, "SIGSYS"


@pytest.mark.slow
def test_enhancing_opens_no_socket_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = _run(ENHANCE, tmp_path)
    assert (done.returncode, done.stdout) == (0, "enhanced\n"), done.stderr
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "numba" not in str(path)]
    assert not left

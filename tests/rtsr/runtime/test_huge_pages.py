"""Huge pages: which memory of a process is meant, and that it gets them."""

from __future__ import annotations

import mmap
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsr.runtime.huge_pages import (
    added,
    huge_page_size,
    huge_pages_for_new_memory,
    private_memory,
)

MAPS = """\
55d0c8a00000-55d0c8a21000 r-xp 00000000 fd:00 1055 /usr/bin/python3
55d0c8c21000-55d0c8c23000 rw-p 00021000 fd:00 1055 /usr/bin/python3
55d0ca000000-55d0cb000000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
7f0000400000-7f0000500000 ---p 00000000 00:00 0
7f0000800000-7f0000900000 rw-s 00000000 00:01 4242 /dev/shm/ring
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]
"""


def gives_them_at_once() -> bool:
    """Whether there are huge pages, on a kernel that need not be waited for: 6.1 or later."""
    release = platform.release().split(".")
    return huge_page_size() > 0 and (int(release[0]), int(release[1])) >= (6, 1)


needs_huge_pages = pytest.mark.skipif(
    not gives_them_at_once(), reason="this system gives no huge pages at once"
)


def test_only_the_heap_and_nameless_private_memory_are_meant() -> None:
    assert private_memory(MAPS) == [
        (0x55D0CA000000, 0x55D0CB000000),
        (0x7F0000000000, 0x7F0000400000),
    ]


def cells(ranges: list[tuple[int, int]]) -> set[int]:
    return {cell for first, end in ranges for cell in range(first, end)}


def as_ranges(edges: set[int]) -> list[tuple[int, int]]:
    ordered = sorted(edges)
    return list(zip(ordered[::2], ordered[1::2], strict=False))


edges = st.sets(st.integers(0, 60), max_size=12).map(as_ranges)


@given(before=edges, after=edges)
def test_what_was_added_is_the_difference(
    before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> None:
    parts = added(before, after)
    assert cells(parts) == cells(after) - cells(before)
    assert sum(end - first for first, end in parts) == len(cells(parts))


def huge_bytes(address: int) -> int:
    """Bytes in huge pages of the mapping around an address, as the kernel counts them."""
    inside = False
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            name = line.split()[0]
            if "-" in name and not name.endswith(":"):
                first, end = (int(edge, 16) for edge in name.split("-"))
                inside = first <= address < end
            elif inside and name == "AnonHugePages:":
                return 1024 * int(line.split()[1])
    return 0


@needs_huge_pages
def test_new_memory_gets_huge_pages_and_keeps_its_contents() -> None:
    size = 8 * huge_page_size()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with huge_pages_for_new_memory():
        new = mmap.mmap(-1, size, flags)
        values = np.frombuffer(new, np.uint32)
        values[:] = np.arange(values.size)
    # A range need not begin where a huge page does.
    assert huge_bytes(values.ctypes.data) >= size - 2 * huge_page_size()
    np.testing.assert_array_equal(values, np.arange(values.size))
    del values
    new.close()


@needs_huge_pages
def test_weights_lie_in_huge_pages() -> None:
    """In a process of its own, since one that has run before reuses memory."""
    program = """
from rtsr.runtime.session import OnnxStep

def huge_bytes():
    with open("/proc/self/smaps_rollup") as rollup:
        return sum(1024 * int(line.split()[1]) for line in rollup if "AnonHuge" in line)

before = huge_bytes()
step = OnnxStep("small", provider="cpu")
step.run()
print(huge_bytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # 12 MB of weights, twice where they are reordered.
    assert int(done.stdout) > 8 << 20

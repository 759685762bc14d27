"""Huge pages for the weights: fewer look-ups of addresses in each step.

A step reads every weight once, some 12 MB of `small` in float32. In pages of 4 KiB these are 3,000
translations of addresses, more than a core keeps, so that much of a step goes into looking them up,
above all in a virtual machine. In pages of 2 MiB they are six. Most distributions of Linux give
such pages only to memory for which they were asked ("Transparent Hugepage Support",
https://docs.kernel.org/admin-guide/mm/transhuge.html), and ONNX Runtime does not ask.

Other systems have larger pages by themselves or need privileges, and are left as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
_MAPS = Path("/proc/self/maps")
# madvise(2): future pages may be huge; those that are there become so now (Linux 6.1 and later,
# before that the kernel does it by itself within seconds).
_MADV_HUGEPAGE = 14
_MADV_COLLAPSE = 25

#: first address and the one after the last
Range = tuple[int, int]

log = logging.getLogger(__name__)


@contextlib.contextmanager
def huge_pages_for_new_memory() -> Iterator[None]:
    """Ask for huge pages for what the process allocates meanwhile; in vain where there are none.

    Memory that the process already had and uses again stays as it is. What other threads allocate
    meanwhile is advised along, which costs what fills up each huge page that is in use in part.
    Contents stay as they are.
    """
    size = huge_page_size()
    before = _present() if size else None
    yield
    after = None if before is None else _present()
    if before is None or after is None:
        return
    wholes = (_whole_pages(one, size) for one in added(before, after))
    advised = sum(_advise(whole, size) for whole in wholes if whole is not None)
    log.debug("%d MiB may lie in huge pages", advised >> 20)


def huge_page_size() -> int:
    """Return the bytes of a huge page, or 0 where a program cannot ask for any."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        if "[never]" in (_SETTINGS / "enabled").read_text():
            return 0
        return int((_SETTINGS / "hpage_pmd_size").read_text())
    except (OSError, ValueError):  # a kernel without them, or a sandbox that hides it
        return 0


def _present() -> list[Range] | None:
    try:
        return private_memory(_MAPS.read_text())
    except OSError:  # a sandbox that hides it
        return None


def private_memory(maps: str) -> list[Range]:
    """Return the ranges of a process's own writable memory without a file, in ascending order.

    ``maps`` is the text of ``/proc/self/maps`` (proc(5)). The first thread's stack is left out.
    """
    ranges = []
    for line in maps.splitlines():
        addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if permissions.startswith("rw") and permissions[3] == "p" and inode == "0":
            if name and name[0] != "[heap]":
                continue
            first, end = addresses.split("-")
            ranges.append((int(first, 16), int(end, 16)))
    return ranges


def added(before: list[Range], after: list[Range]) -> list[Range]:
    """Return the parts of ``after`` that are not in ``before``; both ascend."""
    parts = []
    for first, end in after:
        for old_first, old_end in before:
            if old_end <= first or old_first >= end:
                continue
            if old_first > first:
                parts.append((first, old_first))
            first = max(first, old_end)
        if first < end:
            parts.append((first, end))
    return parts


def _whole_pages(one: Range, size: int) -> Range | None:
    """Return the whole pages of ``size`` bytes in a range, if it has any."""
    first, end = -(-one[0] // size) * size, one[1] // size * size
    return (first, end) if first < end else None


def _advise(one: Range, size: int) -> int:
    """Ask for huge pages in a range of whole ones; returns the bytes for which that was taken.

    ``size`` is that of a page.
    """
    first, end = one
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if madvise(first, end - first, _MADV_HUGEPAGE) != 0:
        return 0
    # One by one, since it stops at the first page that is not in use yet; older kernels refuse it.
    for page in range(first, end, size):
        madvise(page, size, _MADV_COLLAPSE)
    return end - first

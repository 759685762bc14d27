"""Under ``RTSR_ALL_CLIENTS=1`` a test that skips itself for want of a client fails.

Otherwise nobody would notice that browsers, telephones, sound servers or packages have been missing
in CI for months.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator
from typing import Any

import pytest

VARIABLE = "RTSR_ALL_CLIENTS"

# How tests say that a program, a package or a right is missing which CI has.
_MISSING = re.compile(
    r"not installed|\(Debian: |could not import|\bextra\b|not bundled|network namespaces|"
    r"there is no .* here|needs chromium",
)
# What CI really cannot have: half a gigabyte, which `make test-triton` installs, and IPv6, which
# containers are often without.
_CANNOT_HAVE = re.compile(r"Triton server|Python backend|IPv6")


def _is_on() -> bool:
    # Before Python 3.11 there are no packages for calls.
    return os.environ.get(VARIABLE) == "1" and sys.version_info >= (3, 11)


def _refuse_skip(report: Any) -> None:
    """Make a failure of a skip for want of a client."""
    if not (_is_on() and report.skipped and isinstance(report.longrepr, tuple)):
        return
    path, line, reason = report.longrepr
    if _MISSING.search(reason) and not _CANNOT_HAVE.search(reason):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: with {VARIABLE}=1 this is a failure: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    """Look at what becomes of each test."""
    outcome = yield
    _refuse_skip(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, None]:
    """Look at modules, which may skip themselves as a whole."""
    outcome = yield
    _refuse_skip(outcome.get_result())

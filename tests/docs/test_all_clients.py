"""In CI a client that is missing is a failure and not a skip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="there are no packages for calls then"
)

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="there is no Chromium here")
def test_browser(): pass

@pytest.mark.skipif(True, reason="network namespaces are refused here")
def test_right(): pass

def test_program(): pytest.skip("jackd is not installed (Debian: jackd2)")

def test_package(): pytest.skip("the pipecat-ai package is not installed")

def test_import(): pytest.importorskip("not_there")

def test_stays_windows(): pytest.skip("signals")

def test_stays_gpu(): pytest.skip("there is no GPU that ONNX Runtime can use")

def test_stays_server(): pytest.skip("there is no Triton server here; see `make`")
"""
MODULE = """
import pytest

pytest.importorskip("not_there", reason='calls need the extra "call", and Python 3.11 or newer')
"""


@pytest.fixture
def outcomes(tmp_path: Path) -> dict[bool, str]:
    """What pytest says of such tests where all clients are wanted, and where they are not."""
    (tmp_path / "test_each.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(MODULE)
    (tmp_path / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tests' / 'helpers')!r})\n"
        "from all_clients import *\n"
    )
    command = [sys.executable, "-m", "pytest", "-rsfE", "-p", "no:cacheprovider"]
    return {
        wanted: subprocess.run(
            [*command, "--continue-on-collection-errors", str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "RTSR_ALL_CLIENTS": "1" if wanted else ""},
        ).stdout
        for wanted in (False, True)
    }


def test_a_client_that_is_missing_is_a_failure_where_all_are_wanted(
    outcomes: dict[bool, str],
) -> None:
    assert re.search(r"=+ 9 skipped in ", outcomes[False])
    assert re.search(r"=+ 3 failed, 3 skipped, 3 errors in ", outcomes[True])
    assert "ERROR test_module.py" in outcomes[True]
    assert "FAILED test_each.py::test_stays" not in outcomes[True]
    assert outcomes[True].count("with RTSR_ALL_CLIENTS=1 this is a failure") >= 6


def test_ci_wants_all_clients() -> None:
    assert "export RTSR_ALL_CLIENTS=1\n" in (ROOT / ".ci" / "run").read_text()

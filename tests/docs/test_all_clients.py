"""In CI a client that is missing is a failure and not a skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="there are no packages for calls then"
)

TEST = """
import pytest
pytest.importorskip({package!r}, reason={module!r})
{mark}
def test_it():
    {body}
"""
SKIP = "pytest.skip({!r})"
MARK = "@pytest.mark.skipif(True, reason={!r})"


def run(
    folder: Path,
    *,
    package: str = "sys",
    module: str = "?",
    body: str = "pass",
    mark: str = "",
    **more: str,
) -> tuple[int, str]:
    """Exit code and output of pytest for a test of its own."""
    text = TEST.format(package=package, module=module, body=body, mark=mark)
    (folder / "test_one.py").write_text(text)
    (folder / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tests' / 'helpers')!r})\n"
        "from all_clients import *\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "RTSR_ALL_CLIENTS": "", **more},
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "given",
    [
        {"package": "not_there", "module": 'calls need the extra "call"'},
        {"mark": MARK.format("there is no Chromium here")},
        {"mark": MARK.format("network namespaces are refused here")},
        {"body": SKIP.format("jackd is not installed (Debian: jackd2)")},
        {"body": SKIP.format("the pipecat-ai package is not installed")},
        {"body": "pytest.importorskip('not_there')"},
    ],
    ids=["module", "mark", "right", "program", "package", "import"],
)
def test_a_client_that_is_missing_is_a_failure_where_all_are_wanted(
    tmp_path: Path, given: dict[str, str]
) -> None:
    assert "1 skipped" in run(tmp_path, **given)[1]
    code, output = run(tmp_path, **given, RTSR_ALL_CLIENTS="1")
    assert code != 0
    assert "with RTSR_ALL_CLIENTS=1 this is a failure" in output


@pytest.mark.parametrize(
    "reason",
    [
        "signals",
        "there is no GPU that ONNX Runtime can use",
        "there is no Triton server here; `make test-triton` installs one",
    ],
)
def test_other_skips_stay(tmp_path: Path, reason: str) -> None:
    code, output = run(tmp_path, body=SKIP.format(reason), RTSR_ALL_CLIENTS="1")
    assert code == 0
    assert "1 skipped" in output


def test_ci_wants_all_clients() -> None:
    assert "export RTSR_ALL_CLIENTS=1\n" in (ROOT / ".ci" / "run").read_text()

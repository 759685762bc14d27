"""One run at a time in a folder, until it ends or dies."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rtsr.errors import RtsrError
from rtsr.train import lock
from rtsr.train.lock import LOCK, locked

HOLDS_IT = """
import pathlib, sys
from rtsr.train.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("has it", flush=True)
    sys.stdin.read()
"""

FORKS_WITH_IT = """
import os, pathlib, sys, time
from rtsr.train.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    if os.fork():
        time.sleep(60)
    print("forked", flush=True)
    sys.stdin.read()
"""


def take(folder: Path) -> None:
    with locked(folder):
        assert (folder / LOCK).exists()


@contextmanager
def held_by(program: str, folder: Path, says: str) -> Iterator[subprocess.Popen[str]]:
    """While another process, which says so, has the folder, until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", program, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == f"{says}\n"
        yield other


def test_a_second_process_is_refused_until_the_first_one_dies(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    with held_by(HOLDS_IT, folder, "has it") as other:
        with pytest.raises(RtsrError, match=r"Another training writes to .*new; wait until"):
            take(folder)
        other.kill()
    take(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_it_forked_does_not_keep_it(tmp_path: Path) -> None:
    # Said by the child; the run itself waits to be killed.
    with held_by(FORKS_WITH_IT, tmp_path, "forked") as run:
        with pytest.raises(RtsrError, match="Another training writes to"):
            take(tmp_path)
        run.kill()
        assert run.wait() != 0
        # The child still waits for its input to end.
        take(tmp_path)


def test_it_can_be_taken_again_and_keeps_nobody_out_of_another_folder(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "one"), locked(tmp_path / "other"):
            pass
    assert (tmp_path / "one" / LOCK).exists()


def test_a_file_system_without_locks_keeps_nobody_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_none(file: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "lock_file", has_none)
    take(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / LOCK]


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RtsrError, match=r"Nothing can be written to .*file.run: "):
        take(tmp_path / "file" / "run")

"""What a first start compiles, and what it says meanwhile."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

TELLING = "import logging; from rtsr.cli.compile_messages import tell_of_compiling; " + (
    "tell_of_compiling(); tell_of_compiling(); log = logging.getLogger('rtsr_kernels'); "
    "log.info('compiled one'); log.info('compiled two'); log.warning('Kept nowhere.')"
)


def _said_on_a_terminal(*command: str) -> list[str]:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL) as process:
        assert process.wait(60) == 0
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    return said.splitlines()


def test_a_terminal_hears_once_that_a_first_start_compiles() -> None:
    said = _said_on_a_terminal(sys.executable, "-c", TELLING)
    assert len(said) == 2
    assert said[0].startswith("rtsr: compiling for this machine")
    assert said[1] == "rtsr: Kept nowhere."


def test_a_log_file_hears_warnings_only() -> None:
    done = subprocess.run([sys.executable, "-c", TELLING], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "rtsr: Kept nowhere.\n")


@pytest.mark.slow
def test_after_a_warm_up_nothing_is_left_to_compile() -> None:
    def warm_up() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "rtsr", "warm-up"], capture_output=True, text=True, timeout=600
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    warm_up()
    again = warm_up()
    assert again.startswith("Found all compiled, ran small-int8, small, replicate, octave, in ")
    import rtsr_kernels.ring

    assert rtsr_kernels.ring.ring_write.stats.cache_path in again

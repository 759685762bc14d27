"""Seconds from nothing to a running process: what a user waits for before the first sound."""

from __future__ import annotations

import subprocess
import sys

import pytest

FIRST_BLOCK = (
    "import numpy, rtsr\n"
    "with rtsr.Upsampler(8000) as upsampler:\n"
    "    upsampler.process(numpy.zeros(80, dtype='f4'))"
)
STARTS = {
    "import rtsr_kernels": ["-c", "import rtsr_kernels"],
    "rtsr --help": ["-m", "rtsr", "--help"],
    "Upsampler(8000), first block": ["-c", FIRST_BLOCK],
}


@pytest.mark.parametrize("name", STARTS)
def test_start(benchmark, name):
    benchmark.group = "a new process, compiled code on disk"
    benchmark.name = name
    command = [sys.executable, *STARTS[name]]

    def start() -> None:
        subprocess.run(command, check=True, capture_output=True)

    benchmark.pedantic(start, rounds=5, warmup_rounds=1)

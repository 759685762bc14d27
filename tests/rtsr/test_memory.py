"""What runs for days takes no more memory than at its beginning."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rtsr import BatchUpsampler, Upsampler

STATUS = Path("/proc/self/status")
STEPS = 100_000
# Half a megabyte is where the times of the newest steps lie once they are written. Behind that 15
# bytes per step: the smallest object of Python's takes 16, a block of 10 ms 1,920.
MOST_BYTES = (1 << 19) + 15 * STEPS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STATUS.is_file(), reason="memory is counted in /proc"),
]


def _resident() -> int:
    """Bytes of this process that lie in memory."""
    gc.collect()
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


def _growth(step: Callable[[], object]) -> int:
    for _ in range(2000):
        step()
    before = _resident()
    for _ in range(STEPS):
        step()
    return _resident() - before


def _block() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(80)).astype(np.float32)


def test_an_upsampler_of_100_000_steps() -> None:
    block = _block()
    with Upsampler(8000, model="replicate") as upsampler:
        assert _growth(lambda: upsampler.process(block)) < MOST_BYTES
        assert upsampler.statistics.steps > STEPS


def test_a_batch_of_100_000_steps_in_which_streams_come_and_go(stand_in: Path) -> None:
    block = _block()
    with BatchUpsampler(2, model=stand_in) as batch:
        stays, goes = batch.open(8000), batch.open(8000)

        def step() -> None:
            nonlocal goes
            stays.push(block)
            goes.push(block)
            batch.step()
            stays.pull()
            if batch.statistics.steps % 100 == 0:
                goes.close()
                goes = batch.open(8000)
            else:
                goes.pull()

        assert _growth(step) < MOST_BYTES
        assert batch.statistics.steps > STEPS

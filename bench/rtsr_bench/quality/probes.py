"""Measurements of a system that no clip's metrics show: blocks, silence, speed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtsr.quality.metrics import silence_dbfs
from rtsr.runtime.providers import select as providers
from rtsr.timing import SAMPLE_RATE
from rtsr.upsampler import Upsampler
from rtsr_bench.corpus import read_loudest

Audio = NDArray[np.float32]

#: Block lengths in samples: the shortest, an odd one, a hop at 48 kHz, more than a step holds.
BLOCKS = (1, 37, 480, 4096)
PROBE_SECONDS = 1.0
SILENT_SECONDS = 1.0
TIMED_SECONDS = 2.0
REPETITIONS = 5


def probe(model: str, inputs: Sequence[Path]) -> dict[str, float]:
    """Both promises of the engine, on the loudest second of each input: the worst case of each.

    Returns:
        ``"block N"``: see :func:`streaming_differences`; ``"silence_dbfs"``: see
        :func:`level_in_silence`.
    """
    rows = []
    for path in inputs:
        samples, rate = read_part(path, PROBE_SECONDS)
        differences = streaming_differences(model, rate, samples)
        rows.append(
            {f"block {block}": value for block, value in differences.items()}
            | {"silence_dbfs": level_in_silence(model, rate, samples)}
        )
    return {name: max(row[name] for row in rows) for name in rows[0]}


def streaming_differences(
    model: str, rate: int, samples: Audio, blocks: Sequence[int] = BLOCKS
) -> dict[int, float]:
    """Largest difference of any sample between a stream cut into blocks and one long block.

    Args:
        model: for :class:`~rtsr.Upsampler`.
        rate: of the samples in Hz.
        samples: ``(samples,)`` float32.
        blocks: lengths of the blocks in samples.

    Returns:
        by block length; infinite where the two differ in length.
    """
    with Upsampler(rate, model=model, provider=providers.CPU) as upsampler:
        whole = _stream(upsampler, samples, max(len(samples), 1))
        return {
            block: largest_difference(whole, _stream(upsampler, samples, block)) for block in blocks
        }


def largest_difference(one: Audio, other: Audio) -> float:
    """Return the largest absolute difference of two signals; infinite if their lengths differ."""
    if one.shape != other.shape:
        return math.inf
    return float(np.max(np.abs(one.astype(np.float64) - other), initial=0.0))


def level_in_silence(model: str, rate: int, samples: Audio) -> float:
    """Level in dB of full scale of a second of digital silence between two loud parts.

    As :func:`rtsr.quality.metrics.silence_dbfs`, without the first and last 10 ms, where filters
    ring; -120 is the least that it tells.
    """
    silence = np.zeros(round(SILENT_SECONDS * rate), np.float32)
    with Upsampler(rate, model=model, provider=providers.CPU) as upsampler:
        early = upsampler.latency.algorithmic_samples
        output = _stream(upsampler, np.concatenate([samples, silence, samples]), len(silence))
    output = output[early:]
    begin = round(len(samples) * SAMPLE_RATE / rate)
    is_sound = np.ones(len(output))
    is_sound[begin : begin + round(SILENT_SECONDS * SAMPLE_RATE)] = 0.0
    return silence_dbfs(is_sound, output.astype(np.float64))


def real_time_factor(model: str, path: Path, repetitions: int = REPETITIONS) -> float:
    """Seconds of audio per second of computing: the whole chain, one thread, blocks of 10 ms.

    The median of several runs over the loudest two seconds of a file. Loading the model is not
    in it, reading and writing neither.
    """
    samples, rate = read_part(path, TIMED_SECONDS)
    with Upsampler(rate, model=model, provider=providers.CPU) as upsampler:
        times = []
        for _ in range(repetitions):
            started = time.perf_counter()
            _stream(upsampler, samples, rate // 100)
            times.append(time.perf_counter() - started)
    return len(samples) / rate / statistics.median(times)


def read_part(path: Path, seconds: float) -> tuple[Audio, int]:
    """Read the loudest part of a file's first channel, ``(samples,)``, and its rate in Hz."""
    samples, rate = read_loudest(path, seconds)
    return samples.astype(np.float32), rate


def _stream(upsampler: Upsampler, samples: Audio, block: int) -> Audio:
    parts = [upsampler.process(samples[at : at + block]) for at in range(0, len(samples), block)]
    return np.concatenate([*parts, upsampler.flush()])

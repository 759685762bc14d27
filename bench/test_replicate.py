"""Time of one 10 ms hop without a network; 0.15 ms per channel is what it may take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtsr import Upsampler
from rtsr.engine.replicate import ReplicateSource
from rtsr.timing import HOP, HOP_MS

BUDGET_MS = 0.15


@pytest.mark.parametrize("cutoff", [2000.0, 4000.0, 8000.0, 16000.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_hop(benchmark: Any, cutoff: float, channels: int) -> None:
    benchmark.group = "replicate, one 10 ms hop"
    benchmark.name = f"{cutoff:g} Hz, {channels} channel{'s' if channels > 1 else ''}"
    benchmark.extra_info["budget_ms"] = BUDGET_MS * channels
    source = ReplicateSource(channels, 0)
    random = np.random.default_rng(0)
    audio = (0.1 * random.standard_normal((HOP, channels))).astype(np.float32)
    prior = np.full(1, cutoff, np.float32)
    benchmark.pedantic(source.generate, args=(audio, prior, 20000.0), rounds=1500, warmup_rounds=50)


def test_hop_of_silence(benchmark: Any) -> None:
    """Denormal numbers would show here."""
    benchmark.group = "replicate, one 10 ms hop"
    benchmark.name = "silence after sound"
    source, prior = ReplicateSource(1, 0), np.full(1, 4000.0, np.float32)
    source.generate(np.full((HOP, 1), 0.1, np.float32), prior, 20000.0)
    audio = np.full((HOP, 1), 1e-39, np.float32)
    benchmark.pedantic(source.generate, args=(audio, prior, 20000.0), rounds=1500, warmup_rounds=50)


@pytest.mark.parametrize("rate", [8000, 48000])
def test_upsampler_block(benchmark: Any, rate: int) -> None:
    block = (np.random.default_rng(0).standard_normal(rate // 100) * 0.1).astype(np.float32)
    benchmark.group = "Upsampler.process, replicate, 10 ms blocks"
    benchmark.name = f"from {rate} Hz"
    benchmark.extra_info["budget_ms"] = HOP_MS
    with Upsampler(rate, model="replicate", cutoff=4000.0) as upsampler:
        benchmark.pedantic(upsampler.process, args=(block,), rounds=1500, warmup_rounds=100)

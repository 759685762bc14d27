"""Time that a colour adds to the engine's own work; the network is taken out."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from rtsr import BatchUpsampler, Colour, Upsampler
from rtsr.runtime.models import find_model
from rtsr.timing import HOP_MS

MODEL = "small-int8"
STREAMS = 64


def _colour() -> Colour:
    facts = find_model(MODEL).metadata
    row = tuple(np.linspace(-9.0, 9.0, 24).tolist())
    return Colour(facts.name, facts.weights_sha256, 10.0, (row,) * 4, (0.0,) * 10)


@pytest.mark.parametrize("is_coloured", [False, True], ids=["none", "coloured"])
def test_block_with_a_colour(benchmark, monkeypatch, is_coloured):
    """One 10 ms block of 8 kHz through an Upsampler whose network costs nothing."""
    block = (np.random.default_rng(0).standard_normal(80) * 0.1).astype(np.float32)
    benchmark.group = "Upsampler.process beside the network, 10 ms blocks of 8 kHz"
    benchmark.name = "with a colour" if is_coloured else "without a colour"
    benchmark.extra_info["budget_ms"] = HOP_MS
    colour = _colour() if is_coloured else None
    with Upsampler(8000, model=MODEL, provider="cpu", cutoff=4000.0, colour=colour) as upsampler:
        monkeypatch.setattr(upsampler._engine._source._session, "run", lambda: None)
        benchmark.pedantic(upsampler.process, args=(block,), rounds=3000, warmup_rounds=100)


@pytest.mark.parametrize("is_coloured", [False, True], ids=["none", "coloured"])
def test_step_of_many_streams_with_colours(benchmark, monkeypatch, is_coloured):
    """One step of a batch whose network costs nothing; every stream has a colour."""
    block = (np.random.default_rng(0).standard_normal(80) * 0.1).astype(np.float32)
    benchmark.group = "BatchUpsampler.step beside the network"
    benchmark.name = f"{STREAMS} streams {'with' if is_coloured else 'without'} colours"
    benchmark.extra_info["budget_ms"] = HOP_MS
    colour = _colour() if is_coloured else None
    with BatchUpsampler(STREAMS, model=MODEL, provider="cpu", overload="wait") as batch:
        monkeypatch.setattr(batch._step, "run", lambda due, held, steps: None)
        calls = [batch.open(8000, cutoff=4000.0, colour=colour) for _ in range(STREAMS)]

        def feed() -> None:
            for call in calls:
                call.pull()
                call.push(block)

        benchmark.pedantic(batch.step, setup=feed, rounds=500, warmup_rounds=10)

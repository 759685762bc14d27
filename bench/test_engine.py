"""Time of everything around the network: one stream's block, and a step of many streams.

The network is taken out (its run returns at once), so what is left is the engine's own work:
conversion to 48 kHz, detector, noise, crossover, gain, delay, rings. Times of many streams are per
step; divided by the streams they are microseconds per stream and hop.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from rtsr import BatchUpsampler, Upsampler
from rtsr.timing import HOP_MS

STREAMS = (64, 256, 1000)


def _sound(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * 0.1).astype(np.float32)


@pytest.mark.parametrize("cutoff", [4000.0, None], ids=["given", "measured"])
def test_block_beside_the_network(benchmark, monkeypatch, cutoff):
    """One 10 ms block of 8 kHz through an Upsampler whose network costs nothing."""
    block = _sound(80)
    benchmark.group = "Upsampler.process beside the network, 10 ms blocks of 8 kHz"
    benchmark.name = "cutoff given" if cutoff else "cutoff measured"
    benchmark.extra_info["budget_ms"] = HOP_MS
    with Upsampler(8000, model="small-int8", provider="cpu", cutoff=cutoff) as upsampler:
        monkeypatch.setattr(upsampler._engine._source._session, "run", lambda: None)
        benchmark.pedantic(upsampler.process, args=(block,), rounds=3000, warmup_rounds=100)


@pytest.mark.parametrize("cutoff", [4000.0, None], ids=["given", "measured"])
@pytest.mark.parametrize("streams", STREAMS)
def test_step_of_many_streams_beside_the_network(benchmark, monkeypatch, streams, cutoff):
    """One step of a batch whose network costs nothing; pushing and pulling are not in it."""
    sound = _sound(streams, 80)
    benchmark.group = "BatchUpsampler.step beside the network"
    benchmark.name = f"{streams} streams, cutoff {'given' if cutoff else 'measured'}"
    benchmark.extra_info["budget_ms"] = HOP_MS
    with BatchUpsampler(streams, model="small-int8", provider="cpu", overload="wait") as batch:
        monkeypatch.setattr(batch._step, "run", lambda due, held, steps: None)
        calls = [batch.open(8000, seed=seed, cutoff=cutoff) for seed in range(streams)]

        def feed() -> None:
            for call, block in zip(calls, sound, strict=True):
                call.pull()
                call.push(block)

        benchmark.pedantic(batch.step, setup=feed, rounds=200, warmup_rounds=10)


@pytest.mark.parametrize("is_at_once", [False, True], ids=["one_by_one", "at_once"])
@pytest.mark.parametrize("streams", STREAMS)
def test_push_and_pull_of_many_streams(benchmark, monkeypatch, streams, is_at_once):
    """What the callers of so many streams do for one 10 ms packet each, the step not included."""
    sound = _sound(streams, 80)
    out = np.empty((streams, 960), np.float32)
    benchmark.group = "push and pull of a batch's streams, 10 ms packets of 8 kHz"
    benchmark.name = f"{streams} streams, {'at once' if is_at_once else 'one by one'}"
    with BatchUpsampler(streams, model="small-int8", provider="cpu", overload="wait") as batch:
        monkeypatch.setattr(batch._step, "run", lambda due, held, steps: None)
        calls = [batch.open(8000, seed=seed, cutoff=4000.0) for seed in range(streams)]

        def one_by_one() -> None:
            for call, block in zip(calls, sound, strict=True):
                call.pull()
                call.push(block)

        def at_once() -> None:
            batch.pull_many(calls, out)
            batch.push_many(calls, sound)

        benchmark.pedantic(
            at_once if is_at_once else one_by_one,
            setup=lambda: batch.step() and None,
            rounds=200,
            warmup_rounds=10,
        )

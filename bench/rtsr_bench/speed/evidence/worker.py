"""``python -m rtsr_bench.speed.evidence.worker``: measures item after item in one process.

Items come on stdin and answers go to stdout, one JSON object a line. A process of its own for each
would spend most of a short budget on starting; but one that crashes on a device takes only this
process with it, and the next item gets a fresh one.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rtsr.batch.upsampler import BatchUpsampler
from rtsr.errors import RtsrError
from rtsr.runtime.models import find_model
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.options import CPU, ProviderOptions, parse_provider
from rtsr.runtime.session import OnnxStep
from rtsr_bench.probes import resident_megabytes
from rtsr_bench.speed.blocks import Blocks
from rtsr_bench.speed.evidence.items import PARITY, SEARCH, STEPS, Item, Network
from rtsr_bench.speed.measure import Protocol, measure_steps, take_steps
from rtsr_bench.speed.stream_search import OutOfTimeError, Trial, find_most_streams
from rtsr_bench.speed.summary import histogram, quantiles, step_figures
from rtsr_bench.speed.targets import ModelStep
from rtsr_export.step_parity import TOLERANCE, compare_steps, tolerance_to_cpu

_INPUT_RATE = 8000
_TRIAL_STEPS = 400
#: A number of streams above 8 is found within an eighth of it.
_EXACT_UP_TO = 8


class WholeBatch:
    """Streams through ``BatchUpsampler``: a packet of 8 kHz each in, its enhanced twin out.

    Args:
        item: what to make; every stream is mono and has a detector of its own.
    """

    def __init__(self, item: Item, streams: int) -> None:
        network = item.network
        self._batch = BatchUpsampler(
            streams,
            model=Path(network.file),
            provider=network.provider,
            hops_per_step=item.hops,
            threads=network.threads,
        )
        self.provider = self._batch.provider
        samples = round(_INPUT_RATE * item.period_ms / 1000.0)
        self._streams = [self._batch.open(_INPUT_RATE, seed=seed) for seed in range(streams)]
        self._packets = Blocks(samples, streams)
        frames = 2 * self._batch.step_samples
        self._out = np.empty((frames, 1), np.float32)

    def step(self) -> None:
        """Every stream pushes a packet, the batch steps once, every stream pulls."""
        packets = np.ascontiguousarray(self._packets.next().T)
        for stream, packet in zip(self._streams, packets, strict=True):
            stream.push(packet)
        self._batch.step()
        for stream in self._streams:
            stream.pull_into(self._out)

    def close(self) -> None:
        """Let go of streams and model."""
        self._batch.close()


class BareStep(ModelStep):
    """The model's step alone."""

    def __init__(self, item: Item, streams: int) -> None:
        super().__init__(item.case(streams))
        self.captured = self._step.cuda_graph
        self.notes = self._step.notes

    def close(self) -> None:
        """Nothing is open but memory."""


def probe(provider: str, file: str) -> dict[str, Any]:
    """Which provider starts, and what it had to say."""
    step = OnnxStep(Path(file), provider=provider)
    facts: dict[str, Any] = {"provider": step.provider, "notes": list(step.notes)}
    if step.provider != CPU:
        from rtsr.runtime.providers.cuda_driver import CudaDriver

        gpu = CudaDriver(step.options.device).describe()
        facts["gpu"] = {
            "name": gpu.name,
            "compute_capability": gpu.compute_capability,
            "driver": gpu.driver,
            "cuda": f"{gpu.cuda[0]}.{gpu.cuda[1]}",
        }
    return facts


def measure_item(item: Item, seconds: float, deadline: float, first: int) -> dict[str, Any]:
    """Measure one item.

    Args:
        item: what.
        seconds: of timed steps.
        deadline: ``time.monotonic()`` at which a search ends with what is known.
        first: streams that a search begins with.

    Returns:
        Facts as JSON holds them; ``between`` are begin and end in seconds of ``time.time()``.
    """
    began = time.time()
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        PARITY: lambda: _parity(item),
        STEPS: lambda: _steps(item, item.streams, seconds),
        SEARCH: lambda: _search(item, seconds, deadline, first),
    }
    facts = {"between": [began, 0.0], **measures[item.kind]()}
    facts["between"][1] = time.time()
    facts["rss_mb"] = resident_megabytes()
    return facts


def _parity(item: Item) -> dict[str, Any]:
    model = find_model(Path(item.network.file))
    name, options = parse_provider(item.network.provider)

    def opened(provider: str, chosen: ProviderOptions | None) -> OnnxStep:
        return OnnxStep(model, provider=provider, batch=2, hops_per_step=item.hops, options=chosen)

    step = opened(name, options)
    eager = compare_steps(step, opened(step.provider, replace(options, graph=False)))
    facts: dict[str, Any] = {
        "captured": step.cuda_graph,
        "notes": list(step.notes),
        "parity_hops": eager.hops,
        "to_eager": _known(eager.worst),
        "to_eager_limit": TOLERANCE,
    }
    if step.provider != CPU:
        facts["to_cpu"] = _known(compare_steps(opened(CPU, None), step).high_band)
        facts["to_cpu_limit"] = tolerance_to_cpu(step)
    return facts


def _known(value: float) -> float | None:
    """Return what JSON can hold: a difference that is no number is none."""
    return value if np.isfinite(value) else None


def _make(item: Item, streams: int) -> BareStep | WholeBatch:
    return WholeBatch(item, streams) if item.whole else BareStep(item, streams)


def _steps(item: Item, streams: int, seconds: float) -> dict[str, Any]:
    loading = time.perf_counter()
    target = _make(item, streams)
    open_s = time.perf_counter() - loading
    protocol = Protocol(seconds=seconds, warm_up_seconds=0.3 * seconds, paced=item.paced)
    timed = measure_steps(target, item.period_ms, protocol)
    times = timed["times_ms"]
    kept = ("first_step_ms", "missed_by_the_clock", "cpu_power_w", "timed_between")
    facts: dict[str, Any] = {
        "open_s": round(open_s, 3),
        **{name: timed[name] for name in kept},
        "figures": step_figures(times, item.period_ms),
        "quantiles_ms": quantiles(times),
        "histogram": histogram(times),
    }
    if isinstance(target, BareStep):
        facts["captured"], facts["notes"] = target.captured, list(target.notes)
    target.close()
    return facts


def _search(item: Item, seconds: float, deadline: float, first: int) -> dict[str, Any]:
    limit = item.period_ms
    trial_seconds = min(max(seconds, 0.05), _TRIAL_STEPS * limit / 1000.0)
    longest = 0.0

    def attempt(streams: int, confirms: bool) -> Trial:
        nonlocal longest
        began = time.monotonic()
        if began + longest > deadline:
            raise OutOfTimeError
        target = _make(item, streams)
        protocol = Protocol(
            seconds=(2.0 if confirms else 1.0) * trial_seconds,
            limit_ms=limit,
            most_steps=_TRIAL_STEPS * (2 if confirms else 1),
        )
        for _ in range(3):
            target.step()
        times, _ = take_steps(target, limit, protocol)
        target.close()
        worst = float(np.percentile(times, 99.9))
        longest = max(longest, time.monotonic() - began)
        return Trial(streams, worst, worst <= limit)

    search = find_most_streams(attempt, limit, 8192, _EXACT_UP_TO, first)
    return {"search": search.as_json()}


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    try:
        if "probe" in job:
            return probe(**job["probe"])
        item = Item(**{**job["item"], "network": Network(**job["item"]["network"])})
        deadline = time.monotonic() + job["seconds_left"]
        return measure_item(item, job["seconds"], deadline, job["first"])
    except RtsrError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "There is not enough memory for it."}
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        text = " ".join(str(error).split())[:300]
        # A device that failed once may fail for good in this process.
        return {"error": f"{type(error).__name__}: {text}", "broken": True}


def main() -> None:
    """Answer the jobs of stdin until it ends."""
    # Libraries may print to stdout what they like; the answers have a way of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    providers.load_onnxruntime()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)
        gc.collect()


if __name__ == "__main__":
    main()

"""Time of one step of each model: hops per step times threads, host to host."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from rtsr.model import CONFIGURATIONS  # noqa: E402
from rtsr.model.generator import seeded  # noqa: E402
from rtsr.runtime.session import OnnxStep  # noqa: E402
from rtsr.timing import HOP_MS  # noqa: E402
from rtsr_export.graph import build_graph  # noqa: E402
from rtsr_export.graph_file import write_graph  # noqa: E402


@pytest.fixture(scope="module", params=sorted(CONFIGURATIONS, reverse=True))
def graph(request, tmp_path_factory):
    """A freshly initialised model: the time of a step does not depend on its weights."""
    path = tmp_path_factory.mktemp("graphs") / f"{request.param}.onnx"
    write_graph(build_graph(seeded(CONFIGURATIONS[request.param], 0)), path)
    return request.param, path


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("hops", [1, 2, 4])
def test_step(benchmark, graph, hops, threads):
    name, path = graph
    step = OnnxStep(path, provider="cpu", hops_per_step=hops, threads=threads)
    random = np.random.default_rng(0)
    step.audio[...] = random.standard_normal(step.audio.shape) * 0.1
    step.noise[...] = random.standard_normal(step.noise.shape)
    step.f_prior[...] = 4000.0
    benchmark.group = f"step of {name}"
    benchmark.name = f"{name}, {hops} hops, {threads} threads"
    benchmark.extra_info["budget_ms"] = HOP_MS * hops
    benchmark.pedantic(step.run, rounds=1500, warmup_rounds=100)
    assert np.isfinite(step.high_band).all()


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_upsampler_block(benchmark, rate):
    """One 10 ms block through the whole engine with the bundled model."""
    from rtsr import Upsampler

    block = (np.random.default_rng(0).standard_normal(rate // 100) * 0.1).astype(np.float32)
    benchmark.group = "Upsampler.process, small, 10 ms blocks"
    benchmark.name = f"from {rate} Hz"
    benchmark.extra_info["budget_ms"] = HOP_MS
    # A cutoff keeps the model at work at 48 kHz too, where noise would pass as full-band.
    cutoff = 4000.0 if rate == 48000 else None
    with Upsampler(rate, provider="cpu", cutoff=cutoff) as upsampler:
        benchmark.pedantic(upsampler.process, args=(block,), rounds=1500, warmup_rounds=100)

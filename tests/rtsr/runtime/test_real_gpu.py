"""What only a real GPU can tell; left out where ONNX Runtime has none to offer."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.batch.upsampler import BatchUpsampler
from rtsr.errors import RtsrError
from rtsr.runtime.models import OCTAVE, bundled, find_model
from rtsr.runtime.session import OnnxStep
from rtsr.upsampler import Upsampler
from rtsr_export.step_parity import (
    TOLERANCE,
    compare_steps,
    measure_graph_parity,
    tolerance_to_cpu,
)


def _gpu_starts() -> bool:
    try:
        OnnxStep("small", provider="cuda")
    except RtsrError:
        return False
    return True


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not _gpu_starts(), reason="there is no GPU that ONNX Runtime can use"),
]
ON_GPUS = [
    *(name for name in bundled() if not find_model(name).metadata.is_for_cpu),
    OCTAVE,
]


@pytest.mark.parametrize("hops", [1, 4])
@pytest.mark.parametrize("model", ON_GPUS)
def test_a_captured_graph_equals_single_launches_over_200_hops(model: str, hops: int) -> None:
    parity = measure_graph_parity(model, provider="cuda", hops_per_step=hops)
    assert parity.captured
    assert parity.hops == 200
    assert parity.worst <= TOLERANCE


@pytest.mark.parametrize("model", ON_GPUS)
def test_it_sounds_like_the_cpu(model: str) -> None:
    on_gpu = OnnxStep(model, provider="cuda", batch=3)
    on_cpu = OnnxStep(model, provider="cpu", batch=3)
    assert compare_steps(on_gpu, on_cpu).high_band < tolerance_to_cpu(on_gpu)


@pytest.mark.parametrize("model", ON_GPUS)
def test_tf32_sounds_like_the_cpu(model: str) -> None:
    rounded = OnnxStep(model, provider="cuda:tf32=on", batch=3)
    on_cpu = OnnxStep(model, provider="cpu", batch=3)
    assert compare_steps(rounded, on_cpu).high_band < tolerance_to_cpu(rounded)


def test_a_stream_in_a_batch_equals_one_alone() -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal((80, 80)).astype(np.float32)
    with Upsampler(8000, provider="cuda") as alone:
        expected = np.concatenate([alone.process(block) for block in sound])[480:]
    with BatchUpsampler(8, provider="cuda") as batch:
        stream, guest = batch.open(8000), batch.open(8000)
        pulled = []
        for number, block in enumerate(sound):
            if number == 30:
                guest.close()
            stream.push(block)
            if not guest.is_closed:
                guest.push(block[::-1].copy())
            batch.step()
            pulled.append(stream.pull())
    difference = np.concatenate(pulled)[: len(expected)] - expected
    # A batch of another size may be multiplied by other kernels, which round otherwise.
    assert np.abs(difference).max() < 1e-4

"""A step on a GPU, as far as that goes without one: what is queued, captured and said."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsr.batch.slots import SlotStep
from rtsr.errors import ModelError, ProviderError, RtsrWarning
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.cuda_driver import Gpu
from rtsr.runtime.session import OnnxStep
from rtsr_export.step_parity import (
    compare_steps,
    measure_graph_parity,
    require_parity,
    tolerance_to_cpu,
)


@pytest.mark.parametrize("options", ["", ":graph=off"], ids=["graph", "eager"])
@pytest.mark.parametrize(("batch", "hops"), [(1, 1), (3, 2)])
def test_a_step_on_cuda_sounds_like_one_on_the_cpu(
    fake_gpu: Any, stand_in: Path, options: str, batch: int, hops: int
) -> None:
    on_gpu = OnnxStep(stand_in, provider=f"cuda{options}", batch=batch, hops_per_step=hops)
    on_cpu = OnnxStep(stand_in, provider="cpu", batch=batch, hops_per_step=hops)
    assert (on_gpu.provider, on_gpu.memory.device) == ("cuda", "cuda")
    assert on_gpu.cuda_graph is (options == "")
    parity = compare_steps(on_gpu, on_cpu)
    assert parity.hops == 200
    assert parity.worst == 0.0


def test_a_step_is_two_copies_a_launch_and_one_wait(fake_gpu: Any, stand_in: Path) -> None:
    step = OnnxStep(stand_in, provider="cuda")
    [stream], [session] = fake_gpu.streams, fake_gpu.sessions
    stream.log.clear()
    fake_gpu.runs.clear()
    step.run()
    # all four signals in one copy, each at a multiple of 256 bytes
    assert stream.log == ["activate", "upload 2816", "download 1920", "synchronize"]
    [(ran, options)] = fake_gpu.runs
    assert ran is session
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"


def test_each_copy_of_the_state_has_a_graph_of_its_own(fake_gpu: Any, stand_in: Path) -> None:
    step = OnnxStep(stand_in, provider="cuda")
    [session] = fake_gpu.sessions
    assert session.options["user_compute_stream"] == str(fake_gpu.streams[0].handle)
    assert session.options["enable_cuda_graph"] == "1"
    fake_gpu.runs.clear()
    session.replays = 0
    for _ in range(5):
        step.run()
    numbers = [options.get_run_config_entry("gpu_graph_id") for _, options in fake_gpu.runs]
    assert numbers == ["1", "2", "1", "2", "1"]
    assert session.replays == 5, "the constructor has captured both"


def test_without_a_graph_none_is_captured_by_accident(fake_gpu: Any, stand_in: Path) -> None:
    step = OnnxStep(stand_in, provider="cuda:graph=off")
    step.run()
    assert fake_gpu.sessions[0].options["enable_cuda_graph"] == "0"
    numbers = {options.get_run_config_entry("gpu_graph_id") for _, options in fake_gpu.runs}
    assert numbers == {"-1"}


def test_a_fresh_step_knows_nothing_of_its_capture(fake_gpu: Any, stand_in: Path) -> None:
    step = OnnxStep(stand_in, provider="cuda")
    assert not any(value.any() for value in step.state().values())
    assert (step.f_target == step.metadata.f_target_default).all()
    step.audio.fill(0.5)
    step.run()
    assert any(value.any() for value in step.state().values())
    step.reset()
    assert not any(value.any() for value in step.state().values())


def test_another_thread_sets_up_first_and_steps_on(fake_gpu: Any, stand_in: Path) -> None:
    """The first step of a thread runs both buffers, and nothing of that comes out."""
    moved, stayed = (OnnxStep(stand_in, provider="cuda") for _ in range(2))
    random = np.random.default_rng(0)

    def step_both(moves: bool) -> None:
        moved.audio[...] = stayed.audio[...] = random.standard_normal(moved.audio.shape)
        moved.noise[...] = stayed.noise[...] = random.standard_normal(moved.noise.shape)
        expected = stayed.run().copy()
        run = _in_a_thread(moved.run) if moves else moved.run()
        assert np.array_equal(run, expected)

    for number in range(9):
        step_both(moves=number in (3, 4, 7))
    fake_gpu.runs.clear()

    def prepare_and_run() -> int:
        moved.prepare_thread()
        fake_gpu.runs.clear()
        moved.run()
        return len(fake_gpu.runs)

    assert _in_a_thread(prepare_and_run) == 1, "prepare_thread has taken the slow steps"


def _in_a_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_slots_keep_their_states_on_a_gpu(fake_gpu: Any, stand_in: Path) -> None:
    step = SlotStep(stand_in, slots=3, provider="cuda")
    random = np.random.default_rng(0)
    everybody, nobody = np.arange(3), np.arange(0)
    (part,) = step.parts
    for _ in range(3):
        part.audio[...] = random.standard_normal(part.audio.shape)
        step.run(everybody, nobody)
    before = step.state()
    part.audio[...] = random.standard_normal(part.audio.shape)
    step.run(np.array([0, 2]), np.array([1]))
    moved = step.state()
    step.clear(np.array([2]))
    assert any((moved[name][0] != before[name][0]).any() for name in before)
    for name, value in step.state().items():
        assert np.array_equal(value[0], moved[name][0])
        assert np.array_equal(value[1], before[name][1])
        assert not value[2].any()


def test_the_chosen_gpu_is_used_throughout(fake_gpu: Any, stand_in: Path) -> None:
    step = OnnxStep(stand_in, provider="cuda:device=1")
    assert fake_gpu.streams[0].device == 1
    assert fake_gpu.sessions[0].options["device_id"] == "1"
    assert step.options.device == 1
    with pytest.raises(ProviderError, match="There is no GPU 7"):
        OnnxStep(stand_in, provider="cuda:device=7")


NOT_ALL_NODES = (
    "This session cannot use the graph capture feature as requested by the user as all compute "
    "graph nodes have not been partitioned to the CUDAExecutionProvider"
)


def test_a_model_that_cannot_be_captured_runs_without(fake_gpu: Any, stand_in: Path) -> None:
    fake_gpu.failures["graph"] = RuntimeError(NOT_ALL_NODES)
    with pytest.warns(RtsrWarning, match="cannot capture this model"):
        step = OnnxStep(stand_in, provider="cuda")
    assert (step.provider, step.cuda_graph) == ("cuda", False)
    assert "cannot capture this model" in step.notes[0]
    with pytest.raises(ProviderError, match="use cuda:graph=off"):
        OnnxStep(stand_in, provider="cuda:graph=on")


def test_a_capture_that_fails_is_given_up_with_its_stream(fake_gpu: Any, stand_in: Path) -> None:
    fake_gpu.capture_fails = True
    with pytest.warns(RtsrWarning, match="could not be captured"):
        step = OnnxStep(stand_in, provider="cuda")
    assert (step.provider, step.cuda_graph) == ("cuda", False)
    assert "(CUDA failure 900: operation not permitted)" in step.notes[0]
    assert [stream.is_abandoned for stream in fake_gpu.streams] == [True, False]
    on_cpu = OnnxStep(stand_in, provider="cpu")
    assert compare_steps(step, on_cpu, 20).worst == 0.0
    with pytest.raises(ProviderError, match="could not be captured"):
        OnnxStep(stand_in, provider="cuda:graph=on")


class InvalidProtobuf(Exception):
    """Named like ONNX Runtime's."""


@pytest.mark.parametrize(
    ("failure", "kind", "sentence"),
    [
        (RuntimeError("CUDNN failure 1001: NOT_INITIALIZED ; GPU=0"), ProviderError,
         r"'cuda' did not start on this machine \(CUDNN failure 1001: NOT_INITIALIZED\)"),
        (RuntimeError("[ONNXRuntimeError] : 1 : FAIL : out\n of memory."), ProviderError,
         r"\(FAIL : out of memory\)"),
        (InvalidProtobuf("Protobuf parsing failed."), ModelError, "cannot load model file"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_one_sentence(
    fake_gpu: Any, stand_in: Path, failure: Exception, kind: type[Exception], sentence: str
) -> None:
    fake_gpu.failures["CUDAExecutionProvider"] = failure
    with pytest.raises(kind, match=sentence):
        OnnxStep(stand_in, provider="cuda")


def test_auto_says_why_it_is_on_the_cpu(fake_gpu: Any, stand_in: Path) -> None:
    assert OnnxStep(stand_in, provider="auto").provider == "cuda"
    fake_gpu.failures["CUDAExecutionProvider"] = RuntimeError("CUDA failure 2: out of memory ;")
    step = OnnxStep(stand_in, provider="auto")
    assert step.provider == "cpu"
    assert "CUDA failure 2: out of memory" in step.notes[0]


def test_onnxruntime_is_quiet_only_where_we_answer(fake_gpu: Any, stand_in: Path) -> None:
    OnnxStep(stand_in, provider="cuda")
    assert fake_gpu.severities == [4, 2]


def test_a_driver_for_older_cuda_is_refused(
    fake_gpu: Any, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtsr.runtime.providers import open_session

    made = open_session.CudaStream
    monkeypatch.setattr(open_session, "CudaStream", lambda device: _with_cuda_12(made(device)))
    with pytest.raises(ProviderError, match="built for CUDA 13"):
        OnnxStep(stand_in, provider="cuda")


def _with_cuda_12(stream: Any) -> Any:
    stream.gpu = Gpu("NVIDIA T4", "7.5", "535.1", (12, 2))
    return stream


def test_graph_and_single_launches_agree_over_200_hops(fake_gpu: Any, model: str) -> None:
    parity = measure_graph_parity(model, provider="cuda")
    assert (parity.hops, parity.captured) == (200, True)
    assert parity.worst == 0.0
    require_parity(parity, "A captured graph")


def test_rounded_products_may_be_further_from_the_cpu(fake_gpu: Any, stand_in: Path) -> None:
    exact, rounded = (OnnxStep(stand_in, provider=name) for name in ("cuda", "cuda:tf32=on"))
    assert tolerance_to_cpu(exact) < tolerance_to_cpu(rounded)


def test_two_sessions_on_the_cpu_agree_to_the_last_bit(model: str) -> None:
    parity = measure_graph_parity(model, provider="cpu", batch=2, hops_per_step=4)
    assert parity.worst == 0.0
    assert not parity.captured


def test_a_stale_state_is_found(
    fake_gpu: Any, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One graph for both copies of the state: every second step would replay the wrong one."""
    from rtsr.runtime.providers import open_session

    monkeypatch.setattr(open_session, "_GRAPH_OF_BUFFER", ("1", "1"))
    parity = measure_graph_parity(stand_in, provider="cuda")
    assert parity.worst > 0.1
    with pytest.raises(ProviderError, match=r"differs by .* over 200 hops"):
        require_parity(parity, "A captured graph of 'stand-in'")


def test_not_a_number_is_no_parity(failing_model: Path) -> None:
    with np.errstate(invalid="ignore"):
        parity = measure_graph_parity(failing_model, provider="cpu", hops=20)
    with pytest.raises(ProviderError, match="do not use it"):
        require_parity(parity, "A graph")


def test_states_of_another_model_are_refused_on_a_gpu(fake_gpu: Any, write_model: Any) -> None:
    with pytest.raises(ModelError, match="does not match its metadata"):
        OnnxStep(write_model(states={"other": [1, 1, 120]}), provider="cuda")


def test_a_provider_that_did_not_start_is_refused(
    fake_gpu: Any, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "started", lambda session, provider: provider == "cpu")
    with pytest.raises(ProviderError, match="installed but did not start"):
        OnnxStep(stand_in, provider="cuda")

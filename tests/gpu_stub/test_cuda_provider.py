"""What only the real CUDA provider can tell, and a GPU is not needed for."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rtsr.batch.upsampler import BatchUpsampler
from rtsr.errors import ProviderError, RtsrWarning
from rtsr.runtime.models import OCTAVE, bundled, find_model
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers.open_session import SessionShape, gpu_session_options
from rtsr.runtime.session import OnnxStep, check_graph
from rtsr.upsampler import Upsampler

ON_GPUS = [
    *(
        name
        for name in bundled()
        if find_model(name).is_network and not find_model(name).metadata.is_for_cpu
    ),
    OCTAVE,
]


@pytest.mark.parametrize(("batch", "hops"), [(1, 1), (1, 4), (3, 2), (64, 1)])
@pytest.mark.parametrize("model", ON_GPUS)
def test_every_node_runs_on_cuda(
    gpu: Any, model: str, batch: int, hops: int, tmp_path: Path
) -> None:
    onnxruntime = providers.load_onnxruntime()
    options = gpu_session_options(onnxruntime, SessionShape(batch, hops), "cuda")
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    found = find_model(model)
    session = onnxruntime.InferenceSession(
        str(found.path), options, providers=providers.onnx_providers("cuda"), enable_fallback=0
    )
    shapes = {
        "batch": batch, "frames": hops, "samples": 480 * hops,
    }  # fmt: skip
    binding = session.io_binding()
    for value in session.get_inputs():
        shape = [shapes.get(size, size) for size in value.shape]
        array = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, "float32", "cuda", 0)
        binding.bind_ortvalue_input(value.name, array)
    for value in session.get_outputs():
        binding.bind_output(value.name, "cuda")
    session.run_with_iobinding(binding)
    entries = json.loads(Path(session.end_profiling()).read_text())
    ran = [entry["args"] for entry in entries if entry["name"].endswith("_kernel_time")]
    assert len(ran) > 100
    elsewhere = {entry["op_name"] for entry in ran if entry["provider"] != "CUDAExecutionProvider"}
    assert not elsewhere


@pytest.mark.parametrize("hops", [1, 2, 4])
@pytest.mark.parametrize("model", ON_GPUS)
def test_a_step_is_one_copy_one_launch_one_copy_and_one_wait(
    gpu: Any, model: str, hops: int
) -> None:
    step = OnnxStep(model, provider="cuda", batch=2, hops_per_step=hops)
    assert (step.provider, step.cuda_graph, step.notes) == ("cuda", True, ())
    gpu.events()
    kernels = gpu.eager_kernels()
    for _ in range(6):
        step.run()
    words = [event.split()[0] for event in gpu.events()]
    assert words == ["upload", "graph", "download", "wait"] * 6, "and nothing is allocated"
    assert gpu.eager_kernels() == kernels


@pytest.mark.parametrize("model", ON_GPUS)
def test_the_two_buffers_have_graphs_that_take_turns(gpu: Any, model: str) -> None:
    step = OnnxStep(model, provider="cuda")
    gpu.events()
    launched = []
    for _ in range(4):
        step.run()
        launched += [event for event in gpu.events() if event.startswith("graph launch")]
    assert launched[0] != launched[1]
    assert launched[:2] == launched[2:]


def test_a_graph_holds_few_copies_from_the_host(gpu: Any, exported: Path) -> None:
    """Each is a node of its own; tables of addresses for products were fifteen of nineteen."""
    OnnxStep(exported, provider="cuda")
    captured = [event for event in gpu.events() if event.startswith("captured graph")]
    assert len(captured) == 2
    for event in captured:
        assert int(event.rpartition("host_copies=")[2]) <= 4


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with fresh weights as the present exporter writes it."""
    pytest.importorskip("torch")
    onnx = pytest.importorskip("onnx")
    from rtsr.model import CONFIGURATIONS
    from rtsr.model.generator import seeded
    from rtsr_export.graph import build_graph

    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    onnx.save(build_graph(seeded(CONFIGURATIONS["small"], 0)), path)
    return path


def test_without_a_graph_kernels_are_launched_one_by_one(gpu: Any) -> None:
    step = OnnxStep("small", provider="cuda:graph=off")
    events = gpu.events()
    assert not [event for event in events if "capture" in event]
    kernels = gpu.eager_kernels()
    step.run()
    assert gpu.eager_kernels() - kernels > 100
    assert [event.split()[0] for event in gpu.events()] == ["upload", "download", "wait"]


def test_another_thread_captures_both_buffers_before_its_first_step(gpu: Any) -> None:
    step = OnnxStep("small", provider="cuda")
    step.run()
    gpu.events()

    def steps() -> tuple[list[str], list[str]]:
        step.prepare_thread()
        before = gpu.events()
        for _ in range(4):
            step.run()
        return before, gpu.events()

    with ThreadPoolExecutor(1) as pool:
        before, after = pool.submit(steps).result()
    assert sum(event.startswith("captured graph") for event in before) == 2
    assert [event.split()[0] for event in after] == ["upload", "graph", "download", "wait"] * 4


def test_two_sessions_step_in_two_threads(gpu: Any) -> None:
    sessions = [OnnxStep("small", provider="cuda") for _ in range(2)]
    gpu.events()

    def steps(session: OnnxStep) -> None:
        for _ in range(20):
            session.run()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(steps, sessions))
    events = gpu.events()
    assert not [event for event in events if event.startswith(("forbidden", "spoilt"))]
    assert sum(event.startswith("captured graph") for event in events) == 4


def _open_in_threads(count: int) -> list[OnnxStep]:
    """Sessions that are opened, bound and captured at the same moment."""
    barrier = threading.Barrier(count)

    def opened() -> OnnxStep:
        barrier.wait()
        return OnnxStep("small", provider="cuda")

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(opened) for _ in range(count)]]


def test_sessions_may_open_during_the_capture_of_others(gpu: Any) -> None:
    gpu.slow_captures(30)
    steps = _open_in_threads(3)
    assert [step.cuda_graph for step in steps] == [True] * 3
    assert not [event for event in gpu.events() if event.startswith(("forbidden", "spoilt"))]


def test_whoever_ignores_the_lock_spoils_a_capture(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-ins have the rules of capture, or the test above would prove nothing."""

    class NoLock:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    for module in ("providers.open_session", "step_memory", "providers.cuda_driver"):
        monkeypatch.setattr(f"rtsr.runtime.{module}.GPU_LOCK", NoLock())
    gpu.slow_captures(30)
    with warnings.catch_warnings(), contextlib.suppress(ProviderError):
        warnings.simplefilter("ignore", RtsrWarning)
        steps = _open_in_threads(3)
        assert not all(step.cuda_graph for step in steps)
    assert [event for event in gpu.events() if event.startswith("forbidden")]


@pytest.mark.parametrize("graph", ["", ":graph=off"])
def test_a_lack_of_memory_for_the_state_is_one_sentence(
    gpu: Any, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_then_fail(*arguments: Any) -> None:
        check_graph(*arguments)
        gpu.fail("cudaMemcpy")

    monkeypatch.setattr("rtsr.runtime.session.check_graph", check_then_fail)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RtsrWarning)
        with pytest.raises(ProviderError, match=r"first step of model 'small' \(.*provider 'cpu'"):
            OnnxStep("small", provider=f"cuda{graph}")


def test_a_capture_that_fails_is_said_and_refused_where_it_was_asked_for(gpu: Any) -> None:
    gpu.fail("cudaStreamBeginCapture")
    with pytest.warns(RtsrWarning, match="could not be captured as a CUDA graph"):
        step = OnnxStep("small", provider="cuda")
    assert (step.provider, step.cuda_graph) == ("cuda", False)
    assert "could not be captured" in step.notes[0]
    with pytest.raises(ProviderError, match="use cuda:graph=off"):
        OnnxStep("small", provider="cuda:graph=on")


def test_a_failing_driver_is_one_sentence(gpu: Any) -> None:
    gpu.fail("cuMemHostAlloc", 2)
    with pytest.raises(ProviderError, match="driver failed in cuMemHostAlloc"):
        OnnxStep("small", provider="cuda")


@pytest.mark.parametrize("provider", ["cuda", "cuda:tf32=on", "cuda:search=exhaustive"])
def test_the_engine_runs_on_it(gpu: Any, provider: str) -> None:
    import numpy as np

    with Upsampler(8000, provider=provider) as upsampler:
        assert upsampler.process(np.zeros(800, np.float32)).shape == (4800,)
    with BatchUpsampler(4, provider=provider) as batch:
        stream = batch.open(8000)
        for _ in range(3):
            stream.push(np.zeros(80, np.float32))
            assert batch.step() == 1
        assert len(stream.pull()) == 1440


def _in_a_process(*missing: str, stand_ins: list[Path]) -> str:
    """What is said in a process that has only some of the libraries."""
    text = (
        "import ctypes, sys\n"
        "for file in sys.argv[1:]:\n"
        "    ctypes.CDLL(file, mode=ctypes.RTLD_GLOBAL)\n"
        "from rtsr.errors import RtsrError\n"
        "from rtsr.runtime.session import OnnxStep, check_graph\n"
        "try:\n"
        "    print(OnnxStep('small', provider='cuda').provider)\n"
        "except RtsrError as error:\n"
        "    print(error)\n"
    )
    files = [str(file) for file in stand_ins if not file.name.startswith(missing)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", text, *files],
        env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_all_libraries_start_the_provider(stand_ins: list[Path]) -> None:
    assert _in_a_process("none", stand_ins=stand_ins) == "cuda"


def test_an_absent_driver_is_named(stand_ins: list[Path]) -> None:
    said = _in_a_process("lib", stand_ins=stand_ins)
    assert "needs an NVIDIA GPU with its driver, and there is no driver" in said


@pytest.mark.parametrize("library", ["libcudnn.so", "libcublasLt.so", "libcurand.so"])
def test_an_absent_library_is_named_with_what_brings_it(
    stand_ins: list[Path], library: str
) -> None:
    said = _in_a_process(library, stand_ins=stand_ins)
    assert f"lacks {library}" in said
    assert 'pip install "onnxruntime-gpu[cuda,cudnn]==' in said

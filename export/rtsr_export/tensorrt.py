"""Builds TensorRT engines: minutes of work, in a process of its own, checked before it is kept.

ONNX Runtime builds an engine while it makes a session, without a word on how far it is, and a
builder that runs out of memory takes its process with it. So a child does that, and this process
shows that it is alive. What comes out goes where :mod:`rtsr.runtime.providers.tensorrt` finds
it, and stays there if it opens as a start-up opens it and sounds like the CPU over 200 hops.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtsr.errors import ArgumentError, ModelError, ProviderError, RtsrError
from rtsr.runtime.models import Model, why_not_on_gpu
from rtsr.runtime.providers import libraries as provider_libraries
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers import tensorrt
from rtsr.runtime.providers.cuda_driver import CudaDriver
from rtsr.runtime.providers.options import CPU, TENSORRT, ProviderOptions
from rtsr.runtime.providers.tensorrt import EngineKey
from rtsr.runtime.session import OnnxStep
from rtsr.timing import HOPS_PER_STEP
from rtsr_export.step_parity import StepParity, compare_steps, measure_graph_parity, require_parity

MAX_BATCH = 16384
# Of the signal's level, at the one sample out of a hundred thousand that differs most. TensorRT
# rounds factors to TF32 or to half precision, the CPU does not; a wrong engine is off by 1 or more.
CPU_TOLERANCE = {False: 5e-2, True: 2e-1}
_POLL_SECONDS = 0.2

# What is going on, and for how many seconds.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class BuiltEngine:
    """An engine in the cache.

    Attributes:
        folder: where it lies.
        key: what it is good for.
        seconds: that building took; 0 if one was there already.
        replaced: why one that was there could not stay; empty if there was none.
        against_cpu: how far it is from the CPU.
        graph: how far its captured CUDA graph is from single launches.
    """

    folder: Path
    key: EngineKey
    seconds: float = 0.0
    replaced: str = ""
    against_cpu: StepParity | None = None
    graph: StepParity | None = None


def build_engine(
    model: Model,
    batch: int,
    hops: int,
    options: ProviderOptions,
    *,
    rebuild: bool = False,
    progress: Progress = lambda phase, seconds: None,
) -> BuiltEngine:
    """Build the engine of a model for this machine's GPU, unless one that fits is there.

    Args:
        model: a network.
        batch: channels, or slots of a batch.
        hops: hops per step: 1, 2, 4, 8 or 16.
        options: the GPU, and whether half precision is allowed.
        rebuild: build it anew in any case.
        progress: is called now and then.

    Raises:
        ModelError: the model is no network, or GPUs have no kernels for its precision.
        ProviderError: TensorRT is not there, or could not build the engine, or what it built gives
            another sound.
        RtsrError: a number out of range, or the cache cannot be written.
    """
    if not model.is_network:
        raise ModelError(f"Model '{model.name}' is no network; it needs no engine.")
    if reason := why_not_on_gpu(model, "a TensorRT engine"):
        raise ModelError(reason)
    if hops not in HOPS_PER_STEP:
        accepted = ", ".join(map(str, HOPS_PER_STEP))
        raise ArgumentError(f"An engine takes {accepted} hops per step, not {hops}.")
    if not 1 <= batch <= MAX_BATCH:
        raise ArgumentError(
            f"The batch of an engine must lie between 1 and {MAX_BATCH}, not {batch}."
        )
    key = key_of_this_machine(model, batch, hops, options)
    folder = tensorrt.engine_folder(model, key)
    reason = tensorrt.why_unusable(folder, key)
    if reason is None and not rebuild:
        return BuiltEngine(folder, key)
    replaced = "" if not folder.exists() else reason or "it was to be built anew"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
        try:
            seconds = _run_child(model, key, options, building, progress)
            facts = {"model_name": model.name, "build_seconds": round(seconds, 1)}
            tensorrt.write_manifest(building, key, facts)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(building, folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise RtsrError(
            f"Cannot write the engine to '{error.filename or folder}': {error.strerror}."
        ) from error
    try:
        against_cpu, graph = check_engine(model, batch, hops, options, progress)
    except BaseException:
        # Nothing that was not checked may be found by the next start.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return BuiltEngine(folder, key, seconds, replaced, against_cpu, graph)


def key_of_this_machine(model: Model, batch: int, hops: int, options: ProviderOptions) -> EngineKey:
    """Return the key of the engine that this machine would use.

    Raises:
        ProviderError: TensorRT or the GPU is not there.
    """
    onnxruntime = providers.load_onnxruntime()
    providers.candidates(TENSORRT, onnxruntime)
    provider_libraries.require_libraries(onnxruntime, TENSORRT)
    gpu = CudaDriver(options.device).describe()
    provider_libraries.require_driver_for(onnxruntime, TENSORRT, gpu.cuda)
    return tensorrt.engine_key(onnxruntime, model, gpu, batch, hops, options)


def check_engine(
    model: Model,
    batch: int,
    hops: int,
    options: ProviderOptions,
    progress: Progress = lambda phase, seconds: None,
) -> tuple[StepParity, StepParity]:
    """Open the engine as a start-up does, and compare it with the CPU and its graph with none.

    Raises:
        ProviderError: it does not open, or gives another sound.
    """
    started = time.monotonic()
    progress("comparing it with the CPU", 0.0)
    step = OnnxStep(model, provider=TENSORRT, batch=batch, hops_per_step=hops, options=options)
    on_cpu = OnnxStep(model, provider=CPU, batch=batch, hops_per_step=hops)
    against_cpu = compare_steps(on_cpu, step)
    # A state may hold values that hardly affect the output, so only the output is compared.
    output_only = replace(against_cpu, state=0.0)
    require_parity(output_only, f"The engine of '{model.name}'", CPU_TOLERANCE[options.fp16])
    progress("comparing its CUDA graph with single launches", time.monotonic() - started)
    graph = measure_graph_parity(
        model, provider=TENSORRT, batch=batch, hops_per_step=hops, options=options
    )
    require_parity(graph, f"The CUDA graph of the engine of '{model.name}'")
    return against_cpu, graph


def building_options(key: EngineKey, folder: Path) -> dict[str, str]:
    """Return the options of ONNX Runtime's TensorRT provider for building an engine.

    Switches are spelt as its Python interface wants them; see
    https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html.
    """
    options = {
        # The engine goes into the file itself, so that nothing else has to be found beside it.
        "trt_dump_ep_context_model": "True",
        "trt_ep_context_file_path": str(folder / tensorrt.ENGINE_FILE),
        "trt_ep_context_embed_mode": "1",
        "trt_engine_cache_enable": "False",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(tensorrt.timing_folder(key)),
        # The whole graph or nothing: a part on its own is not worth an engine.
        "trt_min_subgraph_size": "1",
        "trt_fp16_enable": str(key.fp16),
    }
    if key.fp16:
        options["trt_layer_norm_fp32_fallback"] = "True"
    return options


def _run_child(
    model: Model,
    key: EngineKey,
    options: ProviderOptions,
    building: Path,
    progress: Progress,
) -> float:
    timing = tensorrt.timing_folder(key)
    is_known = timing.is_dir() and any(timing.iterdir())
    timing.mkdir(parents=True, exist_ok=True)
    phase = "building the engine" + (" with kernel times of an earlier one" if is_known else "")
    order = {
        "model": str(model.path.resolve()),
        "batch": key.batch,
        "hops": key.hops,
        "device": options.device,
        "engine": building_options(key, building),
    }
    started = time.monotonic()
    with (building / "log.txt").open("w+", errors="replace") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "rtsr_export.tensorrt_child", json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_child_environment(),
        )
        try:
            while True:
                try:
                    code = child.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    progress(phase, time.monotonic() - started)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        log.seek(0)
        said = log.read()
    (building / "log.txt").unlink()
    _require_engine(model, building / tensorrt.ENGINE_FILE, code, said)
    return time.monotonic() - started


def _require_engine(model: Model, file: Path, code: int, said: str) -> None:
    if code == 0 and file.is_file():
        return
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if code == 0:
        reason = "ONNX Runtime gave TensorRT only a part of the graph"
    elif code < 0:
        reason = f"the builder was killed by signal {-code}; is there enough memory?"
    else:
        reason = lines[-1][:300].rstrip(". ") if lines else f"exit code {code}"
    raise ProviderError(
        f"TensorRT built no engine for model '{model.name}' ({reason}); use provider 'cuda'."
    )


def _child_environment() -> dict[str, str]:
    # The child must find what this process found, however it was started.
    paths = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def describe(built: BuiltEngine) -> dict[str, Any]:
    """Facts about a built engine, as JSON holds them."""
    return {
        "folder": str(built.folder),
        "seconds": built.seconds,
        "replaced": built.replaced,
        "against_cpu": None if built.against_cpu is None else built.against_cpu.worst,
        "graph": None if built.graph is None else built.graph.worst,
        "captured": None if built.graph is None else built.graph.captured,
    }

"""From a model and a provider to sessions that run it, or one sentence why not.

ONNX Runtime prefers to fall back: to the CPU when a library is missing, to building an engine when
one does not fit. Here everything is looked at before, and what was asked for happens or is refused.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from rtsr.errors import ModelError, ProviderError, warn
from rtsr.runtime.gpu_lock import GPU_LOCK
from rtsr.runtime.huge_pages import huge_pages_for_new_memory
from rtsr.runtime.metadata import check_checksum
from rtsr.runtime.models import Model, why_not_on_gpu
from rtsr.runtime.providers import libraries as provider_libraries
from rtsr.runtime.providers import select as providers
from rtsr.runtime.providers import tensorrt
from rtsr.runtime.providers.cuda_driver import CudaStream
from rtsr.runtime.providers.options import AUTO, CPU, CUDA, TENSORRT, ProviderOptions
from rtsr.runtime.step_memory import BufferRun
from rtsr.timing import HOP

# ONNX Runtime's errors that speak of the file, by class; nothing else tells them from those that
# speak of the provider.
_ERRORS_OF_THE_FILE = (
    "InvalidProtobuf", "InvalidGraph", "NoModel", "NoSuchFile", "NotImplemented"
)  # fmt: skip
_NO_GRAPH = "graph capture"
_GPU_FAILURE = re.compile(
    r"\b(?:CUDA|CUDNN|CUBLAS|CURAND|CUFFT) failure \d+: [^;]*|TensorRT EP [^;]*"
)
_WARNING, _FATAL = 2, 4
# The first makes each product of rows a product of two matrices between two reshapes, which take
# longer on a CPU than the addition that it saves. The second joins additions with a normalisation
# whose kernel is not vectorised: 39 us instead of 14 for 48 streams.
_UNWANTED_ON_CPU = ["MatMulAddFusion", "SkipLayerNormFusion"]
# The CUDA provider keeps a graph for each of these numbers, one per binding; 0 is its own
# (onnxruntime_run_options_config_keys.h).
_GRAPH_OF_BUFFER = ("1", "2")
_NOT_IN_A_GRAPH = "-1"


@dataclass(frozen=True)
class SessionShape:
    """What is fixed when a session is made.

    Attributes:
        batch: items of the graph's batch.
        hops: per step.
        threads: within one step, on the CPU.
        takes_fewer: whether a run on the CPU may take fewer items than ``batch``.
    """

    batch: int
    hops: int
    threads: int = 1
    takes_fewer: bool = False


@dataclass
class OpenSession:
    """A model that is ready to be bound.

    Attributes:
        provider: what it really runs on.
        runs: session and run options for each of the two copies of the state.
        stream: for a GPU; ``None`` on the CPU.
        graph: whether each buffer is to be captured as a CUDA graph.
        notes: what turned out otherwise than it might have, for people to read.
    """

    provider: str
    runs: list[BufferRun]
    stream: CudaStream | None = None
    graph: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def session(self) -> Any:
        """The first session; both buffers have the same graph."""
        return self.runs[0].session


def open_session(
    onnxruntime: ModuleType,
    model: Model,
    provider: str,
    options: ProviderOptions,
    shape: SessionShape,
    *,
    graph: bool | None = None,
) -> OpenSession:
    """Make the session of a model.

    Args:
        onnxruntime: the module.
        model: as it was found.
        provider: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.
        options: what was asked for beside the provider's name.
        shape: of a step.
        graph: overrides ``options.graph``.

    Raises:
        ProviderError: the provider is not there or does not start.
        ModelError: the file cannot be loaded, or its weights were changed since it was exported.
    """
    check_checksum(model.path)
    reason = why_not_on_gpu(model, f"provider {provider!r}")
    if reason is not None and provider != CPU:
        if provider != AUTO:
            raise ProviderError(reason)
        provider = CPU
    wanted = options.graph if graph is None else graph
    notes: list[str] = []
    for name in providers.candidates(provider, onnxruntime):
        if name == CPU:
            return _open_on_cpu(onnxruntime, model, shape, notes)
        try:
            with GPU_LOCK:
                return _open_on_gpu(onnxruntime, model, name, options, shape, wanted)
        except ProviderError as error:
            if provider != AUTO:
                raise
            notes.append(str(error))
    raise ProviderError(
        f"No provider of the installed ONNX Runtime starts on this machine (present: "
        f"{', '.join(providers.available(onnxruntime)) or 'none that rtsr knows'}); "
        'install one that runs on the CPU: pip install "rtsr[cpu]".'
    )


def session_options(
    onnxruntime: ModuleType, shape: SessionShape, *, is_batch_fixed: bool = True
) -> Any:
    """``SessionOptions`` for a graph at one static shape, or one whose batch alone is open."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = shape.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # A decaying state runs into denormals in every pause, many times slower than other numbers.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Static shapes let the runtime plan its memory once.
    if is_batch_fixed:
        options.add_free_dimension_override_by_name("batch", shape.batch)
    options.add_free_dimension_override_by_name("frames", shape.hops)
    options.add_free_dimension_override_by_name("samples", HOP * shape.hops)
    return options


def gpu_session_options(onnxruntime: ModuleType, shape: SessionShape, name: str) -> Any:
    """Make the options of one session on a GPU; each session wants its own."""
    options = session_options(onnxruntime, shape)
    # What it has to say comes as an exception, too, and then in one sentence.
    options.log_severity_level = _FATAL
    if name == TENSORRT:
        # There is nothing left to optimise in a graph of one node that is an engine.
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    return options


@contextlib.contextmanager
def quiet(onnxruntime: ModuleType) -> Iterator[None]:
    """Keep ONNX Runtime's own log from stderr where its errors are answered for."""
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)


def one_reason(error: Exception) -> str:
    """Extract what went wrong from a message of ONNX Runtime, which names functions and lines."""
    text = " ".join(str(error).split())
    found = _GPU_FAILURE.search(text)
    if found:
        return found.group().rstrip(" ;.")
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", text)[:200].rstrip(". ")


def create(onnxruntime: ModuleType, path: Path, options: Any, name: str, listed: list[Any]) -> Any:
    """Start an ``InferenceSession`` on exactly that provider.

    Raises:
        ModelError: the file cannot be loaded.
        ProviderError: the provider did not start.
    """
    try:
        # Its own fall-back is not only silent: it prints to stdout, into a pipe's sound.
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=listed,
            enable_fallback=0,
            **({"disabled_optimizers": _UNWANTED_ON_CPU} if name == CPU else {}),
        )
    except Exception as error:  # its errors have no common base but Exception
        reason = one_reason(error)
        if name == CPU or type(error).__name__ in _ERRORS_OF_THE_FILE:
            raise ModelError(
                f"ONNX Runtime cannot load model file '{path}' ({reason}); export it again."
            ) from None
        if _NO_GRAPH in str(error):
            raise _NoGraphError(
                f"Provider {name!r} cannot capture this model as a CUDA graph ({reason}); "
                f"use {name}:graph=off."
            ) from None
        raise ProviderError(
            f"Provider {name!r} did not start on this machine ({reason}); use provider 'cpu'."
        ) from None
    if not providers.started(session, name):
        raise ProviderError(
            f"Provider {name!r} is installed but did not start on this machine (its driver or "
            "device is missing); use provider 'cpu'."
        )
    return session


class _NoGraphError(ProviderError):
    """The model has nodes that stay outside a graph."""


def _open_on_cpu(
    onnxruntime: ModuleType, model: Model, shape: SessionShape, notes: list[str]
) -> OpenSession:
    options = session_options(onnxruntime, shape, is_batch_fixed=not shape.takes_fewer)
    # The next state is copied while what it is copied from is still in the cache. In the default
    # order all states come last: a step of 48 streams took 4 to 5 % longer.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    with huge_pages_for_new_memory():
        session = create(onnxruntime, model.path, options, CPU, providers.onnx_providers(CPU))
    return OpenSession(CPU, [BufferRun(session, None)] * 2, notes=notes)


def _open_on_gpu(
    onnxruntime: ModuleType,
    model: Model,
    name: str,
    options: ProviderOptions,
    shape: SessionShape,
    wanted: bool | None,
) -> OpenSession:
    provider_libraries.require_libraries(onnxruntime, name)
    stream = CudaStream(options.device)
    gpu = stream.driver.describe()
    provider_libraries.require_driver_for(onnxruntime, name, gpu.cuda)
    path, engine = model.path, {}
    if name == TENSORRT:
        key = tensorrt.engine_key(onnxruntime, model, gpu, shape.batch, shape.hops, options)
        path, engine = tensorrt.find_engine(model, key, options), tensorrt.context_options()

    def sessions(graph: bool) -> list[Any]:
        listed = providers.onnx_providers(
            name, options, stream=stream.handle, graph=graph, engine=engine
        )
        # TensorRT's provider keeps one graph per session, so each buffer needs a session.
        count = 2 if graph and name == TENSORRT else 1
        with quiet(onnxruntime):
            made = [
                create(onnxruntime, path, settings, name, listed)
                for settings in (
                    gpu_session_options(onnxruntime, shape, name) for _ in range(count)
                )
            ]
        return made * (2 // count)

    notes: list[str] = []
    graph = wanted is not False
    try:
        made = sessions(graph)
    except _NoGraphError as error:
        if wanted:
            raise
        notes.append(str(error))
        warn(str(error))
        graph, made = False, sessions(False)
    runs = [
        BufferRun(session, run_options(onnxruntime, name, buffer if graph else None))
        for buffer, session in enumerate(made)
    ]
    return OpenSession(name, runs, stream, graph, notes)


def run_options(onnxruntime: ModuleType, provider: str, buffer: int | None) -> Any:
    """``RunOptions`` of a step on a GPU; ``buffer`` is ``None`` outside a graph."""
    options = onnxruntime.RunOptions()
    # The result is fetched on the same stream, so waiting once, after that, is enough.
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    if provider == CUDA:
        number = _NOT_IN_A_GRAPH if buffer is None else _GRAPH_OF_BUFFER[buffer]
        options.add_run_config_entry("gpu_graph_id", number)
    return options

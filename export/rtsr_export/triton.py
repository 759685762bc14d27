"""A model repository for Triton Inference Server: the graph, and a configuration that knows it.

What makes a model of streams of it is the sequence batcher: requests that share a sequence are a
stream, and whichever streams have a request waiting are stepped as one batch. The ONNX Runtime
backend runs the graph as it is, and the server keeps the streams' state (its *implicit state*). For
servers without that backend there is the Python backend, which has no implicit state: there
``triton_model.py`` runs ONNX Runtime and keeps it. Clients see no difference.

Fields and their meaning:
https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto and
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/implicit_state_management.md
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rtsr.errors import ArgumentError, ModelError, RtsrError
from rtsr.runtime.metadata import ModelMetadata
from rtsr.runtime.models import Model, why_not_on_gpu
from rtsr.timing import HOP
from rtsr_export.text_format import Message, Symbol, to_text

MODEL_FILE = "model.onnx"
PROGRAM_FILE = "model.py"
VERSION = "1"
ONNX_RUNTIME, PYTHON = "onnxruntime", "python"
BACKENDS = (ONNX_RUNTIME, PYTHON)
KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}
HOPS_PER_REQUEST = (1, 2, 4)
MAX_BATCH = 4096
MAX_STREAMS = 65536

_PROGRAM = Path(__file__).with_name("triton_model.py")
_FLOAT = Symbol("TYPE_FP32")
# cudnnGetConvolutionForwardAlgorithm_v7: an exhaustive search would come with every new batch size.
_HEURISTIC_SEARCH = "1"
_TEMPORARY = ".rtsr-triton-"


@dataclass(frozen=True)
class Serving:
    """How a server is to run the model.

    Attributes:
        streams: sequences that one instance of the model takes at once; more wait in its backlog.
        batch: streams that one run of the graph steps at most.
        hops: of 10 ms in one request: 1, 2 or 4.
        wait_us: microseconds that a request may wait for others to share its batch.
        kind: ``auto``, ``cpu`` or ``gpu``; ``auto`` is the CPU for a model that GPUs cannot run,
            and for the Python backend, which runs models on the CPU only.
        instances: copies of the model per device, or in total on the CPU.
        threads: of one run on the CPU.
        idle_us: microseconds after which the server forgets a stream that sends nothing.
        backend: ``onnxruntime`` or ``python``.

    Raises:
        ArgumentError: one of them is out of range, or the Python backend is to use a GPU.
    """

    streams: int = 256
    batch: int = 64
    hops: int = 1
    wait_us: int = 1000
    kind: str = "auto"
    instances: int = 1
    threads: int = 1
    idle_us: int = 10_000_000
    backend: str = ONNX_RUNTIME

    def __post_init__(self) -> None:
        for name, value, lowest, highest in (
            ("number of streams", self.streams, 1, MAX_STREAMS),
            ("size of a batch", self.batch, 1, MAX_BATCH),
            ("waiting time in microseconds", self.wait_us, 0, 10_000),
            ("number of instances", self.instances, 1, 64),
            ("number of threads", self.threads, 1, 1024),
            ("idle time in microseconds", self.idle_us, 100_000, 3_600_000_000),
        ):
            if not lowest <= value <= highest:
                raise ArgumentError(
                    f"The {name} must lie between {lowest} and {highest}, not {value}."
                )
        if self.hops not in HOPS_PER_REQUEST:
            accepted = ", ".join(map(str, HOPS_PER_REQUEST))
            raise ArgumentError(f"A request takes {accepted} hops, not {self.hops}.")
        if self.kind not in KINDS:
            raise ArgumentError(
                f"The kind of device must be one of {', '.join(KINDS)}, not {self.kind!r}."
            )
        if self.backend not in BACKENDS:
            raise ArgumentError(
                f"The backend must be one of {', '.join(BACKENDS)}, not {self.backend!r}."
            )
        if self.backend == PYTHON and self.kind == "gpu":
            raise ArgumentError(
                f"Backend {PYTHON!r} runs models on the CPU only; a GPU takes {ONNX_RUNTIME!r}."
            )


def repository_name(metadata: ModelMetadata) -> str:
    """Return the model's name in the repository, which is also its folder's.

    Raises:
        ModelError: the model's own name cannot be that of a folder.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", metadata.name) is None:
        raise ModelError(
            f"The model calls itself {metadata.name!r}; a repository takes letters, digits, dots, "
            "dashes and underscores."
        )
    return f"rtsr_{metadata.name}"


def model_configuration(metadata: ModelMetadata, serving: Serving) -> str:
    """Return the text of ``config.pbtxt``; shapes are without the batch, which the server adds.

    Raises:
        ModelError: the model's own name cannot be that of a folder.
    """
    hops = serving.hops
    in_python = serving.backend == PYTHON
    # The server would give its GPU what it then hands back to the CPU, product by product.
    only_cpu = in_python or metadata.is_for_cpu
    kind = "cpu" if serving.kind == "auto" and only_cpu else serving.kind
    # The server pairs outputs with inputs by their ranks among the sorted names, not by what is
    # said here (its issue 8586): safe while each side has one common prefix.
    states = [_state(name, shape) for name, shape in metadata.states.items()]
    configuration: Message = {
        "name": repository_name(metadata),
        "backend": serving.backend,
        "default_model_filename": PROGRAM_FILE if in_python else MODEL_FILE,
        "max_batch_size": serving.batch,
        "input": [
            _signal("audio", 1, HOP * hops),
            _signal("noise", metadata.noise_channels, hops),
            _signal("f_prior", 1, hops),
            _signal("f_target", 1, hops),
        ],
        "output": [_signal("high_band", 1, HOP * hops)],
        "sequence_batching": {
            "max_sequence_idle_microseconds": serving.idle_us,
            # Not "direct": that would run the graph for streams which have nothing to say, too.
            "oldest": {
                "max_candidate_sequences": serving.streams,
                "preferred_batch_size": [min(serving.batch, serving.streams)],
                "max_queue_delay_microseconds": serving.wait_us,
            },
            **({} if in_python else {"state": states}),
        },
        "instance_group": [{"count": serving.instances, "kind": Symbol(KINDS[kind])}],
        "parameters": [
            _parameter("intra_op_thread_count", str(serving.threads)),
            _parameter("inter_op_thread_count", "1"),
            *([] if in_python else [_parameter("cudnn_conv_algo_search", _HEURISTIC_SEARCH)]),
            # For clients: what they cannot read from the shapes.
            _parameter("rtsr.model", f"{metadata.name} {metadata.version}"),
            _parameter("rtsr.weights_sha256", metadata.weights_sha256),
            _parameter("rtsr.licence", metadata.licence),
            _parameter("rtsr.sample_rate", str(metadata.sample_rate)),
            _parameter("rtsr.overlap", str(metadata.overlap)),
            _parameter("rtsr.f_target_default", f"{metadata.f_target_default:g}"),
        ],
    }
    return to_text(configuration)


def write_repository(model: Model, folder: Path, serving: Serving) -> Path:
    """Write ``folder/rtsr_NAME``: its configuration, version 1 of the graph and what runs it.

    The new entry appears whole or not at all.

    Args:
        model: the network to serve.
        folder: of the repository, made if its parent exists; other models in it stay as they are.
        serving: batch size, hops per step and kind of device.

    Returns:
        the folder of the model.

    Raises:
        RtsrError: the folder cannot be written, or holds a model of that name already.
        ModelError: the model is no network, its name cannot be that of a folder, or it is to be
            served by a GPU that has no kernels for its precision.
    """
    if not model.is_network:
        raise ModelError(f"Model '{model.name}' is no network; a server needs none to run it.")
    if serving.kind == "gpu" and (reason := why_not_on_gpu(model, "a server's GPU")):
        raise ModelError(reason)
    text = model_configuration(model.metadata, serving)
    target = folder / repository_name(model.metadata)
    if folder.exists() and not folder.is_dir():
        raise RtsrError(f"{folder} is not a folder; a model repository is one.")
    if not folder.parent.is_dir():
        raise RtsrError(f"There is no folder {folder.parent}; make it first.")
    if target.exists():
        raise RtsrError(f"{target} exists already; remove it or choose another repository.")
    try:
        folder.mkdir(exist_ok=True)
        with _folder_beside(folder) as beside:
            entry = Path(beside) / target.name
            (entry / VERSION).mkdir(parents=True)
            shutil.copyfile(model.path, entry / VERSION / MODEL_FILE)
            if serving.backend == PYTHON:
                shutil.copyfile(_PROGRAM, entry / VERSION / PROGRAM_FILE)
            (entry / "config.pbtxt").write_text(text)
            _move(entry, target)
    except OSError as error:
        raise RtsrError(f"Cannot write {target}: {error.strerror}.") from error
    return target


def _folder_beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a new folder, beside a repository, not in it: a server that polls it would look in."""
    try:
        return tempfile.TemporaryDirectory(dir=folder.parent, prefix=_TEMPORARY)
    except OSError:
        return tempfile.TemporaryDirectory(dir=folder, prefix=_TEMPORARY)


def _move(entry: Path, target: Path) -> None:
    """Move a folder in one step, also into a repository that is a mount point, as a container's."""
    try:
        os.rename(entry, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=_TEMPORARY) as inside:
            os.rename(shutil.copytree(entry, Path(inside) / target.name), target)


def _signal(name: str, *shape: int) -> Message:
    return {"name": name, "data_type": _FLOAT, "dims": list(shape)}


def _state(name: str, shape: tuple[int, ...]) -> Message:
    dims = list(shape[1:])
    return {
        "input_name": f"state.{name}",
        "output_name": f"next.{name}",
        "data_type": _FLOAT,
        "dims": dims,
        # Without it the first request of a sequence sees whatever was in memory.
        "initial_state": [
            {"name": f"zero {name}", "data_type": _FLOAT, "dims": dims, "zero_data": True}
        ],
    }


def _parameter(key: str, value: str) -> Message:
    return {"key": key, "value": {"string_value": value}}

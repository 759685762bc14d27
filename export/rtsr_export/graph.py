"""Traces the generator's ``step`` into an ONNX graph with explicit state."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from rtsr.model.config import LATENCY_SAMPLES, NYQUIST
from rtsr.model.generator import Generator, parameter_count
from rtsr.model.streaming import flatten, unflatten
from rtsr.timing import HOP, OVERLAP, SAMPLE_RATE
from rtsr_export.dynamic_batch import make_batch_dynamic
from rtsr_export.faster_forms import use_faster_forms
from rtsr_export.folding import fold_constants

OPSET = 20
FORMAT = 1
SIGNALS = ("audio", "noise", "f_prior", "f_target")
_HAS_ONE_FRAME = "has_one_frame"


class _Step(nn.Module):
    """The generator's step with its state as a flat row of tensors, which is what ONNX knows."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator
        self.names = list(flatten(generator.initial_state(1)))

    def forward(
        self, audio: Tensor, noise: Tensor, f_prior: Tensor, f_target: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        nested = unflatten(dict(zip(self.names, state, strict=True)))
        high_band, following = self.generator.step(audio, noise, f_prior, f_target, nested)
        flat = flatten(following)
        return (high_band, *(flat[name] for name in self.names))


def example_inputs(generator: Generator, batch: int, frames: int) -> tuple[Tensor, ...]:
    """Return inputs of the right shapes: the four signals, then the state in its order."""
    signals = (
        torch.randn(batch, 1, HOP * frames) * 0.1,
        torch.randn(batch, generator.config.noise_channels, frames),
        torch.full((batch, 1, frames), 4000.0),
        torch.full((batch, 1, frames), 22000.0),
    )
    return (*signals, *flatten(generator.initial_state(batch)).values())


def weights_sha256(generator: Generator) -> str:
    """Hash of all weights in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(generator.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _state_shapes(generator: Generator) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in flatten(generator.initial_state(1)).items()}


def metadata(generator: Generator, card: dict[str, Any]) -> dict[str, Any]:
    """Return what a run-time needs besides the graph; ``card`` describes the training."""
    return {
        "format": FORMAT,
        "name": generator.config.name,
        "version": card.get("version", "0"),
        "configuration": generator.config.to_dict(),
        "sample_rate": SAMPLE_RATE,
        "hop": HOP,
        "precision": "fp32",
        "overlap": OVERLAP,
        "latency_samples": LATENCY_SAMPLES,
        "noise_channels": generator.config.noise_channels,
        "states": _state_shapes(generator),
        "f_target_default": card.get("f_target_default", NYQUIST),
        "weights_sha256": weights_sha256(generator),
        "parameters": parameter_count(generator),
        "licence": card.get("licence", "Apache-2.0"),
        "card": card,
    }


def _trace(generator: Generator) -> onnx.ModelProto:
    step = _Step(generator).eval()
    inputs = [*SIGNALS, *(f"state.{name}" for name in step.names)]
    outputs = ["high_band", *(f"next.{name}" for name in step.names)]
    axes = {name: {0: "batch"} for name in (*inputs, *outputs)}
    axes["audio"][2] = "samples"
    axes["high_band"][2] = "samples"
    for name in ("noise", "f_prior", "f_target"):
        axes[name][2] = "frames"
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # The tracing exporter keeps "frames" symbolic without any annotation of the model.
        torch.onnx.export(
            step,
            example_inputs(generator, 2, 2),
            buffer,  # type: ignore[arg-type]
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def build_graph(generator: Generator, card: dict[str, Any] | None = None) -> onnx.ModelProto:
    """Return the checked ONNX model of one step, with every state an input and an output.

    The axes ``batch``, ``frames`` and ``samples`` stay symbolic: a session fixes them, so that
    one file serves any number of hops per step and of channels.
    """
    model = _trace(generator.eval())
    _unite_conditions(model.graph)
    fold_constants(model)
    make_batch_dynamic(model.graph)
    model.producer_name = "rtsr"
    states = _state_shapes(generator)
    for value in model.graph.output:
        if value.name.startswith("next."):
            _set_shape(value, ["batch", *states[value.name.removeprefix("next.")][1:]])
    entry = model.metadata_props.add()
    entry.key, entry.value = "rtsr", json.dumps(metadata(generator, card or {}))
    use_faster_forms(model)
    onnx.checker.check_model(model)
    return model


def _unite_conditions(graph: onnx.GraphProto) -> None:
    """Let every branch depend on whether the block has one frame, which all of them mean.

    Each asked for the length of its own input, behind other branches. A session that knows the
    number of frames resolves a condition at the graph's entry at once.
    """
    for node in graph.node:
        if node.op_type == "If":
            node.input[0] = _HAS_ONE_FRAME
    one = numpy_helper.from_array(np.array(1, np.int64), "one_frame")
    frames = numpy_helper.from_array(np.array(2, np.int64), "axis_of_frames")
    graph.initializer.extend([one, frames])
    asking = [
        onnx.helper.make_node("Shape", ["f_prior"], ["f_prior.shape"]),
        onnx.helper.make_node("Gather", ["f_prior.shape", "axis_of_frames"], ["f_prior.frames"]),
        onnx.helper.make_node("Equal", ["f_prior.frames", "one_frame"], [_HAS_ONE_FRAME]),
    ]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*asking, *nodes])


def _set_shape(value: onnx.ValueInfoProto, shape: list[str | int]) -> None:
    dimensions = value.type.tensor_type.shape
    dimensions.ClearField("dim")
    for size in shape:
        dimension = dimensions.dim.add()
        if isinstance(size, str):
            dimension.dim_param = size
        else:
            dimension.dim_value = size

"""From an exported graph back to weights that can be trained on.

A trace renames, transposes and merges weights. Which value went where is found by tracing the same
configuration once more with weights that are numbered through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from rtsr.errors import ArgumentError, ModelError, RtsrError
from rtsr.model.config import ModelConfig
from rtsr.model.generator import Generator, seeded
from rtsr.runtime.metadata import ModelMetadata
from rtsr.train.checkpoint import save_checkpoint
from rtsr.train.grow import Weights, was_refined
from rtsr.train.schedule import REFINEMENT, STAGES
from rtsr_export.graph import build_graph
from rtsr_export.graph_file import read_graph
from rtsr_export.half import HALF, to_float32
from rtsr_export.parity import measure_parity, require_parity

#: Numbers begin beyond the whole numbers that graphs hold anyway; float32 has whole ones to 2**24.
_FIRST = 100_000
_SMALLEST_SCALE = 0.01
_NUMBERED = re.compile(r"onnx::\w+_(\d+)")


def restore_checkpoint(graph: Path, metadata: ModelMetadata, output: Path) -> None:
    """Write a checkpoint that ``rtsr train --grow-from`` begins with.

    It holds what a graph holds: no optimiser, no discriminators, and no teacher, because the flow
    of several steps is lost in its refinement to one.

    Raises:
        ModelError: the file is damaged.
        RtsrError: the graph is in int8, was exported before its refinement, or by a version of
            PyTorch or rtsr that exports another layout.
    """
    if metadata.is_for_cpu:
        raise ArgumentError(
            f"{graph.name} is in {metadata.precision}, which cannot be trained on; take the model "
            "that it was made from, in fp32 or fp16."
        )
    training = metadata.card.get("training")
    facts: dict[str, Any] = dict(training) if isinstance(training, dict) else {}
    facts.setdefault("stage", STAGES[REFINEMENT])
    if not was_refined(facts):
        raise RtsrError(f"{graph.name} was exported before its refinement; take its checkpoint.")
    facts["restored"] = f"{metadata.name} {metadata.version}, {metadata.precision}"
    try:
        config = ModelConfig.from_dict(dict(metadata.configuration))
    except (TypeError, ValueError) as error:
        raise ModelError(f"Model file '{graph}' is of another version of rtsr: {error}.") from error
    model = read_graph(graph)
    to_float32(model)
    generator = restore(model, config)
    require_parity(measure_parity(generator, model))
    weights = generator.state_dict()
    save_checkpoint(
        output,
        {
            "model_config": generator.config.to_dict(),
            "ema": {"steps": 0, "values": weights},
            "discriminators": None,
            "teacher": None,
            "facts": facts,
        },
    )


def restore(model: onnx.ModelProto, config: ModelConfig) -> Generator:
    """Return the generator that computes what a graph in float32 computes.

    Raises:
        RtsrError: the graph is not one of this configuration, exported by this version.
    """
    numbered, places = _numbered(config)
    values = {one.name: numpy_helper.to_array(one) for one in _floats(model)}
    values |= {name.removesuffix(HALF): value for name, value in values.items()}
    found = np.full(sum(value.numel() for value in places.values()), np.nan, np.float32)
    layout = _floats(build_graph(numbered))
    unnamed, theirs = _unnamed(one.name for one in layout), _unnamed(values)
    if len(unnamed) != len(theirs):
        raise _unknown_layout(model)
    values |= {ours: values[name] for ours, name in zip(unnamed, theirs, strict=True)}
    for one in layout:
        numbers = numpy_helper.to_array(one)
        index = _index_of(numbers, len(found))
        if index is None:
            continue
        value = values.get(one.name)
        if value is None or value.shape != numbers.shape:
            raise _unknown_layout(model)
        found[index] = value
    weights = {name: torch.from_numpy(found[place.numpy()]) for name, place in places.items()}
    if any(bool(value.isnan().any()) for value in weights.values()):
        raise _unknown_layout(model)
    generator = Generator(config)
    generator.load_state_dict({**numbered.state_dict(), **_with_scales(weights)})
    return generator.eval()


def _floats(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return the constants that may be weights; of others a conversion may leave some out."""
    return [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT]


def _unnamed(names: Iterable[str]) -> list[str]:
    """Weights that the exporter has numbered, in the order in which a step reads them.

    A node more or less before them changes their numbers and not their order.
    """
    numbers = {name: match[1] for name in names if (match := _NUMBERED.fullmatch(name))}
    return sorted(numbers, key=lambda name: int(numbers[name]))


def _numbered(config: ModelConfig) -> tuple[Generator, dict[str, Tensor]]:
    """Return a generator whose weights are consecutive numbers, and the index of each weight.

    Scales are one and have no number: a graph holds their product with the weights they scale.
    """
    generator = seeded(config, 0)
    places: dict[str, Tensor] = {}
    count = 0
    for name, value in generator.state_dict().items():
        if name.endswith(".scale"):
            value.fill_(1.0)
            continue
        places[name] = torch.arange(count, count + value.numel()).reshape(value.shape)
        value.copy_(places[name] + _FIRST)
        count += value.numel()
    if _FIRST + count >= 2**24:
        raise RtsrError(f"A model of {count} weights is too large to be restored from its graph.")
    return generator, places


def _index_of(numbers: np.ndarray, count: int) -> np.ndarray | None:
    """Places in the row, or ``None`` for a constant that is no weight."""
    if numbers.dtype != np.float32 or numbers.size == 0:
        return None
    index = numbers.astype(np.int64) - _FIRST
    is_weight = (numbers == index + _FIRST) & (index >= 0) & (index < count)
    return index if is_weight.all() else None


def _with_scales(weights: Weights) -> Weights:
    """Split products with scales so that the scaled rows are as large as those of a fresh layer.

    Every split computes the same; in this one the rows learn as fast as where training began.
    """
    split = dict(weights)
    for name, product in weights.items():
        if not re.search(r"blocks\.\d+\.narrow\.weight$", name):
            continue
        stem = name.removesuffix("narrow.weight")
        fresh = (3.0 * product.shape[1]) ** -0.5
        scale = (product.square().mean(dim=1).sqrt() / fresh).clamp(min=_SMALLEST_SCALE)
        split[f"{stem}scale"] = scale
        split[name] = product / scale[:, None]
        split[f"{stem}narrow.bias"] = weights[f"{stem}narrow.bias"] / scale
    return split


def _unknown_layout(model: onnx.ModelProto) -> RtsrError:
    return RtsrError(
        "The graph does not have the layout that this version exports; restore it with the rtsr "
        f"that exported it, on PyTorch {model.producer_version}."
    )

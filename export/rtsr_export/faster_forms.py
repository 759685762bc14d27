"""Writes two parts of a graph in forms that take a CPU less time and compute the same.

* **Moving averages.** ONNX Runtime's ``AveragePool`` adds up each window number by number: for 48
  streams, each with 2 x 301 windows of 13 bins, 474 us. Sums over 2, 4 and 8 neighbours, of which
  each window is put together, take 63; with one stream 10 instead of 12.
* **Attention with all heads in a row.** To be multiplied head by head, the keys and values of all
  past frames are brought into another order in every step. Here the few queries are spread
  instead, with zeros where the channels of other heads lie, and keys and values are read as they
  are. That is ``heads`` times the arithmetic, which is little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from rtsr.timing import HOP, OVERLAP
from rtsr_export.calibration import model_facts
from rtsr_export.folding import drop_unread
from rtsr_export.products import replace_nodes

# What is averaged: the bins of the two carriers' spectra (rtsr/model/excitation.py).
_BINS = (HOP + OVERLAP) // 2 + 1
_BY_HEAD, _KEYS_BY_HEAD = [0, 2, 1, 3], [0, 2, 3, 1]

Nodes = dict[str, list[onnx.NodeProto]]
Constants = dict[str, NDArray[np.generic]]


def use_faster_forms(model: onnx.ModelProto) -> None:
    """Rewrite a graph of rtsr in place; one that has no such part, or not any more, stays."""
    configuration = model_facts(model).configuration
    constants: Constants = {}
    replacements: Nodes = {}
    surroundings = _Surroundings(model.graph)
    for node in model.graph.node:
        if _is_centred_average(node):
            replacements |= _moving_average(node, constants)
        elif surroundings.by_head(node) is not None:
            heads, channels = configuration["attention_heads"], configuration["flow_middle"]
            replacements |= _attention(node, surroundings, heads, channels, constants)
    if not replacements:
        return
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    replace_nodes(model, replacements)
    drop_unread(model)


class _Surroundings:
    """What makes and what reads each tensor of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def by_head(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """Return queries and keys in their first order, if ``node`` multiplies them by head."""
        if node.op_type != "MatMul":
            return None
        queries = self.reordered(node.input[0], _BY_HEAD)
        keys = self.reordered(node.input[1], _KEYS_BY_HEAD)
        return None if queries is None or keys is None else (queries, keys)

    def reordered(self, name: str, permutation: list[int]) -> str | None:
        """Return what was reshaped and then transposed to ``name``."""
        transpose = self.makers.get(name)
        if transpose is None or transpose.op_type != "Transpose":
            return None
        reshape = self.makers.get(transpose.input[0])
        if _attribute(transpose, "perm") != permutation or reshape is None:
            return None
        return reshape.input[0] if reshape.op_type == "Reshape" else None

    def following(self, node: onnx.NodeProto | None, op_type: str) -> onnx.NodeProto | None:
        """Return the next node of a type, where nothing else reads what lies between."""
        readers = self._readers.get(node.output[0], []) if node is not None else []
        if len(readers) != 1:
            return None
        return readers[0] if readers[0].op_type == op_type else self.following(readers[0], op_type)


def _is_centred_average(node: onnx.NodeProto) -> bool:
    """Whether a node averages what there is of a window around each bin."""
    counts_padding = any(one.name == "count_include_pad" and one.i for one in node.attribute)
    if node.op_type != "AveragePool" or counts_padding:
        return False
    width, pads = _attribute(node, "kernel_shape"), _attribute(node, "pads")
    return bool(width and pads and len(width) == 1 and sum(pads) + 1 == width[0])


def _moving_average(pool: onnx.NodeProto, constants: Constants) -> Nodes:
    """Return sums over windows, made by doubling, times one by the numbers that each holds."""
    (width,), (before, after) = _attribute(pool, "kernel_shape"), _attribute(pool, "pads")
    bins = np.arange(_BINS)
    held = np.minimum(bins + after, _BINS - 1) - np.maximum(bins - before, 0) + 1
    (output,) = pool.output
    nodes: list[onnx.NodeProto] = []

    def constant(label: str, value: NDArray[np.generic]) -> str:
        constants[f"{output}.{label}"] = value
        return f"{output}.{label}"

    def add(op_type: str, inputs: list[str], label: str) -> str:
        name = f"{output}.{label}"
        nodes.append(helper.make_node(op_type, inputs, [name]))
        return name

    def part(name: str, start: int, length: int, label: str) -> str:
        place = [constant(str(number), np.array([number])) for number in (start, start + length, 2)]
        return add("Slice", [name, *place], label)

    padding = constant("padding", np.array([0, 0, before, 0, 0, after]))
    sums = add("Pad", [pool.input[0], padding], "padded")
    # `sums` are over `span` neighbours; a window is put together from spans, the rest first.
    span, length, offset = 1, _BINS + width - 1, 0
    parts: list[str] = []
    while span <= width:
        if width & span:
            parts.append(part(sums, offset, _BINS, f"part{span}"))
            offset += span
        if 2 * span <= width:
            length -= span
            ends = [part(sums, start, length, f"from{start}of{span}") for start in (0, span)]
            sums = add("Add", ends, f"sum{2 * span}")
        span *= 2
    share = constant("share", (1.0 / held).astype(np.float32))
    total = add("Sum", parts, "total")
    return {output: [*nodes, helper.make_node("Mul", [total, share], [output])]}


def _attention(
    product: onnx.NodeProto,
    around: _Surroundings,
    heads: int,
    channels: int,
    constants: Constants,
) -> Nodes:
    """Return what takes the place of the scores, their bias, their softmax and what it mixes.

    Scores become ``(batch, heads * frames, keys)``; queries ``(batch, frames, channels)`` and
    keys and values ``(batch, keys, channels)`` are read as they are.
    """
    added = around.following(product, "Add")
    softmax = around.following(added, "Softmax")
    mixing = around.following(softmax, "MatMul")
    merging = around.following(around.following(mixing, "Transpose"), "Reshape")
    queries_and_keys = around.by_head(product)
    if added is None or softmax is None or mixing is None or merging is None:
        return {}
    values = around.reordered(mixing.input[1], _BY_HEAD)
    if queries_and_keys is None or values is None:
        return {}
    queries, keys = queries_and_keys
    merged = merging.output[0]
    scores, sums, shares = product.output[0], added.output[0], softmax.output[0]
    scaled, bias = added.input
    constants[f"{scores}.heads"] = np.repeat(
        np.eye(heads, dtype=np.float32), channels // heads, axis=1
    )[:, None]
    constants[f"{scores}.axis"] = np.array([1])
    constants[f"{scores}.rows"] = np.array([0, -1, channels])
    constants[f"{scores}.by_head"] = np.array([0, heads, -1, channels])
    axis, of_heads = f"{scores}.axis", f"{scores}.heads"

    def node(op_type: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs, [output], **attributes)

    return {
        scores: [
            node("Unsqueeze", [queries, axis], f"{queries}.every_head"),
            node("Mul", [f"{queries}.every_head", of_heads], f"{queries}.spread"),
            node("Reshape", [f"{queries}.spread", f"{scores}.rows"], f"{queries}.rows"),
            node("Transpose", [keys], f"{keys}.columns", perm=[0, 2, 1]),
            node("MatMul", [f"{queries}.rows", f"{keys}.columns"], scores),
        ],
        # (heads, frames, keys), which the rows of the scores are, too.
        sums: [
            node("Flatten", [bias], f"{bias}.rows", axis=2),
            node("Add", [scaled, f"{bias}.rows"], sums),
        ],
        shares: [node("Softmax", [sums], shares, axis=-1)],
        mixing.output[0]: [node("MatMul", [mixing.input[0], values], mixing.output[0])],
        merged: [
            node("Reshape", [mixing.output[0], f"{scores}.by_head"], f"{merged}.by_head"),
            node("Mul", [f"{merged}.by_head", of_heads], f"{merged}.own"),
            node("ReduceSum", [f"{merged}.own", axis], merged, keepdims=0),
        ],
    }


def _attribute(node: onnx.NodeProto, name: str) -> list[int]:
    """Return an attribute's numbers, none where it is absent."""
    for one in node.attribute:
        if one.name == name:
            return list(one.ints)
    return []

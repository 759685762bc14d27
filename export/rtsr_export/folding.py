"""Constant folding: what no input can change is computed at export, once."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from rtsr_export.branches import every_node, names_read

# Values that differ from run to run, or from machine to machine, have no constant.
_NEVER = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"})


def fold_constants(model: onnx.ModelProto) -> None:
    """Replace, in place, every node whose inputs are all constant by its value.

    Equal constants become one; nodes and constants that nothing reads are dropped.
    """
    graph = model.graph
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    remaining = []
    for node in graph.node:
        if node.op_type in _NEVER or not all(name in values for name in node.input if name):
            remaining.append(node)
            continue
        opsets = {one.domain: one.version for one in model.opset_import}
        results = ReferenceEvaluator(node, opsets=opsets).run(
            None, {name: values[name] for name in node.input if name}
        )
        values.update(zip(node.output, map(np.asarray, results), strict=True))
    _store(graph, remaining, values)


def drop_unread(model: onnx.ModelProto) -> None:
    """Remove, in place, nodes and constants that nothing reads any more; equal ones become one."""
    graph = model.graph
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    _store(graph, list(graph.node), values)


def _used(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that something reads, directly or through others, in their order."""
    read, used = set(outputs), []
    for node in reversed(nodes):
        if read.isdisjoint(node.output):
            continue
        used.append(node)
        read |= names_read([node])
    return used[::-1]


def _store(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], values: dict[str, np.ndarray]
) -> None:
    """Make the graph's nodes those of ``nodes`` that something reads, and its constants theirs."""
    nodes = _used(nodes, {one.name for one in graph.output})
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    constants: dict[str, np.ndarray] = {}
    for node in every_node(nodes):
        for position, name in enumerate(node.input):
            if name not in values:
                continue
            value = values[name]
            key = (str(value.dtype), value.shape, value.tobytes())
            node.input[position] = first.setdefault(key, name)
            constants[first[key]] = value
    for output in graph.output:
        if output.name in values:
            constants[output.name] = values[output.name]
    remaining = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(remaining)
    del graph.initializer[:]
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )

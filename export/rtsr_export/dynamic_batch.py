"""A dynamic batch axis that costs nothing: no node of a graph asks for the size of its batch.

A trace asks tensors for their shapes, to write them into reshapes and to compare lengths. Where the
batch is not known, ONNX Runtime cannot answer any of that in advance, although it knows the other
axes: every step then asks again, and goes through each branch. Here the other axes are read from
the first item, whose shape is known whenever they are, and a reshape finds the batch by itself.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import numpy_helper

from rtsr_export.branches import branches, every_node

_FIRST, _ANY, _SAME = "first_item", "any_batch", "same_batch"
# What a shape goes through on its way to a reshape.
_PASSING = frozenset({"Gather", "Slice", "Unsqueeze", "Concat"})
# Codes of a reshape (https://onnx.ai/onnx/operators/onnx__Reshape.html): what is left, and what
# the tensor has at this position.
_LEFT, _AS_BEFORE = -1, 0


def make_batch_dynamic(graph: onnx.GraphProto) -> None:
    """Rewrite, in place, every shape whose batch is read by nothing but reshapes.

    What a ``Shape`` gives becomes the code for an open batch, followed by the shape of the first
    item. All tensors must have the batch as their first axis. A shape that went through this
    before stays as it is.
    """
    uses = _Uses(graph)
    rewritten = False
    # A graph's nodes are copied with their branches, which therefore come first.
    for one in reversed(_graphs(graph)):
        nodes: list[onnx.NodeProto] = []
        for node in one.node:
            codes = uses.codes_for(node) if node.op_type == "Shape" else None
            if codes is None:
                nodes.append(node)
                continue
            rewritten = True
            nodes += _first_item_shape(node, _SAME if codes == _AS_BEFORE else _ANY)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del one.node[:]
        one.node.extend(copies)
    if rewritten:
        known = {_FIRST: np.array(0), _ANY: np.array([_LEFT]), _SAME: np.array([_AS_BEFORE])}
        names = {name for node in every_node(graph.node) for name in node.input}
        names -= {one.name for one in graph.initializer}
        graph.initializer.extend(
            numpy_helper.from_array(value.astype(np.int64), name)
            for name, value in known.items()
            if name in names
        )


def _first_item_shape(node: onnx.NodeProto, batch: str) -> list[onnx.NodeProto]:
    (tensor,), (shape,) = node.input, node.output
    item, rest = f"{shape}.item", f"{shape}.rest"
    return [
        onnx.helper.make_node("Gather", [tensor, _FIRST], [item], axis=0),
        onnx.helper.make_node("Shape", [item], [rest]),
        onnx.helper.make_node("Concat", [batch, rest], [shape], axis=0),
    ]


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """Return a graph and those of all its branches."""
    inner = [branch for node in every_node(graph.node) for branch in branches(node)]
    return [graph, *inner]


class _Uses:
    """Who reads what in a graph and its branches, and what is constant there."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self._results = {output.name for one in _graphs(graph) for output in one.output}
        self._items: set[str] = set()
        for node in every_node(graph.node):
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            if node.op_type == "Gather" and node.input[1] == _FIRST:
                self._items.add(node.output[0])
            for name in dict.fromkeys(node.input):
                self._readers[name].append(node)

    def codes_for(self, shape: onnx.NodeProto) -> int | None:
        """Return the code that reshapes need in place of the batch; ``None`` if that is no way."""
        if shape.attribute or shape.input[0] in self._items:
            return None
        if not self._ends_in_reshapes(shape.output[0]):
            return None
        for node in self._behind(shape.output[0]):
            if node.op_type == "Reshape" and node.input[0] == shape.input[0]:
                return _AS_BEFORE
            others = (self._constants.get(name) for name in node.input)
            # A reshape can find one axis by itself, and here it finds another one.
            if node.op_type == "Concat" and any(
                value is not None and _LEFT in value for value in others
            ):
                return _AS_BEFORE
        return _LEFT

    def _ends_in_reshapes(self, name: str) -> bool:
        """Whether the batch in the shape ``name`` is read by nothing but reshapes."""
        if name in self._results:
            return False
        for node in self._readers[name]:
            if node.op_type == "Reshape" and node.input[0] != name:
                continue
            if not self._passes_batch(node, name):
                continue
            if node.op_type not in _PASSING or not self._ends_in_reshapes(node.output[0]):
                return False
        return True

    def _passes_batch(self, node: onnx.NodeProto, name: str) -> bool:
        """Whether what a node takes out of the shape ``name`` may have the batch in it."""
        if node.input[0] != name or node.op_type not in ("Gather", "Slice"):
            return True
        chosen = [self._constants[one] for one in node.input[1:3] if one in self._constants]
        if len(chosen) < len(node.input[1:3]):
            return True
        first = np.atleast_1d(chosen[0])
        if node.op_type == "Gather":
            return bool((first <= 0).any())
        return not (first[0] > 0 or np.atleast_1d(chosen[1])[0] == 0)

    def _behind(self, name: str) -> list[onnx.NodeProto]:
        """Return all that reads the shape ``name``, directly or through others."""
        found = []
        for node in self._readers[name]:
            found.append(node)
            if node.op_type in _PASSING:
                found += self._behind(node.output[0])
        return found

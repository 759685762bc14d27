"""The matrix products with weights in a graph: nearly all of its arithmetic and of its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from rtsr_export.branches import names_read

# What is smaller saves little more than its conversions cost. Measured on one core at 1 and 16
# streams: from 8000 over 16000 to 30000 and 60000 weights, each step costs one to two per cent.
LEAST_WEIGHTS = 8000


@dataclass(frozen=True)
class Product:
    """``output = input @ weight + bias``, exported as the two nodes ``MatMul`` and ``Add``.

    ``weight`` ``(channels_in, channels_out)`` and ``bias`` ``(channels_out)`` are initialisers.
    """

    matmul: onnx.NodeProto
    add: onnx.NodeProto
    weight: str
    bias: str

    @property
    def input(self) -> str:
        """Name of the input tensor."""
        return str(self.matmul.input[0])

    @property
    def output(self) -> str:
        """Name of the output tensor."""
        return str(self.add.output[0])


def find_products(model: onnx.ModelProto, least: int = LEAST_WEIGHTS) -> list[Product]:
    """Return the products whose matrix has at least ``least`` weights, in the graph's order."""
    sizes = {one.name: list(one.dims) for one in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        shape = sizes.get(node.input[1], []) if node.op_type == "MatMul" else []
        if len(shape) != 2 or shape[0] * shape[1] < least:
            continue
        following = readers.get(node.output[0], [])
        if len(following) != 1 or following[0].op_type != "Add":
            continue
        biases = [name for name in following[0].input if sizes.get(name) == shape[1:]]
        if biases:
            found.append(Product(node, following[0], node.input[1], biases[0]))
    return found


def replace_nodes(
    model: onnx.ModelProto, replacements: Mapping[str, Sequence[onnx.NodeProto]]
) -> None:
    """Put other nodes in the place of those whose first output is named, in place.

    Initialisers that nothing reads any more are dropped.
    """
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.extend(replacements.get(node.output[0], [node]))
    read = names_read(nodes)
    # A repeated field cannot take back messages that were its own.
    used_nodes = [_copy(node) for node in nodes]
    used = [_copy(one) for one in model.graph.initializer if one.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(used_nodes)
    model.graph.initializer.extend(used)


def _copy(message: onnx.NodeProto | onnx.TensorProto):  # type: ignore[no-untyped-def]
    copy = type(message)()
    copy.CopyFrom(message)
    return copy

"""Conversion to fp16: the weights of the large matrix products, and the products with them.

Inputs, outputs, state, biases, norms, residual path and Fourier transforms stay float32, so that
the run-time needs no change. A GPU takes the products in half precision. A CPU has no such kernels;
ONNX Runtime then removes the casts again and converts the weights to float32 once, when it loads
them, so that a step costs the same as in fp32 and only the file is half as large. Biases and
activations in half precision would stop it from removing the casts: a fifth slower on the CPU.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rtsr_export.products import find_products, replace_nodes

#: suffix of the name of a weight that was converted to float16
HALF = ".half"


def to_float16(model: onnx.ModelProto) -> None:
    """Convert the large products of a graph to fp16, in place."""
    weights = {one.name: one for one in model.graph.initializer}
    replacements: dict[str, list[onnx.NodeProto]] = {}
    converted: set[str] = set()
    for product in find_products(model):
        source, weight, output = product.input, product.weight, product.matmul.output[0]
        nodes = []
        if source not in converted:
            nodes.append(_cast(source, source + HALF, TensorProto.FLOAT16))
        if weight not in converted:
            values = numpy_helper.to_array(weights[weight]).astype(np.float16)
            model.graph.initializer.append(numpy_helper.from_array(values, weight + HALF))
        converted |= {source, weight}
        operands = [source + HALF, weight + HALF]
        nodes.append(
            helper.make_node("MatMul", operands, [output + HALF], name=product.matmul.name)
        )
        nodes.append(_cast(output + HALF, output, TensorProto.FLOAT))
        replacements[output] = nodes
    replace_nodes(model, replacements)


def to_float32(model: onnx.ModelProto) -> None:
    """Undo :func:`to_float16` in place: products in float32, of the weights as rounded to fp16."""
    graph = model.graph
    stored = {one.name: one for one in graph.initializer if one.data_type == TensorProto.FLOAT16}
    casts = [node for node in graph.node if node.op_type == "Cast"]
    sources = {cast.output[0]: cast.input[0] for cast in casts}
    outputs = {cast.input[0]: cast.output[0] for cast in casts}
    replacements: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in stored:
            continue
        source, weight, output = node.input[0], node.input[1], node.output[0]
        float_output = outputs[output]
        replacements |= {source: [], output: []}
        replacements[float_output] = [
            helper.make_node("MatMul", [sources[source], weight], [float_output], name=node.name)
        ]
    for one in stored.values():
        values = numpy_helper.to_array(one).astype(np.float32)
        one.CopyFrom(numpy_helper.from_array(values, one.name))
    replace_nodes(model, replacements)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=kind, name=f"{target}.cast")

"""How much arithmetic an ONNX graph does, counted operator by operator.

    count = count_graph("small.onnx", {"batch": 1, "frames": 1, "samples": 480})
    count.total.multiply_accumulates

A multiply-accumulate is one product that is added to a sum: matrix products, convolutions, and a
``Mul`` whose only reader is a ``ReduceSum``. Everything else that computes (sums, products that are
not summed, roots, exponentials, comparisons) is counted as *other*, one per value; what only moves
values costs nothing. Shapes come from one run on zeros, so that operators which no shape inference
knows are counted, too.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.runtime.providers import select as providers

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_FUSED_PRODUCT = "Mul, ReduceSum"

# Where an operator's values and its matrix or filter stand among its inputs.
_MATRIX_PRODUCTS = {
    "MatMul": 0,
    "MatMulInteger": 0,
    "MatMulIntegerToFloat": 0,
    "DynamicQuantizeMatMul": 0,
    "QLinearMatMul": 0,
    "FusedMatMul": 0,
}
_FILTER_OF_CONVOLUTION = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
_GENERAL_PRODUCTS = ("Gemm", "QGemm")

_MOVES = frozenset(
    (
        *("Cast", "Concat", "Constant", "ConstantOfShape"),
        *("Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("Identity", "Pad", "Range", "Reshape", "Shape", "Size"),
        *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)
# Elementary operations per value that comes out. Operators that the standard defines as a sequence
# of others count as that sequence: a normalisation is mean, difference, square, scale, gain, shift.
_PER_OUTPUT = {
    **dict.fromkeys(
        (
            *("Abs", "Add", "And", "Ceil", "Clip", "Cos"),
            *("Div", "Equal", "Erf", "Exp", "Floor", "Greater"),
            *("GreaterOrEqual", "Less", "LessOrEqual", "Log"),
            *("Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow"),
            *("Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin"),
            *("Sqrt", "Sub", "Sum", "Tanh", "Where", "Xor"),
        ),
        1,
    ),
    "BatchNormalization": 2,
    "DequantizeLinear": 2,
    "Gelu": 8,
    "InstanceNormalization": 6,
    "LayerNormalization": 6,
    "LeakyRelu": 2,
    "QuantizeLinear": 2,
    "Softmax": 5,
    "Softplus": 3,
}
_PER_INPUT = frozenset(
    ("ArgMax", "ArgMin", "CumSum", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
)


@dataclass(frozen=True)
class Operations:
    """Multiply-accumulates, and other elementary operations."""

    multiply_accumulates: float = 0
    other: float = 0

    def __add__(self, more: Operations) -> Operations:
        return Operations(
            self.multiply_accumulates + more.multiply_accumulates, self.other + more.other
        )

    def times(self, factor: float) -> Operations:
        """So many of the same."""
        return Operations(self.multiply_accumulates * factor, self.other * factor)


@dataclass(frozen=True)
class NodeCount:
    """One operator of a graph and what it costs in one run."""

    name: str
    operator: str
    operations: Operations


@dataclass(frozen=True)
class GraphCount:
    """All operators of a graph, in its order."""

    nodes: list[NodeCount]

    @property
    def total(self) -> Operations:
        """The whole graph, one run."""
        return total(node.operations for node in self.nodes)

    def by_operator(self) -> dict[str, Operations]:
        """Sums per kind of operator; ``"Mul, ReduceSum"`` is a product that is summed at once."""
        sums: dict[str, Operations] = {}
        for node in self.nodes:
            sums[node.operator] = sums.get(node.operator, Operations()) + node.operations
        return sums


def total(parts: Any) -> Operations:
    """The sum of several counts."""
    return sum(parts, Operations())


def count_graph(model: str | Path | onnx.ModelProto, sizes: Mapping[str, int]) -> GraphCount:
    """Count the operations of one run of a graph.

    Args:
        model: an ``.onnx`` file, or one that is loaded.
        sizes: of the symbolic axes of the inputs, for example ``{"batch": 1, "frames": 1}``.

    Raises:
        MissingDependencyError: onnx or ONNX Runtime are not installed.
        RtsrError: an axis has no size, the graph does not run, or it holds an operator that this
            module cannot count.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("Counting a graph's operations", "train") from None
    loaded = onnx.load(os.fspath(model)) if isinstance(model, (str, os.PathLike)) else model
    shapes = _shapes(loaded, sizes)
    readers = Counter(name for node in loaded.graph.node for name in node.input)
    readers.update(value.name for value in loaded.graph.output)
    makers = {name: node for node in loaded.graph.node for name in node.output}
    fused = {
        node.input[0]
        for node in loaded.graph.node
        if node.op_type == "ReduceSum"
        and readers[node.input[0]] == 1
        and node.input[0] in makers
        and makers[node.input[0]].op_type == "Mul"
    }
    nodes = []
    for node in loaded.graph.node:
        if node.output[0] in fused:
            products = Operations(multiply_accumulates=math.prod(shapes[node.output[0]]))
            nodes.append(NodeCount(node.name, _FUSED_PRODUCT, products))
        elif node.input and node.input[0] in fused:
            nodes.append(NodeCount(node.name, _FUSED_PRODUCT, Operations()))
        else:
            nodes.append(NodeCount(node.name, node.op_type, _count_node(node, shapes)))
    return GraphCount(nodes)


def _shapes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> dict[str, Shape]:
    """The shape of every value in the graph."""
    import onnx

    onnxruntime = providers.load_onnxruntime()
    everything = onnx.ModelProto()
    everything.CopyFrom(model)
    constants = {one.name: tuple(one.dims) for one in model.graph.initializer}
    feeds = {
        value.name: np.zeros(
            _sized(value, sizes), onnx.helper.tensor_dtype_to_np_dtype(_element_type(value))
        )
        for value in model.graph.input
        if value.name not in constants
    }
    names = [name for node in model.graph.node for name in node.output if name]
    del everything.graph.output[:]
    everything.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names)
    options = onnxruntime.SessionOptions()
    # An optimised graph has lost the values in between.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            everything.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        values = session.run(names, feeds)
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        reason = " ".join(str(error).split())[:200]
        raise RtsrError(
            f"The graph does not run with these sizes, so it cannot be counted ({reason})."
        ) from None
    shapes = {name: np.shape(value) for name, value in zip(names, values, strict=True)}
    return {**constants, **{name: feed.shape for name, feed in feeds.items()}, **shapes}


def _element_type(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _sized(value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> Shape:
    shape = []
    for axis in value.type.tensor_type.shape.dim:
        if axis.HasField("dim_value"):
            shape.append(int(axis.dim_value))
        elif axis.dim_param in sizes:
            shape.append(int(sizes[axis.dim_param]))
        else:
            raise RtsrError(
                f"Input {value.name!r} has an axis {axis.dim_param!r} of unknown size; "
                f"give one beside {', '.join(map(repr, sizes)) or 'nothing'}."
            )
    return tuple(shape)


def _count_node(node: onnx.NodeProto, shapes: Shapes) -> Operations:
    kind = node.op_type
    made = math.prod(shapes[node.output[0]])
    if kind in _MOVES:
        return Operations()
    if kind in _PER_OUTPUT:
        # A sum or a maximum of n tensors takes n - 1 steps.
        terms = max(len(node.input) - 1, 1) if kind in ("Sum", "Max", "Min") else 1
        return Operations(other=made * terms * _PER_OUTPUT[kind])
    if kind in _PER_INPUT:
        return Operations(other=math.prod(shapes[node.input[0]]))
    if kind in _MATRIX_PRODUCTS:
        return Operations(made * _inner(node, shapes[node.input[_MATRIX_PRODUCTS[kind]]]))
    if kind in _GENERAL_PRODUCTS:
        rows, columns = shapes[node.input[0]]
        return Operations(made * (rows if _attribute(node, "transA", 0) else columns))
    if kind in _FILTER_OF_CONVOLUTION:
        filters = shapes[node.input[_FILTER_OF_CONVOLUTION[kind]]]
        return Operations(made * math.prod(filters[1:]))
    special = _SPECIAL.get(kind)
    if special is None:
        raise RtsrError(
            f"The graph holds an operator {kind!r} ({node.name or 'unnamed'}), whose operations "
            "rtsr_bench.operations cannot count; add it there."
        )
    return special(node, shapes)


def _inner(node: onnx.NodeProto, left: Shape) -> int:
    """Length of the sums of a matrix product."""
    is_turned = bool(_attribute(node, "transA", 0)) and len(left) > 1
    return left[-2] if is_turned else left[-1]


def _count_transposed_convolution(node: onnx.NodeProto, shapes: Shapes) -> Operations:
    taken, filters = shapes[node.input[0]], shapes[node.input[1]]
    return Operations(math.prod(taken) * math.prod(filters[1:]))


def _count_pool(node: onnx.NodeProto, shapes: Shapes) -> Operations:
    window = math.prod(_attribute(node, "kernel_shape", [1]))
    return Operations(other=math.prod(shapes[node.output[0]]) * window)


def _count_sum_of_squares(node: onnx.NodeProto, shapes: Shapes) -> Operations:
    return Operations(math.prod(shapes[node.input[0]]))


def _count_einsum(node: onnx.NodeProto, shapes: Shapes) -> Operations:
    """Every combination of indices is one product per operand after the first.

    An ellipsis is one index of the size of what it stands for, the largest where it is broadcast.
    """
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    operands = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for indices, name in zip(operands, node.input, strict=True):
        shape = shapes[name]
        before, _, after = indices.partition("...")
        named = {**dict(zip(before, shape, strict=False))}
        if "..." in indices:
            rest = shape[len(before) : len(shape) - len(after)]
            named["..."] = math.prod(rest)
            named.update(zip(after, shape[len(shape) - len(after) :], strict=True))
        for index, size in named.items():
            sizes[index] = max(sizes.get(index, 1), size)
    combinations = math.prod(sizes.values())
    if len(operands) == 1:
        return Operations(other=combinations)
    return Operations(combinations * (len(operands) - 1))


_SPECIAL: dict[str, Callable[[Any, Shapes], Operations]] = {
    "AveragePool": _count_pool,
    "ConvTranspose": _count_transposed_convolution,
    "Einsum": _count_einsum,
    "MaxPool": _count_pool,
    "ReduceSumSquare": _count_sum_of_squares,
}


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            value: int | bytes | Sequence[int] = onnx.helper.get_attribute_value(attribute)
            return value
    return default

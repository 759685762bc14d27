"""The smallest graph there is: rows of one set of tensors or of another, chosen by a mask.

A state that lives in a device's memory can only be changed by something that runs there, so this is
an ONNX graph. It is written as protobuf by hand, since running a model must not need the ``onnx``
package. Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, the
encoding is https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_IR_VERSION = 8
_OPSET = 17
_FLOAT, _BOOL = 1, 9

CHOSEN, OTHER, RESULT = "chosen.", "other.", "result."


def mask_name(rank: int) -> str:
    """Name of the mask for tensors of that rank: bool ``(batch, 1, ...)``."""
    return f"mask.{rank}"


def select_graph(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Build a model of ``result.X = where(mask.RANK, chosen.X, other.X)`` for every tensor ``X``.

    Args:
        shapes: float32 tensors by name, all with the same first dimension.
    """
    batch = next(iter(shapes.values()))[0]
    nodes, inputs, outputs = [], [], []
    for rank in sorted({len(shape) for shape in shapes.values()}):
        inputs.append(_value(mask_name(rank), _BOOL, (batch, *[1] * (rank - 1))))
    for name, shape in shapes.items():
        operands = (mask_name(len(shape)), CHOSEN + name, OTHER + name)
        node = b"".join(_text(1, operand) for operand in operands)
        nodes.append(node + _text(2, RESULT + name) + _text(4, "Where"))
        inputs += [_value(CHOSEN + name, _FLOAT, shape), _value(OTHER + name, _FLOAT, shape)]
        outputs.append(_value(RESULT + name, _FLOAT, shape))
    graph = _all(1, nodes) + _text(2, "select") + _all(11, inputs) + _all(12, outputs)
    opset = _text(1, "") + _number(2, _OPSET)
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, opset)


def _value(name: str, kind: int, shape: Iterable[int]) -> bytes:
    """Return a ``ValueInfoProto`` with a fixed shape."""
    dimensions = _all(1, [_number(1, size) for size in shape])
    tensor = _number(1, kind) + _message(2, dimensions)
    return _text(1, name) + _message(2, _message(1, tensor))


def _all(field: int, messages: Iterable[bytes]) -> bytes:
    return b"".join(_message(field, message) for message in messages)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)

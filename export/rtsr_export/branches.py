"""Subgraphs: the two branches of an ``If`` node, which see the names of the graph around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx


def branches(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs that a node holds."""
    return [one.g for one in node.attribute if one.type == onnx.AttributeProto.GRAPH]


def every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Go through nodes and those in their branches."""
    for node in nodes:
        yield node
        for branch in branches(node):
            yield from every_node(branch.node)


def names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the names that nodes read, or that one of their branches gives back."""
    read: set[str] = set()
    for node in every_node(nodes):
        read.update(node.input)
        read.update(output.name for branch in branches(node) for output in branch.output)
    return read

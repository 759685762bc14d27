"""Graphs whose batch a session leaves open: the same numbers, and no question left in a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import rtsr_export.graph as exporter
from rtsr.model.config import CONFIGURATIONS
from rtsr.model.generator import seeded
from rtsr_export.dynamic_batch import make_batch_dynamic
from rtsr_export.graph import build_graph, example_inputs

# Matrix products round by the size of the batch.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def graphs() -> tuple:
    """A generator, its graph as traced, and the same with an open batch."""
    config = replace(CONFIGURATIONS["small"], encoder_width=24, decoder_width=24)
    generator = seeded(config, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "make_batch_dynamic", lambda graph: None)
        asking = build_graph(generator)
    opened = onnx.ModelProto.FromString(asking.SerializeToString())
    make_batch_dynamic(opened.graph)
    onnx.checker.check_model(opened)
    return generator, asking, opened


@pytest.mark.parametrize("hops", [1, 2, 4])
def test_a_dynamic_batch_gives_the_same_numbers_at_every_size(graphs, hops, open_graph):
    generator, asking, opened = graphs
    fixed = open_graph(asking, hops)
    open_one = open_graph(opened, hops, is_batch_fixed=False)
    names = [one.name for one in fixed.get_inputs()]
    first = dict(
        zip(names, (one.numpy() for one in example_inputs(generator, 3, hops)), strict=True)
    )
    after = fixed.run(None, first)
    # With a past, too.
    second = {**first, **dict(zip(names[4:], after[1:], strict=True))}
    for signals in (first, second):
        expected = fixed.run(None, signals)
        for rows in (1, 2, 3):
            part = {name: one[:rows] for name, one in signals.items()}
            for ours, theirs in zip(open_one.run(None, part), expected, strict=True):
                assert ours.shape == (rows, *theirs.shape[1:])
                scale = max(1.0, float(np.abs(theirs).max()))
                assert np.abs(ours - theirs[:rows]).max() <= TOLERANCE * scale


@pytest.mark.parametrize("hops", [1, 2])
def test_a_session_that_leaves_the_batch_open_asks_nothing(graphs, hops, tmp_path, open_graph):
    path = tmp_path / "opened.onnx"
    open_graph(graphs[2], hops, str(path), is_batch_fixed=False)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert "If" not in operators
    assert operators.count("Shape") <= 1
    open_graph(graphs[1], hops, str(path), is_batch_fixed=False)
    assert "If" in [node.op_type for node in onnx.load(path).graph.node], "there was something"


def test_a_graph_with_a_dynamic_batch_stays_as_it_is(graphs):
    again = onnx.ModelProto.FromString(graphs[2].SerializeToString())
    make_batch_dynamic(again.graph)
    assert again == graphs[2]


def _graph(*nodes: onnx.NodeProto, result: str) -> onnx.GraphProto:
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [len(value)] if value else [], value or [0])
        for name, value in {"zero": [], "six": [6]}.items()
    ]
    return helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 3])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
        constants,
    )


def test_a_batch_that_is_computed_with_is_still_asked_for():
    shape = helper.make_node("Shape", ["x"], ["shape"])
    batch = helper.make_node("Gather", ["shape", "zero"], ["count"])
    used = helper.make_node("Cast", ["count"], ["y"], to=TensorProto.FLOAT)
    graph = _graph(shape, batch, used, result="y")
    before = graph.SerializeToString()
    make_batch_dynamic(graph)
    assert graph.SerializeToString() == before
    axis = helper.make_node("Constant", [], ["axis"], value_ints=[0])
    width = helper.make_node("Unsqueeze", ["count", "axis"], ["one"])
    target = helper.make_node("Concat", ["one", "six"], ["target"], axis=0)
    reshaped = helper.make_node("Reshape", ["x", "target"], ["y"])
    graph = _graph(shape, batch, axis, width, target, reshaped, result="y")
    make_batch_dynamic(graph)
    assert [node.op_type for node in graph.node].count("Shape") == 1
    assert graph.node[1].op_type == "Shape"
    assert graph.node[1].input[0] != "x", "only the first item is asked"

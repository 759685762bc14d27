"""Forms that a CPU computes faster: the same numbers, and nothing left that was slow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import rtsr_export.graph as exporter
from rtsr.model.config import CONFIGURATIONS
from rtsr.model.generator import seeded
from rtsr.runtime.models import find_model
from rtsr_export.faster_forms import use_faster_forms
from rtsr_export.graph import build_graph, example_inputs

# Sums are taken in another order.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def graphs() -> tuple:
    """A generator whose heads and ages weigh differently, its graph as traced, and in new forms."""
    config = replace(CONFIGURATIONS["small"], encoder_width=24, decoder_width=24)
    generator = seeded(config, 3)
    generator.velocity.attend.age_bias.data.normal_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "use_faster_forms", lambda model: None)
        traced = build_graph(generator)
    rewritten = onnx.ModelProto.FromString(traced.SerializeToString())
    use_faster_forms(rewritten)
    onnx.checker.check_model(rewritten)
    return generator, traced, rewritten


@pytest.mark.parametrize("hops", [1, 2, 16])
def test_all_outputs_and_states_are_the_same(graphs, hops, open_graph):
    generator, traced, rewritten = graphs
    before, after = (open_graph(model, hops, is_batch_fixed=False) for model in (traced, rewritten))
    names = [one.name for one in before.get_inputs()]
    random = np.random.default_rng(hops)
    for rows in (1, 3):
        signals = dict(
            zip(names, (x.numpy() for x in example_inputs(generator, rows, hops)), strict=True)
        )
        signals |= {
            name: (0.3 * random.standard_normal(value.shape)).astype(np.float32)
            for name, value in signals.items()
            if name.startswith("state.velocity")
        }
        for ours, theirs in zip(after.run(None, signals), before.run(None, signals), strict=True):
            scale = max(1.0, float(np.abs(theirs).max()))
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() <= TOLERANCE * scale


def test_windows_are_not_pooled_and_the_past_is_not_reordered(graphs, tmp_path, open_graph):
    path = tmp_path / "opened.onnx"
    _, traced, rewritten = graphs

    def is_slow(node: onnx.NodeProto) -> bool:
        reorders = any(list(one.ints) in ([0, 2, 1, 3], [0, 2, 3, 1]) for one in node.attribute)
        return node.op_type == "AveragePool" or (reorders and "transform" not in node.name)

    def slow_nodes(model: onnx.ModelProto) -> list[str]:
        open_graph(model, 1, str(path), is_batch_fixed=False)
        return [node.op_type for node in onnx.load(path).graph.node if is_slow(node)]

    assert sorted(set(slow_nodes(traced))) == ["AveragePool", "Transpose"]
    assert slow_nodes(rewritten) == []


def test_a_graph_in_these_forms_stays_as_it_is(graphs):
    again = onnx.ModelProto.FromString(graphs[2].SerializeToString())
    use_faster_forms(again)
    assert again == graphs[2]


@pytest.mark.parametrize("readers", ["none", "two"])
def test_attention_of_another_form_stays_as_it_is(graphs, readers):
    """As an older graph may have it: scores that lead nowhere, or that something else reads."""
    other = onnx.ModelProto.FromString(graphs[1].SerializeToString())
    softmax = next(node for node in other.graph.node if node.op_type == "Softmax")
    if readers == "two":
        other.graph.node.add(op_type="Identity", input=[softmax.input[0]], output=["also"])
        other.graph.output.add(name="also")
    else:
        softmax.input[0] = other.graph.input[0].name
    use_faster_forms(other)
    kinds = {node.op_type for node in other.graph.node}
    assert "AveragePool" not in kinds
    assert softmax.output[0] in {name for node in other.graph.node for name in node.output}


def test_no_weight_is_changed(graphs):
    _, traced, rewritten = graphs
    before, after = (
        {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        for model in (traced, rewritten)
    )
    for name, value in before.items():
        if value.dtype == np.float32 and value.size > 1:
            assert np.array_equal(after[name], value)


@pytest.mark.parametrize("name", ["small", "small-int8"])
def test_bundled_models_have_these_forms(name):
    model = onnx.load(find_model(name).path)
    before = model.SerializeToString()
    use_faster_forms(model)
    assert model.SerializeToString() == before

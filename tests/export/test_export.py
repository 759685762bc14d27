"""Export: the parity chain, the metadata, the file, and what goes wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from small_run import SMALLEST_CHANGES  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rtsr.cli.app import app  # noqa: E402
from rtsr.errors import ModelError, RtsrError  # noqa: E402
from rtsr.model import CONFIGURATIONS  # noqa: E402
from rtsr.model.generator import seeded  # noqa: E402
from rtsr.model.streaming import flatten  # noqa: E402
from rtsr.runtime.metadata import check_checksum  # noqa: E402
from rtsr.runtime.providers.open_session import SessionShape, session_options  # noqa: E402
from rtsr_export import parity as chain  # noqa: E402
from rtsr_export.branches import every_node  # noqa: E402
from rtsr_export.graph import build_graph, weights_sha256  # noqa: E402
from rtsr_export.graph_file import read_graph, write_graph  # noqa: E402
from rtsr_export.step_parity import StepParity  # noqa: E402

FRAMES = 208


@pytest.fixture(scope="module", params=sorted(CONFIGURATIONS))
def exported(request):
    generator = seeded(CONFIGURATIONS[request.param], 5).eval()
    return generator, build_graph(generator, {"licence": "CC0-1.0", "version": "9"})


@pytest.fixture(scope="module")
def signals_and_reference(exported):
    signals = chain.parity_signals(exported[0], 2, FRAMES, 1)
    return signals, chain.torch_long(exported[0], signals)


@pytest.mark.parametrize(
    "change",
    [
        {"level_window": 2, "kernel": 2, "attention_window": 2},
        {"encoder_blocks": 0, "flow_blocks": 0, "decoder_blocks": 0},
        {"gain_bands": 1, "envelope_points": 1, "expansion": 1},
        {"level_memory": 1, "predictor_memory": 1},
    ],
)
def test_the_smallest_sizes_run_hop_by_hop_as_in_one_block(make_generator, change):
    generator = make_generator(**{**SMALLEST_CHANGES, **change})
    signals = chain.parity_signals(generator, 1, 6, 0)
    expected = chain.torch_long(generator, signals)
    found = chain.torch_hops(generator, signals)
    assert np.abs(found - expected).max() < 1e-4 * max(1e-3, np.abs(expected).max())


@pytest.mark.parametrize("hops", chain.HOPS_PER_STEP)
def test_onnx_hop_by_hop_equals_torch_long_block(exported, signals_and_reference, hops):
    generator, model = exported
    signals, reference = signals_and_reference
    output = chain.onnx_hops(model, generator, signals, hops)
    scale = np.sqrt(np.mean(reference**2))
    assert np.abs(output - reference).max() < chain.TOLERANCE * scale


@pytest.mark.slow
@pytest.mark.parametrize("hops", chain.HOPS_PER_STEP)
def test_torch_hop_by_hop_equals_torch_long_block(exported, signals_and_reference, hops):
    signals, reference = signals_and_reference
    output = chain.torch_hops(exported[0], signals, hops)
    scale = np.sqrt(np.mean(reference**2))
    assert np.abs(output - reference).max() < chain.TOLERANCE * scale


def test_parity_notices_a_graph_with_other_weights(exported):
    generator, model = exported
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for weights in other.graph.initializer:
        if weights.name.endswith("decoder.head.bias"):
            values = onnx.numpy_helper.to_array(weights) + 0.01
            weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    with pytest.raises(RtsrError, match="differs from the model"):
        chain.require_parity(chain.measure_parity(generator, other, frames=32))


@pytest.mark.parametrize("hops", [1, 4, 16])
def test_parity_notices_what_is_no_number(hops):
    found = dict.fromkeys((1, 4, 16), 1e-6)
    chain.require_parity(chain.Parity(1e-6, found))
    with pytest.raises(RtsrError, match="by nan of the signal"):
        chain.require_parity(chain.Parity(1e-6, found | {hops: math.nan}))


def test_parity_of_steps_notices_what_is_no_number():
    assert math.isnan(StepParity(200, 0.0, math.nan, True).worst)
    assert math.isnan(StepParity(200, math.nan, 0.0, True).worst)


def test_a_constant_is_the_right_factor_of_its_product(exported):
    """On a GPU, one on the left costs a table of addresses per product."""
    _, model = exported
    sizes = {weights.name: len(weights.dims) for weights in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(products) > 20
    for product in products:
        left, right = product.input
        assert left not in sizes
        assert sizes.get(right, 2) == 2


def test_metadata_is_enough_to_run_the_file(exported):
    generator, model = exported
    entries = {entry.key: entry.value for entry in model.metadata_props}
    facts = json.loads(entries["rtsr"])
    assert facts["latency_samples"] == 600
    assert facts["licence"] == "CC0-1.0"
    assert facts["weights_sha256"] == weights_sha256(generator)
    states = {
        value.name.removeprefix("state.")
        for value in model.graph.input
        if value.name.startswith("state.")
    }
    assert states == set(facts["states"]) == set(flatten(generator.initial_state(1)))
    outputs = {value.name.removeprefix("next.") for value in model.graph.output[1:]}
    assert outputs == states


def test_no_complex_operator_and_one_question_for_all_branches(exported):
    nodes = list(every_node(exported[1].graph.node))
    forbidden = {"Loop", "Scan", "DFT", "STFT", "RandomNormal", "Complex"}
    assert forbidden.isdisjoint({node.op_type for node in nodes})
    conditions = {node.input[0] for node in nodes if node.op_type == "If"}
    assert len(conditions) == 1


@pytest.mark.parametrize("hops", chain.HOPS_PER_STEP)
def test_a_session_keeps_one_way_of_each_branch(exported, tmp_path, hops):
    """What the run-time opens has no branch left, and a single hop takes the fewest operations."""
    import onnxruntime

    shape = SessionShape(batch=1, hops=hops, threads=1)
    options = session_options(onnxruntime, shape)
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    content = exported[1].SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "opened.onnx").graph.node]
    assert "If" not in operators
    # Windows and comparisons of frames with frames are for blocks.
    assert ("CumSum" in operators) == (hops > 1)
    assert operators.count("Gather") <= (1 if hops == 1 else 40)


def test_weights_hash_depends_on_the_weights():
    config = replace(CONFIGURATIONS["small"], encoder_width=24, decoder_width=24)
    assert weights_sha256(seeded(config, 1)) == weights_sha256(seeded(config, 1))
    assert weights_sha256(seeded(config, 1)) != weights_sha256(seeded(config, 2))


def test_a_written_graph_knows_its_checksum(exported, tmp_path):
    target = tmp_path / "model.onnx"
    write_graph(exported[1], target)
    check_checksum(target)
    other = onnx.load(target)
    other.graph.doc_string = "another graph"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="changed or damaged"):
        check_checksum(tmp_path / "other.onnx")
    assert read_graph(target) == onnx.load(target)


def test_a_damaged_file_is_not_read_to_be_written_with_a_new_checksum(exported, tmp_path):
    target = tmp_path / "model.onnx"
    write_graph(exported[1], target)
    data = bytearray(target.read_bytes())
    weights = max(exported[1].graph.initializer, key=lambda one: len(one.raw_data)).raw_data
    data[data.index(weights) + len(weights) // 2] ^= 1
    target.write_bytes(data)
    onnx.checker.check_model(onnx.load(target))  # still a whole graph, with another weight
    with pytest.raises(ModelError, match="changed or damaged"):
        read_graph(target)
    output = tmp_path / "half.onnx"
    arguments = ["export", str(target), str(output), "--precision", "fp16"]
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert not output.exists()


def test_a_failed_write_leaves_nothing(exported, tmp_path, monkeypatch):
    target = tmp_path / "model.onnx"
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OSError, match="No space"):
        write_graph(exported[1], target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ceiling", ["0", "499", "24001", "nan", "inf"])
def test_a_ceiling_that_no_output_has_is_said_before_anything_is_exported(tmp_path, ceiling):
    arguments = [
        "export",
        str(tmp_path / "run.pt"),
        str(tmp_path / "m.onnx"),
        f"--ceiling={ceiling}",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "between 500 and 24000 Hz" in result.stderr


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"made": "by hand", "version": "0.8.0"}, "says version, which --version says"),
        (
            {"licence": "MIT", "f_target_default": 48000.0, "training": {"minutes": 1}},
            "says licence, f_target_default, training, which --licence, --ceiling, the checkpoint",
        ),
    ],
)
def test_a_card_does_not_say_otherwise_than_options_and_run(tmp_path, card, said):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card))
    arguments = ["export", str(tmp_path / "last.pt"), str(tmp_path / "m.onnx"), "--card", str(path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"{path} {said}" in result.stderr


@pytest.mark.parametrize(
    "metrics",
    [
        "good",
        {"8 kHz": {"visqol": 3.0}},
        {"clips": 5, "8 kHz": {"visqol": [3.0]}},
        {"clips": "ten", "8 kHz": {"visqol": [3.0], "lsd": None}},
        {"8 kHz": 3.0},
        {"8 kHz": [3.0, 2.0]},
        {"8 kHz": {"visqol": [3.0, "good"]}},
        {"8 kHz": {"visqol": [True]}},
        {"clips": "ten", "note": "by hand"},
    ],
)
def test_a_card_whose_metrics_cannot_be_shown_is_refused(tmp_path, metrics):
    path = tmp_path / "card.json"
    path.write_text(json.dumps({"made": "by hand", "metrics": metrics}))
    arguments = ["export", str(tmp_path / "last.pt"), str(tmp_path / "m.onnx"), "--card", str(path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"The metrics of the card {path} are not what can be shown" in result.stderr

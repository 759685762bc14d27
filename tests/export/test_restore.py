"""From a graph back to a checkpoint: it computes the same, and it can be trained on."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from small_run import SMALLEST_CHANGES, TINY, corpus  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rtsr.cli.app import app  # noqa: E402
from rtsr.errors import RtsrError  # noqa: E402
from rtsr.model.config import configuration  # noqa: E402
from rtsr.model.generator import seeded  # noqa: E402
from rtsr.runtime.metadata import read_metadata  # noqa: E402
from rtsr.runtime.models import bundled, bundled_octaves  # noqa: E402
from rtsr.train.checkpoint import load_generator  # noqa: E402
from rtsr.train.trainer import CHECKPOINT, Trainer  # noqa: E402
from rtsr_export import step_sizes  # noqa: E402
from rtsr_export.branches import every_node  # noqa: E402
from rtsr_export.graph import build_graph  # noqa: E402
from rtsr_export.graph_file import write_graph  # noqa: E402
from rtsr_export.half import to_float16, to_float32  # noqa: E402
from rtsr_export.parity import parity_signals, torch_long  # noqa: E402
from rtsr_export.restore import restore, restore_checkpoint  # noqa: E402

SIZES = {**SMALLEST_CHANGES, "decoder_blocks": 2, "level_blocks": 3, "level_memory": 5}
# What is fitted to a trained model is no part of what is trained.
SHIPPED = configuration("small", predictor_rank=12, predictor_other_trust=0.7)
FACTS = {"stage": "refinement", "minutes": 7.0}


@pytest.fixture(scope="module")
def generator(make_generator):
    return make_generator(**SIZES)


@pytest.fixture(scope="module")
def graph(generator):
    return build_graph(generator, {"training": FACTS})


@pytest.fixture
def graph_file(graph, tmp_path):
    write_graph(graph, tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def difference(first, second):
    signals = parity_signals(first, 1, 60, 1)
    expected, computed = torch_long(first, signals), torch_long(second, signals)
    return np.abs(computed - expected).max() / np.sqrt(np.mean(np.square(expected)))


@pytest.mark.slow
@pytest.mark.parametrize("free_bins", [True, False])
def test_the_restored_generator_computes_the_same(make_generator, free_bins):
    generator = make_generator(**SIZES, decoder_free_bins=free_bins)
    restored = restore(build_graph(generator), generator.config)
    assert difference(generator, restored) < 1e-4
    weights, before = restored.state_dict(), generator.state_dict()
    scaled = [name for name in weights if re.search(r"scale|blocks.*narrow", name)]
    # Three of each block: one of the encoder, two of the decoder, three of the level path.
    assert len(scaled) == 21
    assert all(torch.equal(weights[name], before[name]) for name in weights if name not in scaled)


def test_half_precision_is_restored_as_far_as_it_was_kept(generator, graph):
    model = onnx.ModelProto.FromString(graph.SerializeToString())
    to_float16(model)
    to_float32(model)
    assert 1e-6 < difference(generator, restore(model, generator.config)) < 0.1


def test_rows_are_as_large_as_those_of_a_fresh_layer(generator, graph):
    weights = restore(graph, generator.config).state_dict()
    fresh = seeded(generator.config, 0).state_dict()["decoder.blocks.0.narrow.weight"]
    rows = weights["decoder.blocks.0.narrow.weight"].square().mean(dim=1).sqrt()
    torch.testing.assert_close(rows, fresh.square().mean().sqrt().expand(12), rtol=0.2, atol=0.0)


def test_a_graph_of_another_layout_is_refused(graph):
    wider = configuration("small", **{**SIZES, "decoder_width": 16})
    with pytest.raises(RtsrError, match="the layout that this version exports"):
        restore(graph, wider)


@pytest.mark.slow
def test_training_goes_on_from_it_without_a_teacher(generator, graph_file, tmp_path):
    checkpoint = tmp_path / "start.pt"
    restore_checkpoint(graph_file, read_metadata(graph_file), checkpoint)
    settings = replace(TINY, model_changes=SIZES, distillation_every=1, steps=(1, 1, 1, 1))
    trainer = Trainer(settings, corpus(), corpus(), tmp_path / "run", "cpu")
    trainer.grow_from(checkpoint)
    trainer.run(math.inf)
    assert trainer.steps == [0, 0, 1, 1]
    trained, facts = load_generator(tmp_path / "run" / CHECKPOINT)
    assert difference(generator, trained) > 1e-4
    assert facts["grown_from"]["minutes"] == 7.0
    assert facts["grown_from"]["restored"] == "small 0, fp32"
    assert Trainer(settings, corpus(), corpus(), tmp_path / "run", "cpu").resume()


@pytest.mark.slow
def test_it_is_no_run_to_go_on_with(graph_file, tmp_path):
    restore_checkpoint(graph_file, read_metadata(graph_file), tmp_path / CHECKPOINT)
    trainer = Trainer(replace(TINY, model_changes=SIZES), corpus(), corpus(), tmp_path, "cpu")
    with pytest.raises(RtsrError, match="begin one with --grow-from"):
        trainer.resume()


def exported(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.mark.slow
def test_the_shipped_weights_can_be_had_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As a run of that name leaves it.
    (tmp_path / "small").mkdir()
    result = exported("small", "start.pt")
    assert result.exit_code == 0, result.output
    assert "--model small --grow-from start.pt" in result.output
    generator, facts = load_generator(tmp_path / "start.pt")
    assert generator.config == SHIPPED
    assert facts["restored"].startswith("small ")


@pytest.mark.slow
def test_half_precision_of_the_shipped_model_is_restored(tmp_path, monkeypatch):
    # What the conversion costs is measured by tests of its own.
    monkeypatch.setattr(step_sizes, "CUTOFFS_HZ", (4000.0,))
    half = tmp_path / "half.onnx"
    result = exported("small", half, "--precision", "fp16")
    assert result.exit_code == 0, result.output
    result = exported(half, tmp_path / "start.pt")
    assert result.exit_code == 0, result.output
    generator, facts = load_generator(tmp_path / "start.pt")
    assert generator.config == SHIPPED
    assert facts["restored"].endswith(", fp16")


@pytest.mark.parametrize("name", [*bundled(), *bundled_octaves()])
def test_a_bundled_model_is_converted_by_name(tmp_path, name):
    assert "Say with --precision" in exported(name, tmp_path / "copy.onnx").stderr


def test_a_graph_is_not_replaced_by_what_it_is_converted_to(graph_file, tmp_path):
    before = graph_file.read_bytes()
    link = tmp_path / "link.onnx"
    link.symlink_to(graph_file)
    for output in (graph_file, link):
        result = exported(graph_file, output, "--precision", "fp16")
        assert result.exit_code == 2
        assert "are the same file" in result.stderr
    assert graph_file.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("small-int8", "start.pt", "cannot be trained on"),
        ("small", "start.bin", "must end in .onnx, or in .pt to be restored"),
        ("small", "absent/start.pt", "There is no folder"),
        ("run.pt", "start.pt", "start.pt cannot be made of run.pt: a bundled model"),
        ("replicate", "start.pt", "cannot be made of replicate"),
        ("absent.onnx", "start.pt", "does not exist"),
    ],
)
def test_what_cannot_be_restored_is_refused(tmp_path, source, target, says):
    result = exported(source, tmp_path / target)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
    assert not (tmp_path / target).exists()


def test_a_run_is_never_overwritten(tmp_path):
    run = tmp_path / CHECKPOINT
    run.write_bytes(b"hours of training")
    result = exported("small", run)
    assert result.exit_code == 2
    assert "is there already and may be a run" in result.stderr
    assert run.read_bytes() == b"hours of training"


@pytest.mark.parametrize("option", [("--precision", "fp16"), ("--triton", "repository")])
def test_options_of_exports_are_refused(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    result = exported("small", "start.pt", *option)
    assert result.exit_code == 2
    assert f"leave out {option[0]}" in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_what_never_reached_its_refinement_is_refused(generator, tmp_path):
    file = tmp_path / "early.onnx"
    write_graph(build_graph(generator, {"training": {"stage": "flow"}}), file)
    with pytest.raises(RtsrError, match="exported before its refinement"):
        restore_checkpoint(file, read_metadata(file), tmp_path / "start.pt")


def test_a_configuration_of_another_version_is_refused(graph_file, tmp_path):
    facts = read_metadata(graph_file)
    newer = replace(facts, configuration={**facts.configuration, "wings": 2})
    with pytest.raises(RtsrError, match="of another version of rtsr: unknown model settings"):
        restore_checkpoint(graph_file, newer, tmp_path / "start.pt")
    assert not (tmp_path / "start.pt").exists()


@pytest.mark.slow
def test_numbers_of_another_layout_do_not_matter(graph, generator):
    """The exporter numbers what has no name; a node more before it, and all are others."""
    other = onnx.ModelProto()
    other.CopyFrom(graph)

    def renumbered(name: str) -> str:
        match = re.fullmatch(r"(onnx::\w+_)(\d+)", name)
        return f"{match[1]}{int(match[2]) + 7}" if match else name

    for one in other.graph.initializer:
        one.name = renumbered(one.name)
    for node in every_node(other.graph.node):
        node.input[:] = [renumbered(name) for name in node.input]
    signals = parity_signals(generator, 1, 20, 0)
    expected = torch_long(generator, signals)
    found = torch_long(restore(other, generator.config), signals)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    names = [one.name for one in other.graph.initializer]
    [first, *_] = [n for n, name in enumerate(names) if name.startswith("onnx::MatMul")]
    del other.graph.initializer[first]
    with pytest.raises(RtsrError, match="the layout that this version exports"):
        restore(other, generator.config)


@pytest.mark.slow
def test_the_shipped_model_can_be_trained_on(tmp_path):
    done = CliRunner().invoke(app, ["export", "small", str(tmp_path / "start.pt")])
    assert done.exit_code == 0, done.stderr
    assert load_generator(tmp_path / "start.pt")[1]["stage"] in ("levels", "refinement")

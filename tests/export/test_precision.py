"""Other precisions: the arithmetic, the seams to the run-time, what each costs, what is refused."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rtsr import ModelError, RtsrError, Upsampler  # noqa: E402
from rtsr.cli.app import app  # noqa: E402
from rtsr.errors import ProviderError  # noqa: E402
from rtsr.model import CONFIGURATIONS  # noqa: E402
from rtsr.model.generator import seeded  # noqa: E402
from rtsr.runtime.models import find_model  # noqa: E402
from rtsr.runtime.session import OnnxStep  # noqa: E402
from rtsr_export import parity as chain  # noqa: E402
from rtsr_export import precision as conversion  # noqa: E402
from rtsr_export import step_sizes  # noqa: E402
from rtsr_export.calibration import Range, choose_range  # noqa: E402
from rtsr_export.folding import fold_constants  # noqa: E402
from rtsr_export.graph import build_graph  # noqa: E402
from rtsr_export.graph_file import write_graph  # noqa: E402
from rtsr_export.precision import Cost, convert, measure_cost, require_low_cost  # noqa: E402
from rtsr_export.products import find_products  # noqa: E402
from rtsr_export.quantize import WEIGHT_LIMIT, quantize_weights  # noqa: E402
from rtsr_export.recordings import band_limited, packaged_recordings  # noqa: E402
from rtsr_export.step_sizes import StepDifference, largest, measure_step_sizes  # noqa: E402

CONVERTED = ("fp16", "int8")
# Of the high band's level: what rounding may change. Eight bits come with 34 dB on real sound.
LARGEST_NOISE_DB = {"fp16": -60.0, "int8": -25.0}


@pytest.fixture(scope="module")
def generator():
    return seeded(CONFIGURATIONS["small"], 5).eval()


@pytest.fixture(scope="module")
def full(generator):
    return build_graph(generator, {"version": "9", "licence": "CC0-1.0"})


@pytest.fixture(scope="module")
def converted(full):
    return {precision: convert(full, precision) for precision in CONVERTED}


@pytest.fixture(scope="module")
def files(full, converted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("precisions")
    for name, model in {"net": full, **{f"net-{p}": m for p, m in converted.items()}}.items():
        write_graph(model, folder / f"{name}.onnx")
    return folder


def _decibels(difference: np.ndarray, signal: np.ndarray) -> float:
    return float(10.0 * np.log10(np.mean(difference**2) / np.mean(signal**2)))


def _streamed(path: Path, audio: np.ndarray, noise: np.ndarray, hops: int = 1) -> np.ndarray:
    """``(batch, 1, samples)`` through a session of its own, ``hops`` hops per step."""
    batch = len(audio)
    step = OnnxStep(path, provider="cpu", batch=batch, hops_per_step=hops)
    step.f_prior[...] = 4000.0
    blocks = []
    for first in range(0, noise.shape[2], hops):
        step.audio[...] = audio[:, :, first * 480 : (first + hops) * 480]
        step.noise[...] = noise[:, :, first : first + hops]
        blocks.append(step.run().copy())
    return np.concatenate(blocks, axis=2)


@pytest.fixture(scope="module")
def sound(generator):
    """Three streams of real, band-limited sound at different levels, and their noise."""
    frames = 120
    recordings = list(packaged_recordings().values())
    parts = [
        recordings[i % 2][4800 * i :][: frames * 480] * gain
        for i, gain in enumerate((1, 0.01, 0.2))
    ]
    audio = np.stack([band_limited(part, 4000.0) for part in parts])[:, None]
    noise = np.random.default_rng(0).standard_normal(
        (len(parts), generator.config.noise_channels, frames), np.float32
    )
    return audio.astype(np.float32), noise


@pytest.mark.parametrize("precision", CONVERTED)
def test_streamed_sound_is_that_of_the_full_model(files, sound, precision):
    reference = _streamed(files / "net.onnx", *sound)
    output = _streamed(files / f"net-{precision}.onnx", *sound)
    for stream in range(len(output)):  # the quiet stream no worse than the loud one
        noise = _decibels(output[stream] - reference[stream], reference[stream])
        assert noise < LARGEST_NOISE_DB[precision]


@pytest.mark.parametrize("hops", [2, 4])
@pytest.mark.parametrize("precision", CONVERTED)
def test_hops_per_step_do_not_matter(files, sound, precision, hops):
    path = files / f"net-{precision}.onnx"
    reference = _streamed(path, *sound)
    # A value on the edge between two codes may fall to either side.
    assert _decibels(_streamed(path, *sound, hops) - reference, reference) < -30.0


def test_steps_that_differ_are_refused():
    same = StepDifference("music", 4000.0, 2, -155.0)
    edge = StepDifference("speech", 8000.0, 4, -64.0)
    assert largest([same, edge, same]) is edge
    for db in (-30.0, float("nan")):
        with pytest.raises(ModelError, match=r"speech at 8000 Hz differs by .* 1 and 4 hops"):
            largest([replace(edge, db=db), same])
        with pytest.raises(ModelError, match="speech"):
            largest([same, replace(edge, db=db), same])


@pytest.mark.slow
def test_a_range_taken_over_the_frames_of_a_step_is_found_out(full, converted, monkeypatch):
    """What fixed ranges are for: with dynamic ones a step's frames share one."""
    from onnxruntime.quantization import quantize_dynamic

    monkeypatch.setattr(step_sizes, "CUTOFFS_HZ", (4000.0,))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.onnx" for name in ("full", "dynamic")]
        write_graph(full, paths[0])
        quantize_dynamic(paths[0], paths[1], op_types_to_quantize=["MatMul"])
        dynamic = onnx.load(paths[1])
    differences = measure_step_sizes(dynamic)
    with pytest.raises(ModelError, match=r"differs by .* dB of the high band"):
        largest(differences)
    assert largest(measure_step_sizes(converted["int8"])).db < min(one.db for one in differences)


@pytest.mark.parametrize("precision", CONVERTED)
def test_a_stream_does_not_hear_its_neighbours(files, sound, precision):
    audio, noise = sound
    path = files / f"net-{precision}.onnx"
    together = _streamed(path, audio, noise)
    louder = np.concatenate([audio[:1] * 3.0, audio[1:]])
    assert np.array_equal(_streamed(path, louder, noise)[1:], together[1:])


@pytest.mark.parametrize("precision", CONVERTED)
def test_inputs_outputs_and_state_stay_float32(full, converted, precision):
    def interface(model: Any) -> list[Any]:
        return [*model.graph.input, *model.graph.output]

    assert interface(converted[precision]) == interface(full)
    kinds = {value.type.tensor_type.elem_type for value in interface(converted[precision])}
    assert kinds == {TensorProto.FLOAT}


@pytest.mark.parametrize(("precision", "size"), [("fp16", 0.55), ("int8", 0.33)])
def test_files_are_smaller_and_say_what_they_are(files, precision, size):
    bytes_of = {path.stem: path.stat().st_size for path in files.iterdir()}
    assert bytes_of[f"net-{precision}"] < size * bytes_of["net"]
    facts = find_model(files / f"net-{precision}.onnx").metadata
    original = find_model(files / "net.onnx").metadata
    assert (original.precision, facts.precision) == ("fp32", precision)
    assert replace(facts, precision="fp32") == original


@pytest.mark.parametrize("precision", CONVERTED)
def test_nearly_all_weights_are_converted(full, converted, precision):
    kept = sum(
        int(np.prod(one.dims))
        for one in converted[precision].graph.initializer
        if one.data_type == TensorProto.FLOAT
    )
    products = sum(int(np.prod(one.dims)) for one in full.graph.initializer if len(one.dims) == 2)
    # A third of what is kept are constants, bands and transforms; a sixth are linear shortcuts.
    assert kept < 0.055 * products
    assert not find_products(converted[precision])


@pytest.mark.slow
def test_conversion_is_reproducible(full, converted):
    # The metadata beside the graph hold its checksum once a file was written.
    again = convert(full, "int8")
    assert again.graph.SerializeToString() == converted["int8"].graph.SerializeToString()


def test_weights_stay_within_what_any_processor_adds_up():
    weights = np.random.default_rng(0).standard_normal((96, 40)).astype(np.float32)
    weights[:, 3] = 0.0
    codes, scales = quantize_weights(weights)
    assert np.abs(codes).max() <= WEIGHT_LIMIT
    assert 2 * 255 * WEIGHT_LIMIT < 2**15
    assert np.abs(codes * scales - weights).max() <= 0.5 * scales.max() * 1.001
    assert not codes[:, 3].any()


@pytest.mark.parametrize("offset", [0.0, 4.0, -4.0])
def test_ranges_cover_what_was_seen_and_hold_zero(offset):
    values = np.random.default_rng(0).uniform(-1.0, 1.0, 20_000).astype(np.float32) + offset
    code = choose_range(values)
    low, high = (
        -float(code.scale) * int(code.zero_point),
        float(code.scale) * (255 - int(code.zero_point)),
    )
    assert low <= min(values.min(), 0.0) + 0.05 * (1.0 + abs(offset))
    assert high >= max(values.max(), 0.0) - 0.05 * (1.0 + abs(offset))


def test_rare_extremes_are_clipped():
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    values[0] = 12.0
    code = choose_range(values)
    assert float(code.scale) * (255 - int(code.zero_point)) < 11.0


def test_nothing_but_zeros_still_has_a_code():
    assert choose_range(np.zeros(100, np.float32)).scale > 0.0
    assert isinstance(choose_range(np.zeros(100, np.float32)), Range)


def test_folding_keeps_the_function_and_leaves_no_constant_nodes(generator, full):
    nodes = full.graph.node
    assert not [node for node in nodes if node.op_type == "Constant"]
    again = onnx.ModelProto()
    again.CopyFrom(full)
    fold_constants(again)
    assert len(again.graph.node) == len(nodes)
    signals = chain.parity_signals(generator, 1, 8, 0)
    one, other = (chain.onnx_hops(model, generator, signals, 2) for model in (full, again))
    assert np.array_equal(one, other)


def test_folding_merges_equal_constants_and_never_folds_noise():
    constant = numpy_helper.from_array(np.float32([1.0, 2.0]))
    nodes = [
        helper.make_node("Constant", [], ["a"], value=constant),
        helper.make_node("Constant", [], ["b"], value=constant),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("RandomNormal", [], ["r"], shape=[2]),
        helper.make_node("Sum", ["x", "a", "b", "c", "r"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:]))
    fold_constants(model)
    assert [node.op_type for node in model.graph.node] == ["RandomNormal", "Sum"]
    assert list(model.graph.node[1].input) == ["x", "a", "a", "c", "r"]
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    assert sorted(stored) == ["a", "c"]
    assert stored["c"].tolist() == [1.0, 4.0]


@pytest.mark.slow
def test_cost_is_small_and_measured_on_real_sound(full, converted):
    costs = measure_cost(full, converted["int8"])
    assert {cost.clip for cost in costs} == {"music", "speech"}
    require_low_cost(costs)
    assert all(0.0 < abs(cost.moved) < 0.02 for cost in costs)


@pytest.mark.parametrize("moved", [0.03, float("nan")])
def test_a_costly_conversion_is_refused(moved):
    costs = [Cost("music", 8000.0, 1.0, 0.9), Cost("speech", 4000.0, 1.0, 1.0 + moved)]
    with pytest.raises(ModelError, match=r"speech at 4000 Hz goes from 1\.000 to"):
        require_low_cost(costs)


def test_recordings_end_at_the_cutoff():
    narrow = band_limited(packaged_recordings()["music"], 4000.0)
    power = np.abs(np.fft.rfft(narrow * np.hanning(len(narrow)))) ** 2
    frequency = np.fft.rfftfreq(len(narrow), 1.0 / 48_000.0)
    assert power[frequency > 4200.0].max() < 1e-6 * power.max()
    assert power[(frequency > 3000.0) & (frequency < 3500.0)].max() > 1e-6 * power.max()


def test_int8_is_for_the_cpu(files):
    path = str(files / "net-int8.onnx")
    with pytest.raises(ProviderError, match=r"int8, which runs on the CPU only; .*fp32 or fp16"):
        OnnxStep(path, provider="cuda")
    assert OnnxStep(path, provider="auto").provider == "cpu"
    with Upsampler(8000, model=path) as upsampler:
        assert upsampler.process(np.zeros(80, np.float32)).shape == (480,)


@pytest.mark.slow
def test_command_converts_a_file(files, tmp_path):
    output = tmp_path / "net-int8.onnx"
    arguments = ["export", str(files / "net.onnx"), str(output), "--precision", "int8"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "speech up to 4000 Hz: LSD" in result.stdout
    facts = find_model(output).metadata
    assert facts.precision == "int8"
    assert facts.card["version"] == "9"
    assert {row["clip"] for row in facts.card["lsd_after_conversion"]} == {"music", "speech"}
    assert "Steps of 2 to 16 hops differ from steps of 1 by at most -" in result.stdout
    assert facts.card["hops_per_step_differ_db"] < -40.0


@pytest.mark.slow
def test_what_is_in_fp16_can_still_become_int8(converted, files, sound, tmp_path):
    half = converted["fp16"]
    wide = convert(half, "fp32")
    assert not any(one.data_type == onnx.TensorProto.FLOAT16 for one in wide.graph.initializer)
    assert TensorProto.FLOAT16 not in {
        attribute.i for node in wide.graph.node if node.op_type == "Cast"
        for attribute in node.attribute
    }  # fmt: skip
    again = convert(wide, "fp16")
    assert [one.raw_data for one in again.graph.initializer] == [
        one.raw_data for one in half.graph.initializer
    ]
    path = tmp_path / "by-way-of-fp16.onnx"
    write_graph(convert(half, "int8"), path)
    assert find_model(path).metadata.precision == "int8"
    reference = _streamed(files / "net.onnx", *sound)
    for stream, output in enumerate(_streamed(path, *sound)):
        noise = _decibels(output - reference[stream], reference[stream])
        assert noise < LARGEST_NOISE_DB["int8"]


@pytest.mark.parametrize(
    ("source", "arguments", "sentence"),
    [
        ("net.onnx", ["--precision", "int4"], "'int4' is unknown; choose one of fp32, fp16, int8"),
        ("net.onnx", [], "Say with --precision what"),
        ("net-int8.onnx", ["--precision", "fp16"], "is int8 already"),
        ("absent.onnx", ["--precision", "int8"], "does not exist"),
        (
            "net.onnx",
            ["--precision", "fp16", "--version", "9", "--card", "x.json"],
            "net.onnx, which keeps what it says of itself; leave out --version, --card",
        ),
        ("net.onnx", ["--precision", "fp16", "--model", "small"], "leave out --model"),
        ("last.pt", ["--hops", "2", "--rebuild"], "last.pt; leave out --hops, --rebuild"),
        ("last.pt", ["--triton", "repository", "--rebuild"], "for --triton; leave out --rebuild"),
        ("last.pt", ["--engine", "tensorrt", "--device", "cpu"], "leave out --device"),
    ],
)
def test_command_refuses_in_one_sentence(files, tmp_path, source, arguments, sentence):
    target = tmp_path / "out.onnx"
    result = CliRunner().invoke(app, ["export", str(files / source), str(target), *arguments])
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert len(result.stderr.splitlines()) == 1
    assert not target.exists()


def test_a_damaged_graph_is_refused(files, tmp_path):
    damaged = onnx.load(files / "net.onnx")
    del damaged.graph.node[5]
    write_graph(damaged, tmp_path / "damaged.onnx")
    arguments = ["export", str(tmp_path / "damaged.onnx"), str(tmp_path / "out.onnx")]
    result = CliRunner().invoke(app, [*arguments, "--precision", "fp16"])
    assert result.exit_code == 2
    assert "is damaged" in result.stderr


def test_a_graph_without_products_is_refused(stand_in):
    with pytest.raises(ModelError, match="no large product"):
        convert(onnx.load(stand_in), "int8")


def test_missing_recordings_are_named(monkeypatch, tmp_path):
    packaged_recordings.cache_clear()
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    with pytest.raises(RtsrError, match="packaged recordings"):
        packaged_recordings()
    packaged_recordings.cache_clear()


def test_conversion_needs_no_torch(files, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("rtsr_export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    from rtsr_export.graph_file import read_graph
    from rtsr_export.precision import convert as fresh

    model = fresh(read_graph(files / "net.onnx"), "fp16")
    entry = next(one for one in model.metadata_props if one.key == "rtsr")
    assert json.loads(entry.value)["precision"] == "fp16"
    assert conversion.FULL == "fp32"

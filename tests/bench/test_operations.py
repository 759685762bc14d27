"""Counting operations: graphs whose answer is known by hand, and the bundled one against torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper

from rtsr.errors import RtsrError
from rtsr.runtime.models import bundled, find_model
from rtsr_bench import chain_operations as chain
from rtsr_bench.operations import GraphCount, Operations, count_graph
from rtsr_kernels import replicate_design as design

ONE_HOP = {"batch": 1, "frames": 1, "samples": 480}


def graph(
    nodes: Sequence[Any], inputs: dict[str, list[Any]], output: str, **constants: Any
) -> onnx.ModelProto:
    """A float graph with the given inputs by shape; ``name=(kind, shape)`` are constants."""
    declared = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in inputs.items()
    ]
    stored = []
    for name, (kind, shape) in constants.items():
        size = 1
        for length in shape:
            size *= length
        stored.append(helper.make_tensor(name, kind, shape, [1] * size))
    result = helper.make_empty_tensor_value_info(output)
    built = helper.make_graph(list(nodes), "test", declared, [result], stored)
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def count(node: Any, inputs: dict[str, list[Any]], **constants: Any) -> Operations:
    return count_graph(graph([node], inputs, "y", **constants), {}).total


def test_a_matrix_product_is_counted_by_hand() -> None:
    # 2 x 3 rows of 4, times 4 x 5: 30 sums of 4 products
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    found = count(node, {"x": [2, 3, 4]}, w=(TensorProto.FLOAT, [4, 5]))
    assert found == Operations(multiply_accumulates=120, other=0)


def test_a_turned_gemm_sums_over_its_rows() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transA=1, transB=1)
    found = count(node, {"x": [7, 2]}, w=(TensorProto.FLOAT, [3, 7]))
    assert found.multiply_accumulates == 2 * 3 * 7


@pytest.mark.parametrize(("groups", "expected"), [(1, 6 * 8 * 4 * 3), (2, 6 * 8 * 2 * 3)])
def test_a_convolution_is_counted_per_group(groups: int, expected: int) -> None:
    # 10 samples, kernel 3: 8 come out in 6 channels
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups)
    found = count(node, {"x": [1, 4, 10]}, w=(TensorProto.FLOAT, [6, 4 // groups, 3]))
    assert found.multiply_accumulates == expected


def test_a_transposed_convolution_spreads_every_sample() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2])
    found = count(node, {"x": [1, 4, 10]}, w=(TensorProto.FLOAT, [4, 3, 5]))
    assert found.multiply_accumulates == 4 * 10 * 3 * 5


def test_attention_as_einsum() -> None:
    node = helper.make_node("Einsum", ["q", "k"], ["y"], equation="bhqd,bhkd->bhqk")
    found = count(node, {"q": [2, 4, 3, 8], "k": [2, 4, 5, 8]})
    assert found.multiply_accumulates == 2 * 4 * 3 * 5 * 8


def test_an_einsum_with_an_ellipsis_and_one_alone() -> None:
    node = helper.make_node("Einsum", ["q", "k"], ["y"], equation="...ij,...jk->...ik")
    found = count(node, {"q": [2, 3, 4, 5], "k": [2, 3, 5, 6]})
    assert found.multiply_accumulates == 2 * 3 * 4 * 5 * 6
    node = helper.make_node("Einsum", ["q"], ["y"], equation="ij->i")
    assert count(node, {"q": [4, 5]}) == Operations(0, 20)


def test_products_of_codes_count_like_products_of_numbers() -> None:
    quantise = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    product = helper.make_node("MatMulInteger", ["q", "w"], ["y"])
    model = graph(
        [quantise, product],
        {"x": ["batch", 16]},
        "y",
        s=(TensorProto.FLOAT, []),
        z=(TensorProto.UINT8, []),
        w=(TensorProto.INT8, [16, 3]),
    )
    by_operator = count_graph(model, {"batch": 4}).by_operator()
    assert by_operator["MatMulInteger"] == Operations(4 * 3 * 16)
    assert by_operator["QuantizeLinear"] == Operations(0, 2 * 4 * 16)


def depthwise(*more: Any) -> onnx.ModelProto:
    product = helper.make_node("Mul", ["x", "w"], ["p"])
    total = helper.make_node("ReduceSum", ["p", "axis"], ["y"], keepdims=0)
    return graph(
        [product, total, *more],
        {"x": [1, 5, 7, 3]},
        "y",
        w=(TensorProto.FLOAT, [7, 3]),
        axis=(TensorProto.INT64, [1]),
    )


def test_a_product_that_is_summed_at_once_is_a_multiply_accumulate() -> None:
    found = count_graph(depthwise(), {})
    assert found.total == Operations(5 * 7 * 3, 0)
    assert list(found.by_operator()) == ["Mul, ReduceSum"]


def test_a_product_that_others_read_is_not() -> None:
    found = count_graph(depthwise(helper.make_node("Relu", ["p"], ["r"])), {})
    # product, sum and rectifier, one each per value
    assert found.total == Operations(0, 3 * 5 * 7 * 3)


def test_moving_values_costs_nothing_and_a_norm_six_per_value() -> None:
    move = helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0])
    norm = helper.make_node("LayerNormalization", ["t", "g"], ["y"])
    model = graph([move, norm], {"x": [4, 6]}, "y", g=(TensorProto.FLOAT, [4]))
    assert count_graph(model, {}).total == Operations(0, 6 * 24)


def test_what_cannot_be_counted_is_refused() -> None:
    unknown = helper.make_node("Det", ["x"], ["y"])
    with pytest.raises(RtsrError, match="'Det'"):
        count(unknown, {"x": [3, 3]})
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = graph([product], {"x": ["rows", 4]}, "y", w=(TensorProto.FLOAT, [4, 5]))
    with pytest.raises(RtsrError, match="'rows' of unknown size"):
        count_graph(model, {"batch": 1})
    assert count_graph(model, {"rows": 3}).total.multiply_accumulates == 60
    mismatched = graph([product], {"x": [2, 3]}, "y", w=(TensorProto.FLOAT, [4, 5]))
    with pytest.raises(RtsrError, match="does not run"):
        count_graph(mismatched, {})


def products(count: GraphCount) -> float:
    return sum(
        one.multiply_accumulates
        for kind, one in count.by_operator().items()
        if kind.startswith("MatMul")
    )


@pytest.mark.skipif("small" not in bundled(), reason="the model is not bundled in this tree")
def test_the_bundled_graph_does_what_torch_counts_in_the_generator() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from rtsr.model.config import ModelConfig
    from rtsr.model.generator import Generator

    model = find_model("small")
    config = ModelConfig.from_dict(model.metadata.configuration)
    generator = Generator(config).eval()
    noise = torch.zeros(1, config.noise_channels, 1)
    f_prior, f_target = torch.full((1, 1, 1), 4000.0), torch.full((1, 1, 1), 20000.0)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        state = generator.initial_state(1)
        generator.step(torch.zeros(1, 1, 480), noise, f_prior, f_target, state)
    # torch takes a depth-wise filter as a convolution, the graph as a product that is summed
    blocks = config.encoder_width * config.encoder_blocks
    blocks += config.decoder_width * config.decoder_blocks
    blocks += config.level_width * config.level_blocks
    filters = config.kernel * blocks
    found = count_graph(model.path, ONE_HOP)
    assert products(found) == counter.get_total_flops() // 2 - filters
    assert found.by_operator()["Mul, ReduceSum"].multiply_accumulates >= filters
    assert count_graph(model.path, {**ONE_HOP, "batch": 3}).total.multiply_accumulates > (
        2.9 * found.total.multiply_accumulates
    )


@pytest.mark.skipif("small-int8" not in bundled(), reason="the model is not bundled in this tree")
def test_codes_of_eight_bits_save_no_products() -> None:
    exact = count_graph(find_model("small").path, ONE_HOP)
    codes = count_graph(find_model("small-int8").path, ONE_HOP)
    assert products(codes) == products(exact)
    assert codes.total.other > exact.total.other


def test_the_resampler_is_its_taps_and_nothing_at_48_kilohertz() -> None:
    # 56 samples of the narrower rate long, whatever that is
    for rate in (8000, 16000, 24000, 32000):
        assert chain.resampler_operations(rate, 48000) == Operations(56 * 48000)
    assert chain.resampler_operations(48000, 48000) == Operations()


def test_a_transform_of_eight_points_has_twelve_butterflies() -> None:
    assert chain.fourier_operations(8) == Operations(48, 48)
    # one of four points (4 butterflies) and four bins to part
    assert chain.real_fourier_operations(8) == Operations(16 + 16, 16 + 16)


def test_the_replicate_rung_by_hand() -> None:
    cutoff, ceiling = 4000.0, 20000.0
    heard = design.bands_below(cutoff)
    products = 2 * 4 * 512 * 10  # two transforms of 1024 points
    products += 2 * 513  # energies
    products += 23 * heard + 5 * heard * (design.BANDS - heard)  # level, regression
    products += 600 + 8 * int(16000 / 46.875) + 2 * 600  # gate, bins, windows
    found = chain.replication_operations(cutoff, ceiling)
    assert found.multiply_accumulates == products
    assert chain.replication_operations(12000.0, ceiling).other < found.other


def test_the_whole_chain_has_every_part_once() -> None:
    rung = chain.chain_operations(find_model("replicate"), 16000, 8000.0)
    assert rung["input resampler"].multiply_accumulates == 56 * 48000
    # four sections of five products for each sample
    assert rung["crossover high-pass"].multiply_accumulates == 20 * 48000
    expected = 100 * chain.replication_operations(8000.0, 20000.0).multiply_accumulates
    assert rung["band replication"].multiply_accumulates == pytest.approx(expected)
    assert chain.chain_total(rung).multiply_accumulates == pytest.approx(
        sum(one.multiply_accumulates for one in rung.values())
    )


@pytest.mark.skipif("small" not in bundled(), reason="the model is not bundled in this tree")
def test_a_networks_parts_are_the_graph_at_a_hundred_hops_a_second() -> None:
    model = find_model("small")
    parts = chain.chain_operations(model, 48000, 4000.0)
    inside = sum(one.multiply_accumulates for name, one in parts.items() if "graph" in name)
    assert inside == 100 * count_graph(model.path, ONE_HOP).total.multiply_accumulates
    assert parts["input resampler"] == Operations()
    # three transforms of the carriers, one analysis, one synthesis: more than a tenth of it all
    transforms = parts["graph: Fourier transforms"].multiply_accumulates
    assert 0.1 < transforms / inside < 0.5

"""Static int8 quantization: weights per output channel, activations in calibrated ranges.

Only the products with weights are converted: inputs, outputs, state, norms, residual path and
Fourier transforms stay float32. What was chosen, and why:

* **Static ranges.** A dynamic range is taken over the whole tensor that a product reads, and in a
  batch that is over all streams: a loud neighbour would make a quiet stream coarser. With ranges
  fixed at export a stream is the same in any company, and a step needs no search for extremes.
  Features are relative to the running level, so one range fits quiet and loud sound.
* **Weights within +-64**, not +-127: x86 processors without VNNI add two products of a code
  0...255 and a weight in 16 bits, which saturates beyond. The noise of the activations hides the
  bit that this costs (34.4 dB below the signal in both cases), and every processor computes alike.
* **Products as small as 96 x 96**: each pays, if little, at 1 and at 16 streams.

The operator is ONNX Runtime's ``com.microsoft.MatMulIntegerToFloat``, which exists on the CPU.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from rtsr_export.calibration import choose_range, observe
from rtsr_export.products import Product, find_products, replace_nodes

WEIGHT_LIMIT = 64
_DOMAIN = "com.microsoft"


def quantize(model: onnx.ModelProto) -> None:
    """Convert the large products of a graph to 8 bits, in place.

    Raises:
        ModelError: the graph is not one of rtsr's.
        MissingDependencyError: ONNX Runtime, which the ranges are measured with, is missing.
    """
    products = find_products(model)
    ranges = {
        name: choose_range(values)
        for name, values in observe(model, (one.input for one in products)).items()
    }
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    constants: dict[str, NDArray[np.generic]] = {}
    replacements: dict[str, list[onnx.NodeProto]] = {}
    for product in products:
        source = product.input
        nodes = []
        if f"{source}.scale" not in constants:
            constants[f"{source}.scale"] = np.asarray(ranges[source].scale)
            constants[f"{source}.zero_point"] = np.asarray(ranges[source].zero_point)
            nodes.append(_codes(source))
        if f"{product.weight}.codes" not in constants:
            codes, scales = quantize_weights(weights[product.weight])
            constants[f"{product.weight}.codes"] = codes
            constants[f"{product.weight}.scale"] = scales
        nodes.append(_integer_product(product))
        replacements[product.matmul.output[0]] = []
        replacements[product.output] = nodes
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    replace_nodes(model, replacements)
    if _DOMAIN not in {one.domain for one in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def quantize_weights(
    weights: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes and scales of ``(channels_in, channels_out)``: ``weights ~ codes * scales``."""
    scales = np.maximum(np.abs(weights).max(axis=0), 1e-12).astype(np.float32) / WEIGHT_LIMIT
    return np.round(weights / scales).astype(np.int8), scales.astype(np.float32)


def _codes(source: str) -> onnx.NodeProto:
    return helper.make_node(
        "QuantizeLinear",
        [source, f"{source}.scale", f"{source}.zero_point"],
        [f"{source}.codes"],
        name=f"{source}.quantize",
    )


def _integer_product(product: Product) -> onnx.NodeProto:
    source, weight = product.input, product.weight
    return helper.make_node(
        "MatMulIntegerToFloat",
        [
            f"{source}.codes",
            f"{weight}.codes",
            f"{source}.scale",
            f"{weight}.scale",
            f"{source}.zero_point",
            "",  # weights are symmetric
            product.bias,
        ],
        [product.output],
        name=product.matmul.name,
        domain=_DOMAIN,
    )

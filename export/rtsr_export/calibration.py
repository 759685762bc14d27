"""Calibration for int8: ranges of a graph's activations over real sound, band-limited anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from rtsr.runtime.metadata import KEY, ModelMetadata, parse_metadata
from rtsr.runtime.providers.select import load_onnxruntime
from rtsr.timing import HOP
from rtsr_export.recordings import band_limited, packaged_recordings

CUTOFFS_HZ = (2000.0, 3400.0, 5500.0, 8000.0, 11_000.0, 16_000.0)
SILENT_FRAMES = 40
FRAMES = 240
_MOST_VALUES = 60_000
_CLIPPED = np.linspace(1.0, 0.4, 13)
_LEVELS = 255

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Range:
    """An 8-bit code: ``value = scale * (code - zero_point)``, codes 0 to 255."""

    scale: np.float32
    zero_point: np.uint8


def model_facts(model: onnx.ModelProto) -> ModelMetadata:
    """Return the metadata of a graph; raises ModelError when it is not one of rtsr's."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    return parse_metadata(entries.get(KEY, json.dumps(None)), "this graph")


def calibration_inputs(facts: ModelMetadata) -> Iterator[dict[str, Values]]:
    """Yield inputs of a fresh stream, one long block each: every recording at every cutoff.

    Each block begins in the middle of a sound and ends in digital silence, so that both edges of
    the levels that a model meets are in it.
    """
    random = np.random.default_rng(0)
    states = {
        f"state.{name}": np.zeros((1, *shape[1:]), np.float32)
        for name, shape in facts.states.items()
    }
    for samples in packaged_recordings().values():
        for cutoff in CUTOFFS_HZ:
            first = int(random.integers(max(len(samples) // HOP - FRAMES, 1))) * HOP
            sound = band_limited(samples[first : first + FRAMES * HOP], cutoff)
            audio = np.concatenate([sound, np.zeros(SILENT_FRAMES * HOP, np.float32)])
            frames = len(audio) // HOP
            yield {
                "audio": audio[None, None],
                "noise": random.standard_normal((1, facts.noise_channels, frames), np.float32),
                "f_prior": np.full((1, 1, frames), cutoff, np.float32),
                "f_target": np.full((1, 1, frames), facts.f_target_default, np.float32),
                **states,
            }


def observe(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, Values]:
    """Values that the named tensors take over the calibration's sound, evenly thinned out."""
    onnxruntime = load_onnxruntime()
    names = list(dict.fromkeys(names))
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    seen: dict[str, list[Values]] = {name: [] for name in names}
    for inputs in calibration_inputs(model_facts(model)):
        for name, values in zip(names, session.run(names, inputs), strict=True):
            flat = values.reshape(-1)
            # A prime stride samples every channel; the extremes are added in any case.
            thinned = flat[:: _prime_at_least(flat.size // _MOST_VALUES)]
            seen[name].append(np.concatenate([thinned, [flat.min(), flat.max()]]))
    return {name: np.concatenate(parts) for name, parts in seen.items()}


def choose_range(values: Values) -> Range:
    """Return the code with the least mean square error over the values.

    Rare extremes are clipped where that makes all other values finer. Zero always has a code.
    """
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 1e-6)
    candidates = [_range(low * part, high * part) for part in _CLIPPED]
    return min(candidates, key=lambda one: _mean_square_error(values, one))


def _range(low: float, high: float) -> Range:
    scale = np.float32((high - low) / _LEVELS)
    return Range(scale, np.uint8(round(-low / float(scale))))


def _mean_square_error(values: Values, code: Range) -> float:
    zero_point = np.float32(code.zero_point)
    codes = np.clip(np.round(values / code.scale) + zero_point, 0.0, _LEVELS)
    return float(np.mean(np.square((codes - zero_point) * code.scale - values)))


def _prime_at_least(number: int) -> int:
    number = max(number, 1)
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number

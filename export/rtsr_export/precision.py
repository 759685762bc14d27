"""One graph in another precision, and how much of its quality that costs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from rtsr.errors import ArgumentError, ModelError
from rtsr.quality import evaluate
from rtsr.runtime.metadata import KEY
from rtsr.timing import SAMPLE_RATE
from rtsr.upsampler import Upsampler
from rtsr_export.calibration import model_facts
from rtsr_export.dynamic_batch import make_batch_dynamic
from rtsr_export.faster_forms import use_faster_forms
from rtsr_export.folding import fold_constants
from rtsr_export.graph_file import write_graph
from rtsr_export.half import to_float16, to_float32
from rtsr_export.products import find_products
from rtsr_export.quantize import quantize
from rtsr_export.recordings import Samples, band_limited, packaged_recordings
from rtsr_export.step_sizes import StepDifference

FULL, HALF = "fp32", "fp16"
CONVERSIONS: dict[str, Callable[[onnx.ModelProto], None]] = {HALF: to_float16, "int8": quantize}
PRECISIONS = (FULL, *CONVERSIONS)
MOST_LSD = 0.02
CUTOFFS_HZ = (4000.0, 8000.0)


@dataclass(frozen=True)
class Cost:
    """Cost of a conversion on one clip: log-spectral distance to the original, before and after."""

    clip: str
    cutoff_hz: float
    full: float
    converted: float

    @property
    def moved(self) -> float:
        """Positive where the conversion is worse."""
        return self.converted - self.full


def convert(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Return a copy of a graph in another precision; inputs, outputs and state stay float32.

    Args:
        model: in fp32, or in fp16, which is widened first.
        precision: one of ``PRECISIONS``.

    Raises:
        ArgumentError: the precision is unknown, or the graph has it already, or is int8.
        ModelError: the graph is not one of rtsr's.
    """
    check_precision(precision)
    facts = model_facts(model)
    if facts.precision not in (FULL, HALF) or facts.precision == precision == HALF:
        raise ArgumentError(
            f"This model is {facts.precision} already; convert the {FULL} one that it came from."
        )
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    if facts.precision == HALF:
        to_float32(converted)
    fold_constants(converted)
    # Graphs of earlier versions ask for their batch, and are slower.
    make_batch_dynamic(converted.graph)
    use_faster_forms(converted)
    if precision != FULL:
        if not find_products(converted):
            raise ModelError(
                f"Model '{facts.name}' has no large product with weights, so there is nothing to "
                f"convert to {precision}; export its checkpoint again with this version."
            )
        CONVERSIONS[precision](converted)
    set_metadata(converted, precision=precision)
    onnx.checker.check_model(converted)
    return converted


def check_precision(precision: str) -> None:
    """Raise ArgumentError when a precision is unknown."""
    if precision not in PRECISIONS:
        accepted = ", ".join(PRECISIONS)
        raise ArgumentError(f"Precision {precision!r} is unknown; choose one of {accepted}.")


def set_metadata(model: onnx.ModelProto, **changes: object) -> None:
    """Change entries of what a graph says about itself, in place."""
    for entry in model.metadata_props:
        if entry.key == KEY:
            entry.value = json.dumps({**json.loads(entry.value), **changes})


def measure_cost(full: onnx.ModelProto, converted: onnx.ModelProto) -> list[Cost]:
    """Stream the packaged recordings through both models and evaluate both against the original."""
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.onnx" for name in ("full", "converted")]
        for model, path in zip((full, converted), paths, strict=True):
            write_graph(model, path)
        for name, reference in packaged_recordings().items():
            for cutoff in CUTOFFS_HZ:
                narrow = band_limited(reference, cutoff)
                distances = [_distance(path, narrow, reference, cutoff) for path in paths]
                costs.append(Cost(name, cutoff, *distances))
    return costs


def _distance(model: Path, narrow: Samples, reference: Samples, cutoff_hz: float) -> float:
    with Upsampler(SAMPLE_RATE, model=str(model), provider="cpu", cutoff=cutoff_hz) as upsampler:
        output = np.concatenate([upsampler.process(narrow), upsampler.flush()])
        estimate = output[upsampler.latency.algorithmic_samples :]
    return evaluate(reference, estimate, cutoff_hz, ["lsd"])["lsd"]


def require_low_cost(costs: Sequence[Cost]) -> None:
    """Raise ModelError when the distance of any clip grew by more than 0.02."""
    for cost in costs:
        if not cost.moved <= MOST_LSD:
            raise ModelError(
                f"In this precision LSD of the packaged {cost.clip} at {cost.cutoff_hz:g} Hz goes "
                f"from {cost.full:.3f} to {cost.converted:.3f}, by more than {MOST_LSD:g}; "
                "nothing was written."
            )


def note_cost(model: onnx.ModelProto, costs: Sequence[Cost], steps: StepDifference) -> None:
    """Put what a conversion cost into the model's card, in place."""
    card = model_facts(model).card
    rounded = [
        {name: round(x, 5) if isinstance(x, float) else x for name, x in asdict(cost).items()}
        for cost in costs
    ]
    found = {"lsd_after_conversion": rounded, "hops_per_step_differ_db": round(steps.db, 1)}
    set_metadata(model, card={**card, **found})

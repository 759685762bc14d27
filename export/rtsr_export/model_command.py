"""``rtsr export SOURCE OUTPUT``: checkpoints become graphs, graphs other ones or checkpoints."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rtsr.errors import ArgumentError, MissingDependencyError, RtsrError
from rtsr.runtime.card import is_shown_whole
from rtsr.runtime.models import SUFFIX, bundled, bundled_octaves, find_model
from rtsr.whole_file import check_different

if TYPE_CHECKING:
    import onnx

    from rtsr_export.precision import Cost

FULL = "fp32"
CHECKPOINT_SUFFIX = ".pt"
#: What options and the run itself say, by their names in a model card.
SAID_ELSEWHERE = {
    "version": "--version",
    "licence": "--licence",
    "f_target_default": "--ceiling",
    "training": "the checkpoint",
}


@dataclass(frozen=True)
class Facts:
    """What a graph made from a checkpoint says about itself besides its training.

    Attributes:
        ceiling: frequency in Hz where the output ends by default.
        card: JSON file with more facts for the model card.
        mean_with: checkpoints whose mean with the first is exported.
    """

    version: str
    licence: str
    ceiling: float
    card: Path | None = None
    mean_with: tuple[Path, ...] = ()


def export_model(source: Path, output: Path, precision: str, facts: Facts) -> None:
    """Write ``output`` from a checkpoint or, converted, from an fp32 ``.onnx``, and say how it is.

    Raises:
        RtsrError: a file or the precision is not accepted, or the result is not good enough.
        MissingDependencyError: onnx, or torch for a checkpoint, is not installed.
    """
    if output.suffix != SUFFIX:
        raise ArgumentError(
            f"{output} must end in {SUFFIX}, or in {CHECKPOINT_SUFFIX} to be restored."
        )
    _require_folder(output)
    require("onnx", "Exporting a model")
    from rtsr_export.graph_file import read_graph, write_graph
    from rtsr_export.precision import check_precision

    check_precision(precision)
    if is_graph(source):
        source = find_model(source).path
        check_different(source, output)
        if precision == FULL:
            raise ArgumentError(
                f"Say with --precision what {source} is converted to: fp16 or int8."
            )
        model = read_graph(source)
        model, notes = _convert(model, precision)
    else:
        model, notes = _from_checkpoint(source, facts)
        if precision != FULL:
            model, more = _convert(model, precision)
            notes += more
    try:
        write_graph(model, output)
    except OSError as error:
        raise RtsrError(f"Cannot write {output}: {error.strerror}.") from error
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {len(model.graph.node)} nodes.")
    for note in notes:
        typer.echo(note)


def restore_model(source: Path, output: Path) -> None:
    """Write the checkpoint ``output`` from a bundled model or an ``.onnx`` file.

    Raises:
        RtsrError: the source is neither, or cannot be restored, or the output is there already.
        MissingDependencyError: onnx or torch is not installed.
    """
    if not is_graph(source):
        raise ArgumentError(
            f"{output} cannot be made of {source}: a bundled model ({', '.join(_bundled())}) or an "
            f"{SUFFIX} file is restored to a {CHECKPOINT_SUFFIX} file; a checkpoint is exported to "
            f"an {SUFFIX} file."
        )
    _require_folder(output)
    if output.exists():
        raise RtsrError(f"{output} is there already and may be a run; name another file.")
    for package in ("onnx", "torch"):
        require(package, "Restoring a checkpoint")
    from rtsr_export.restore import restore_checkpoint

    model = find_model(source)
    restore_checkpoint(model.path, model.metadata, output)
    name = model.metadata.name
    typer.echo(f"{output}: go on with rtsr train RECORDINGS --model {name} --grow-from {output}")


def is_graph(source: Path) -> bool:
    """Whether a source is a bundled model or an ``.onnx`` file, and no checkpoint."""
    return source.suffix == SUFFIX or (str(source) in _bundled() and not source.is_file())


def _bundled() -> dict[str, Path]:
    return {**bundled(), **bundled_octaves()}


def _require_folder(output: Path) -> None:
    if not output.parent.is_dir():
        raise RtsrError(f"There is no folder {output.parent}; make it first.")


def require(package: str, purpose: str) -> None:
    """Raise MissingDependencyError where a package that a purpose needs is not installed."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(purpose, "train") from error


def _from_checkpoint(checkpoint: Path, facts: Facts) -> tuple[onnx.ModelProto, list[str]]:
    require("torch", "Exporting a checkpoint")
    from rtsr.train.checkpoint import load_generator
    from rtsr_export.graph import build_graph
    from rtsr_export.parity import measure_parity, require_parity

    extra = _extra(facts.card)
    generator, training = load_generator(checkpoint, facts.mean_with)
    content: dict[str, Any] = {
        "version": facts.version,
        "licence": facts.licence,
        "f_target_default": facts.ceiling,
        "training": training,
        **extra,
    }
    model = build_graph(generator, content)
    parity = measure_parity(generator, model)
    require_parity(parity)
    return model, [
        f"The largest difference from the checkpoint over 208 hops is {parity.worst:.1e} of the "
        "signal."
    ]


def _convert(model: onnx.ModelProto, precision: str) -> tuple[onnx.ModelProto, list[str]]:
    from rtsr_export.precision import convert, measure_cost, note_cost, require_low_cost
    from rtsr_export.step_sizes import largest, measure_step_sizes

    converted = convert(model, precision)
    costs = measure_cost(model, converted)
    require_low_cost(costs)
    steps = largest(measure_step_sizes(converted))
    note_cost(converted, costs, steps)
    return converted, [
        *(_line(cost, precision) for cost in costs),
        f"Steps of 2 to 16 hops differ from steps of 1 by at most {steps.db:.0f} dB of the high "
        f"band ({steps.clip} up to {steps.cutoff_hz:g} Hz).",
    ]


def _line(cost: Cost, precision: str) -> str:
    return (
        f"{cost.clip} up to {cost.cutoff_hz:g} Hz: LSD {cost.full:.4f} in {FULL}, "
        f"{cost.converted:.4f} in {precision} ({cost.moved:+.4f})."
    )


def _extra(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise RtsrError(f"Cannot read the card {path}: {error.strerror}.") from error
    except ValueError as error:
        raise RtsrError(f"The card {path} is not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise RtsrError(f"The card {path} must hold one JSON object.")
    # As in a card of `rtsr models --json`, which is what one begins with.
    twice = {name: source for name, source in SAID_ELSEWHERE.items() if name in values}
    if twice:
        raise ArgumentError(
            f"The card {path} says {', '.join(twice)}, which {', '.join(twice.values())} "
            f"{'says' if len(twice) == 1 else 'say'}; leave it out of the card."
        )
    if "metrics" in values and not is_shown_whole(values["metrics"]):
        raise ArgumentError(
            f"The metrics of the card {path} are not what can be shown: they hold a text `clips` "
            "and, by input and metric, a list of medians, as in `rtsr models small --json`."
        )
    return values

"""``rtsr export``: a checkpoint becomes one ``.onnx`` file, checked before it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rtsr.errors import MissingDependencyError, RtsrError


def export_command(
    checkpoint: Annotated[Path, typer.Argument(help="last.pt of a training run.")],
    output: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
    version: Annotated[str, typer.Option("--version", help="Version of the weights.")] = "0.1.0",
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the weights.")
    ] = "Apache-2.0",
    ceiling: Annotated[
        float, typer.Option("--ceiling", help="Where the output ends unless told otherwise, Hz.")
    ] = 22_000.0,
    card: Annotated[
        Path | None, typer.Option("--card", help="JSON file with more facts for the model card.")
    ] = None,
) -> None:
    """Export a trained model to ONNX with explicit state and metadata.

    The graph is compared with the model over 200 hops, in steps of 1, 2 and 4 hops, and only
    written when they agree.
    """
    if output.suffix != ".onnx":
        raise RtsrError(f"{output} must end in .onnx.")
    if not output.parent.is_dir():
        raise RtsrError(f"There is no folder {output.parent}; make it first.")
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("Exporting a model", "train") from error
    from rtsr.train.checkpoint import load_generator
    from rtsr_export.graph import build_graph, write_graph
    from rtsr_export.parity import measure_parity, require_parity

    generator, facts = load_generator(checkpoint)
    content: dict[str, Any] = {
        "version": version,
        "licence": licence,
        "f_target_default": ceiling,
        "training": facts,
        **_extra(card),
    }
    model = build_graph(generator, content)
    parity = measure_parity(generator, model)
    require_parity(parity)
    try:
        write_graph(model, output)
    except OSError as error:
        raise RtsrError(f"Cannot write {output}: {error.strerror}.") from error
    megabytes = output.stat().st_size / 1e6
    typer.echo(
        f"{output}: {megabytes:.1f} MB, {len(model.graph.node)} nodes, "
        f"largest difference {parity.worst:.1e} of the signal over 200 hops."
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
    return values

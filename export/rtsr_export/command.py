"""``rtsr export``: a checkpoint becomes one ``.onnx`` file, a model a repository for a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rtsr.errors import MissingDependencyError, RtsrError


def export_command(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="last.pt of a training run.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Argument(help="The .onnx file to write.", show_default=False)
    ] = None,
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
    triton: Annotated[
        Path | None,
        typer.Option("--triton", help="Write a model repository for Triton Inference Server."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="For --triton: a bundled model or an .onnx file.")
    ] = "small",
    streams: Annotated[
        int, typer.Option("--streams", help="For --triton: streams that are served at once.")
    ] = 256,
    batch: Annotated[
        int, typer.Option("--batch", help="For --triton: streams in one run of the model.")
    ] = 64,
    hops: Annotated[int, typer.Option("--hops", help="For --triton: hops in one request.")] = 1,
    device: Annotated[
        str, typer.Option("--device", help="For --triton: auto, cpu or gpu.")
    ] = "auto",
) -> None:
    """Export a trained model to ONNX, or a model to a repository for an inference server.

    CHECKPOINT OUTPUT writes the graph with explicit state and metadata. It is compared with the
    model over 200 hops, in steps of 1, 2 and 4 hops, and only written when they agree.

    --triton DIR writes a repository that Triton Inference Server can serve, from the graph just
    exported or from --model: sequence batching, with the state kept by the server.
    """
    if checkpoint is None and triton is None:
        raise RtsrError("Say what to export: CHECKPOINT OUTPUT, or --triton DIR.")
    if checkpoint is not None:
        if output is None:
            raise RtsrError(f"Name the .onnx file that {checkpoint} is exported to.")
        _export_checkpoint(checkpoint, output, version, licence, ceiling, card)
        model = str(output)
    if triton is not None:
        _export_repository(triton, model, streams, batch, hops, device)


def _export_repository(
    folder: Path, model: str, streams: int, batch: int, hops: int, device: str
) -> None:
    from rtsr.runtime.models import find_model
    from rtsr_export.triton import Serving, write_repository

    serving = Serving(streams=streams, batch=batch, hops=hops, kind=device)
    entry = write_repository(find_model(model), folder, serving)
    typer.echo(f"{entry}: tritonserver --model-repository={folder}")


def _export_checkpoint(
    checkpoint: Path, output: Path, version: str, licence: str, ceiling: float, card: Path | None
) -> None:
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

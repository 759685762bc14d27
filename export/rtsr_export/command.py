"""``rtsr export``: a checkpoint becomes one ``.onnx`` file, and models what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtsr.cli.given import options_given
from rtsr.errors import ArgumentError

if TYPE_CHECKING:
    from rtsr_export.triton import Serving


# What is said of a graph that is made of a checkpoint, and of a server's repository.
_OF_CHECKPOINT = ("version", "licence", "ceiling", "card", "mean_with")
_OF_REPOSITORY = ("triton_backend", "streams", "device")


def export_command(
    context: typer.Context,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="last.pt of a training run, or a bundled model or .onnx file to convert.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Argument(
            help="The .onnx file to write, or .pt: a graph restored for training.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[str, typer.Option("--version", help="Version of the weights.")] = "0.1.0",
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the weights.")
    ] = "Apache-2.0",
    ceiling: Annotated[
        float, typer.Option("--ceiling", help="Where the output ends by default, Hz.")
    ] = 24_000.0,
    card: Annotated[
        Path | None, typer.Option("--card", help="JSON file with more facts for the model card.")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(
            "--metrics", metavar="quality.json", help="Medians for the card of an .onnx file."
        ),
    ] = None,
    tuned_on: Annotated[
        bool, typer.Option("--tuned-on", help="For --metrics: say that its clips served to tune.")
    ] = False,
    mean_with: Annotated[
        list[Path] | None,
        typer.Option(
            "--mean-with",
            help="Another checkpoint of the run, or of one that went on from it: the mean of the "
            "weights is exported.",
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="Of the weights: fp32, fp16 or int8 (CPU only).")
    ] = "fp32",
    triton: Annotated[
        Path | None,
        typer.Option("--triton", help="Write a model repository for Triton Inference Server."),
    ] = None,
    triton_backend: Annotated[
        str,
        typer.Option(
            "--triton-backend",
            help="For --triton: onnxruntime, or python for a server that has only this one (CPU).",
        ),
    ] = "onnxruntime",
    model: Annotated[
        str,
        typer.Option("--model", help="For --triton, --engine: a bundled model or an .onnx file."),
    ] = "small",
    streams: Annotated[
        int, typer.Option("--streams", help="For --triton: streams that are served at once.")
    ] = 256,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            help="Streams in one run of the model: 64 for --triton. For --engine the channels of "
            "a stream, or the slots of a batch: 1.",
            show_default=False,
        ),
    ] = None,
    hops: Annotated[
        int, typer.Option("--hops", help="Hops in one request to --triton, or step of --engine.")
    ] = 1,
    device: Annotated[
        str, typer.Option("--device", help="For --triton: auto, cpu or gpu.")
    ] = "auto",
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="tensorrt[:OPTION=VALUE]...",
            help="Build this GPU's engine for provider tensorrt; options: device, fp16.",
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="For --engine: even if one that fits is there.")
    ] = False,
) -> None:
    """Export a trained model to ONNX, a model to an inference server, or to an engine for a GPU.

    CHECKPOINT OUTPUT writes the graph with explicit state and metadata. It is compared with the
    model over 208 hops, in steps of 1, 4 and 16 hops, and only written when they agree.

    --precision converts it, or the .onnx given in place of CHECKPOINT; rtsr bench speed looks
    for NAME-fp16.onnx and NAME-int8.onnx beside NAME.onnx. It is only written when LSD of the
    packaged recordings grows by no more than 0.02. int8 is for CPUs: GPUs have no kernels for it.

    --metrics writes the medians that rtsr bench quality found into the card of the .onnx file given
    in place of CHECKPOINT, from where rtsr models shows them; there is no OUTPUT.

    A bundled model or an .onnx file and an OUTPUT that ends in .pt go the other way: a checkpoint
    for rtsr train --grow-from.

    --triton DIR writes a repository that Triton Inference Server can serve, from the graph just
    exported or from --model: sequence batching, with the state kept by the server. --triton-backend
    python has the same inputs and outputs; a model.py runs ONNX Runtime in the server's Python,
    which needs numpy and onnxruntime.

    --engine tensorrt builds what `--provider tensorrt` loads, for the GPU of this machine, which
    takes minutes. It is kept in the user's cache (RTSR_CACHE_DIR) and holds for this GPU, driver
    and version of TensorRT, for this model, and for --batch and --hops.
    """
    if checkpoint is None and triton is None and engine is None:
        raise ArgumentError(
            "Say what to export: CHECKPOINT OUTPUT, or --triton DIR, or --engine tensorrt."
        )
    _check_that_all_apply(context, checkpoint, output, triton is not None, engine is not None)
    if metrics is not None and checkpoint is not None:
        from rtsr_export.report_metrics import report_into_card

        report_into_card(metrics, checkpoint, is_tuned_on=tuned_on)
        return
    serving = None
    if triton is not None:
        from rtsr_export.triton import Serving

        # Before anything is written, which takes minutes from a checkpoint.
        serving = Serving(
            streams=streams,
            batch=64 if batch is None else batch,
            hops=hops,
            kind=device,
            backend=triton_backend,
        )
    if engine is not None or (triton is not None and device == "gpu"):
        _require_for_gpu(model if checkpoint is None else None, precision)
    if checkpoint is not None:
        if output is None:
            raise ArgumentError(f"Name the .onnx file that {checkpoint} is exported to.")
        from rtsr.arguments import check_frequency
        from rtsr_export.model_command import (
            CHECKPOINT_SUFFIX,
            Facts,
            export_model,
            restore_model,
        )

        if output.suffix == CHECKPOINT_SUFFIX:
            restore_model(checkpoint, output)
            return
        check_frequency("ceiling", ceiling)
        facts = Facts(version, licence, ceiling, card, tuple(mean_with or ()))
        export_model(checkpoint, output, precision, facts)
        model = str(output)
    if triton is not None and serving is not None:
        _export_repository(triton, model, serving)
    if engine is not None:
        from rtsr_export.engine_command import export_engine

        export_engine(engine, model, 1 if batch is None else batch, hops, rebuild)


def _check_that_all_apply(
    context: typer.Context, checkpoint: Path | None, output: Path | None, serves: bool, builds: bool
) -> None:
    """Raise :class:`ArgumentError` for options that change nothing of what was asked for."""
    # It loads numba, which help is not to wait for.
    from rtsr_export.model_command import CHECKPOINT_SUFFIX, is_graph

    applying = {"checkpoint", "output", "triton", "engine"}
    if checkpoint is not None and context.params["metrics"] is not None:
        applying = {"checkpoint", "metrics", "tuned_on"}
        what = f"writes metrics into the card of {checkpoint}"
    elif checkpoint is None:
        applying.add("model")
        what = "exports a graph that is there already"
    elif output is not None and output.suffix == CHECKPOINT_SUFFIX:
        applying = {"checkpoint", "output"}
        what = f"restores the checkpoint {output}"
    elif is_graph(checkpoint):
        applying.add("precision")
        what = f"converts {checkpoint}, which keeps what it says of itself"
    else:
        applying.update((*_OF_CHECKPOINT, "precision"))
        what = f"exports {checkpoint}"
    if serves or builds:
        applying.update(("batch", "hops"))
        what += f" for {' and '.join(['--triton'] * serves + ['--engine'] * builds)}"
    applying.update(_OF_REPOSITORY if serves else ())
    applying.update(["rebuild"] if builds else ())
    others = [shown for name, shown in options_given(context).items() if name not in applying]
    if others:
        raise ArgumentError(f"This {what}; leave out {', '.join(others)}.")


def _require_for_gpu(model: str | None, precision: str) -> None:
    """Refuse, before anything is written, what a GPU could not run; ``None`` is a new export."""
    from rtsr.runtime.models import find_model, why_not_on_gpu

    if model is None:
        if precision == "int8":
            raise ArgumentError(
                "--precision int8 runs on the CPU only; GPUs have no kernels for it: for --engine "
                "and --device gpu take fp16 or fp32."
            )
    elif reason := why_not_on_gpu(find_model(model), "--engine and --device gpu"):
        raise ArgumentError(reason)


def _export_repository(folder: Path, model: str, serving: Serving) -> None:
    from rtsr.runtime.models import find_model
    from rtsr_export.triton import write_repository

    entry = write_repository(find_model(model), folder, serving)
    typer.echo(f"{entry}: tritonserver --model-repository={folder}")

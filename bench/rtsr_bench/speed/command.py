"""``rtsr bench speed``: its options."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from rtsr.errors import ArgumentError

_matrix = partial(typer.Option, rich_help_panel="Matrix")
_protocol = partial(typer.Option, rich_help_panel="Protocol")
_peers = partial(typer.Option, rich_help_panel="Peers")
_evidence = partial(typer.Option, rich_help_panel="Evidence")
_output = partial(typer.Option, rich_help_panel="Output")
_Texts = list[str] | None


def speed_command(
    context: typer.Context,
    provider: Annotated[
        _Texts,
        _matrix("--provider", help="cpu, cuda, tensorrt; several: cpu,cuda. All but tensorrt."),
    ] = None,
    model: Annotated[
        _Texts, _matrix("--model", "-m", help="Names or .onnx files; all bundled.")
    ] = None,
    precision: Annotated[
        _Texts, _matrix("--precision", help="fp32, fp16, int8; what is there.")
    ] = None,
    hops: Annotated[_Texts, _matrix("--hops", help="Hops of 10 ms per step: 1,2,4.")] = None,
    streams: Annotated[_Texts, _matrix("--streams", help="Streams in one batch: 1,4.")] = None,
    out_rate: Annotated[
        _Texts,
        _matrix("--out-rate", help="Also the octaves beyond 48 kHz up to 96000,192000 Hz."),
    ] = None,
    threads: Annotated[int, _matrix("--threads", help="CPU threads per step.")] = 1,
    repetitions: Annotated[
        int | None, _protocol("--repetitions", help="Fresh processes per case: 5.")
    ] = None,
    seconds: Annotated[
        float | None, _protocol("--seconds", help="Seconds of timed steps per repetition: 2.")
    ] = None,
    paced: Annotated[
        bool,
        _protocol("--paced", help="One step per 10 ms hop, as a live stream takes them."),
    ] = False,
    search: Annotated[
        bool, _protocol("--search/--no-search", help="Find how many streams fit.")
    ] = True,
    most_streams: Annotated[
        int | None, _protocol("--most-streams", help="Most streams that it tries: 8192.")
    ] = None,
    quick: Annotated[bool, _protocol("--quick", help="A first answer within two minutes.")] = False,
    against: Annotated[
        Path | None,
        _peers("--against", metavar="FILE.onnx", help="Also time another ONNX upsampler."),
    ] = None,
    against_input: Annotated[
        _Texts,
        _peers(
            "--against-input",
            metavar="NAME:SHAPE",
            help="audio:1x1x480; N for the streams; rate:=16000 for a constant.",
        ),
    ] = None,
    against_output: Annotated[
        _Texts,
        _peers("--against-output", metavar="NAME", help="To fetch; all but the states."),
    ] = None,
    against_state: Annotated[
        _Texts,
        _peers(
            "--against-state",
            metavar="INPUT=OUTPUT",
            help="An output that is the next call's input.",
        ),
    ] = None,
    against_ms: Annotated[
        float | None, _peers("--against-ms", help="Milliseconds of sound per call: 10.")
    ] = None,
    references: Annotated[
        bool,
        _peers(
            "--references/--no-references",
            help="Time resampling and `replicate` in the same run: what anything costs at least.",
        ),
    ] = True,
    evidence: Annotated[
        Path | None,
        _evidence(
            "--evidence",
            metavar="FILE.json",
            help="As much as --budget allows, the most valuable first, written after each item, "
            "with FILE.html.",
        ),
    ] = None,
    budget: Annotated[
        float | None, _evidence("--budget", help="Seconds that --evidence may take: 270.")
    ] = None,
    json_file: Annotated[
        Path | None, _output("--json", metavar="FILE", help="Write results.")
    ] = None,
    html_file: Annotated[
        Path | None, _output("--html", metavar="FILE", help="Write a report with plots.")
    ] = None,
    comparison: Annotated[
        tuple[Path, Path] | None,
        _output(
            "--compare",
            metavar="A.json B.json",
            help="Measure nothing: say what changed from A to B beyond the noise.",
        ),
    ] = None,
) -> None:
    """Say what this machine can do: step times, memory, power, streams per device.

    Each case of provider x model x precision x hops x streams is timed in
    several fresh processes, host to host, copies included. Nothing else
    should run meanwhile.

    [bold]rtsr bench speed --quick[/bold]
    [bold]rtsr bench speed --json now.json --html now.html[/bold]
    [bold]rtsr bench speed --model small --out-rate 96000[/bold]
    [bold]rtsr bench speed --compare before.json now.json --html what-changed.html[/bold]
    [bold]rtsr bench speed --provider cuda --evidence gpu.json --budget 270[/bold]
    [bold]rtsr bench speed --against other.onnx --against-input audio:1x1x480[/bold]
    """
    began = time.monotonic()
    from rtsr.timing import HOP_MS
    from rtsr_bench.files import check_writable, write_json, write_text
    from rtsr_bench.speed import matrix, options, order
    from rtsr_bench.speed.report import show_page, show_results
    from rtsr_bench.speed.run import run_on_terminal

    if evidence is not None:
        options.check_beside(context, "--evidence")
    check_writable(json_file, html_file)
    options.check_apart(json_file, html_file, against, *(comparison or ()))
    if comparison is not None:
        options.check_beside(context, "--compare")
        _compare(comparison, json_file, html_file)
        return
    few_streams = order.STREAMS if evidence is not None else (1,) if quick else (1, 4)
    axes = matrix.Axes(
        options.names("--provider", provider),
        options.names("--model", model),
        options.names("--precision", precision),
        options.numbers("--hops", hops, (1,) if quick else matrix.DEFAULT_HOPS),
        options.numbers("--streams", streams, few_streams),
        threads,
        options.numbers("--out-rate", out_rate, ()),
    )
    if evidence is not None:
        json_file, html_file = evidence, evidence.with_suffix(".html")
        plan = options.build_evidence_plan(evidence, budget, axes, began)
    else:
        if budget is not None:
            raise ArgumentError("--budget is for --evidence FILE.json; a short run is --quick.")
        peers: list[matrix.Case] = []
        if against is not None:
            peers = options.peer_cases(
                against, against_input or [], against_output or [], against_state or [],
                HOP_MS if against_ms is None else against_ms, axes,
            )  # fmt: skip
        elif against_input or against_output or against_state or against_ms is not None:
            raise ArgumentError(
                "--against-input, -output, -state and -ms describe a file: add --against FILE."
            )
        plan = options.build_plan(
            axes, peers, references, repetitions, seconds, paced, search, most_streams, quick,
            began,
        )  # fmt: skip

    def keep(results: dict[str, Any]) -> None:
        if json_file is not None:
            write_json(json_file, results)
        if html_file is not None:
            write_text(html_file, show_page(results))

    # Ctrl-C leaves what was measured; a plan that may be cut short keeps each item as it comes.
    results = run_on_terminal(plan, keep)
    if not plan.may_be_cut_short:
        keep(results)
    # Last: a pager that is closed must not cost what took half an hour.
    show_results(results)


def _compare(sides: tuple[Path, Path], json_file: Path | None, html_file: Path | None) -> None:
    from dataclasses import asdict

    from rtsr_bench.files import write_json, write_text
    from rtsr_bench.speed import document
    from rtsr_bench.speed.compare import compare
    from rtsr_bench.speed.report import comparison_parts
    from rtsr_bench.speed.results import read_results

    found = compare(*(read_results(side) for side in sides))
    if json_file is not None:
        write_json(json_file, asdict(found))
    if html_file is not None:
        parts = comparison_parts(found, " against ".join(side.name for side in sides))
        write_text(html_file, document.page("rtsr bench speed: what changed", parts))
    document.show(comparison_parts(found))

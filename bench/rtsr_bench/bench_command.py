"""``rtsr bench``: what this machine can do, in figures that can be repeated and compared."""

from __future__ import annotations

import re
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsr.errors import RtsrError

if TYPE_CHECKING:
    from rtsr_bench.campaign import Plan
    from rtsr_bench.matrix import Axes, Cell

_MATRIX = "Matrix"
_PROTOCOL = "Protocol"
_PEERS = "Peers"
_EVIDENCE = "Evidence"
_OUTPUT = "Output"


def bench_command(
    provider: Annotated[
        list[str] | None,
        typer.Option(
            "--provider",
            help="cpu, cuda, tensorrt; several: cpu,cuda. All but tensorrt if left out.",
            rich_help_panel=_MATRIX,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Names or .onnx files; all bundled.", rich_help_panel=_MATRIX
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            "--precision", help="fp32, fp16, int8; what is there.", rich_help_panel=_MATRIX
        ),
    ] = None,
    hops: Annotated[
        list[str] | None,
        typer.Option("--hops", help="Hops of 10 ms per step: 1,2,4.", rich_help_panel=_MATRIX),
    ] = None,
    streams: Annotated[
        list[str] | None,
        typer.Option("--streams", help="Streams in one batch: 1,4.", rich_help_panel=_MATRIX),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", help="CPU threads per step.", rich_help_panel=_MATRIX)
    ] = 1,
    repetitions: Annotated[
        int | None,
        typer.Option(
            "--repetitions", help="Fresh processes per cell: 5.", rich_help_panel=_PROTOCOL
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="Timed steps per repetition: 2.", rich_help_panel=_PROTOCOL),
    ] = None,
    paced: Annotated[
        bool,
        typer.Option(
            "--paced",
            help="One step per 10 ms hop, as a live stream takes them, not back to back.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = False,
    search: Annotated[
        bool,
        typer.Option(
            "--search/--no-search",
            help="Search the number of streams that fit.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = True,
    most_streams: Annotated[
        int,
        typer.Option("--most-streams", help="That the search tries.", rich_help_panel=_PROTOCOL),
    ] = 8192,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A first answer within two minutes.", rich_help_panel=_PROTOCOL
        ),
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FILE.onnx",
            help="Also time another ONNX upsampler.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    against_input: Annotated[
        list[str] | None,
        typer.Option(
            "--against-input",
            metavar="NAME:SHAPE",
            help="audio:1x1x480; N for the streams; rate:=16000 for a constant.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    against_output: Annotated[
        list[str] | None,
        typer.Option(
            "--against-output",
            metavar="NAME",
            help="To fetch; all but the states.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    against_state: Annotated[
        list[str] | None,
        typer.Option(
            "--against-state",
            metavar="INPUT=OUTPUT",
            help="An output that is the next call's input.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    against_ms: Annotated[
        float,
        typer.Option(
            "--against-ms", help="Sound that one of its calls takes in.", rich_help_panel=_PEERS
        ),
    ] = 10.0,
    floor: Annotated[
        bool,
        typer.Option(
            "--floor/--no-floor",
            help="Time resampling and `replicate` in the same run.",
            rich_help_panel=_PEERS,
        ),
    ] = True,
    evidence: Annotated[
        Path | None,
        typer.Option(
            "--evidence",
            metavar="FILE.json",
            help="As much as --budget allows, the most valuable first, written after each item, "
            "with FILE.html.",
            rich_help_panel=_EVIDENCE,
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", help="Seconds that --evidence may take: 270.", rich_help_panel=_EVIDENCE
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write results.", rich_help_panel=_OUTPUT),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a report with plots.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    comparison: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A.json B.json",
            help="Measure nothing: say what changed from A to B beyond the noise.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
) -> None:
    """Measure this machine: step times, memory, power, streams per device.

    Each cell of provider x model x precision x hops x streams is timed in
    several fresh processes, host to host, copies included. Nothing else
    should run meanwhile.

    [bold]rtsr bench --quick[/bold]
    [bold]rtsr bench --json now.json --html now.html[/bold]
    [bold]rtsr bench --compare before.json now.json[/bold]
    [bold]rtsr bench --provider cuda --evidence gpu.json --budget 270[/bold]
    [bold]rtsr bench --against other.onnx --against-input audio:1x1x480[/bold]
    """
    began = time.monotonic()
    from rich.console import Console

    from rtsr_bench import results as files

    console = Console()
    for file in (json_file, html_file):
        if file is not None:
            files.check_writable(file)
    if comparison is not None:
        if html_file is not None:
            raise RtsrError("--compare writes no --html; leave it out, or take --json.")
        _compare(comparison, json_file, console)
        return
    from rtsr_bench import bench_plan
    from rtsr_bench.evidence_items import STREAMS
    from rtsr_bench.matrix import Axes
    from rtsr_bench.screen import print_results

    few_streams = STREAMS if evidence is not None else (1,) if quick else (1, 4)
    axes = Axes(
        bench_plan.names("--provider", provider),
        bench_plan.names("--model", model),
        bench_plan.names("--precision", precision),
        bench_plan.numbers("--hops", hops, (1,) if quick else (1, 2, 4)),
        bench_plan.numbers("--streams", streams, few_streams),
        threads,
    )
    if evidence is not None:
        other = {
            "--repetitions": repetitions, "--seconds": seconds, "--paced": paced,
            "--quick": quick, "--against": against, "--json": json_file, "--html": html_file,
        }  # fmt: skip
        if given := [name for name, value in other.items() if value]:
            raise RtsrError(f"--evidence has a protocol of its own; leave out {', '.join(given)}.")
        _gather(evidence, budget, axes, began, console)
        return
    if budget is not None:
        raise RtsrError("--budget is for --evidence FILE.json; a short run is --quick.")
    peers: list[Cell] = []
    if against is not None:
        peers = bench_plan.peer_cells(
            against, against_input or [], against_output or [], against_state or [],
            against_ms, axes,
        )  # fmt: skip
    elif against_input or against_output or against_state:
        raise RtsrError("--against-input, -output and -state describe a file: add --against FILE.")
    plan = bench_plan.build_plan(
        axes,
        peers,
        floor,
        repetitions,
        seconds,
        paced,
        search,
        most_streams,
        quick,
        began,
        _command_line(),
    )
    results = _run(plan)
    if json_file is not None:
        files.write_results(json_file, results)
    if html_file is not None:
        from rtsr_bench.html_report import build_page

        files.write_text(html_file, build_page(results))
    # Last: a pager that is closed must not cost what took half an hour.
    print_results(results, console)


def _run(plan: Plan) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from rtsr_bench.campaign import run_campaign
    from rtsr_bench.matrix import FLOORS

    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(plan.cells) * plan.repetitions)

        def show(what: str, done: int, total: int) -> None:
            if total:
                bar.update(task, completed=done, total=total, description=what)
            else:
                bar.update(task, description=what)

        results = run_campaign(plan, show)
    asked_for = [cell for cell in results["cells"] if cell["kind"] not in FLOORS]
    if asked_for and not any(cell["repetitions"] for cell in asked_for):
        raise RtsrError(asked_for[0]["error"])
    return results


def _gather(file: Path, budget: float | None, axes: Axes, began: float, console: Any) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from rtsr_bench import results as files
    from rtsr_bench.evidence import (
        DEFAULT_BUDGET_S,
        check_evidence,
        plan_evidence,
        run_evidence,
    )

    seconds = DEFAULT_BUDGET_S if budget is None else budget
    files.check_writable(file)
    check_evidence(file, seconds)
    plan = plan_evidence(file, seconds, axes, began, _command_line())
    columns = (BarColumn(20), TextColumn("{task.completed:.0f} of {task.total:.0f} s"))
    with Progress(
        *columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("", total=seconds)
        results = run_evidence(
            plan, lambda what, spent: bar.update(task, completed=spent, description=what)
        )
    verdict = results["verdict"]
    console.print(verdict["headline"], highlight=False)
    for claim in verdict["claims"]:
        found = claim["found"] or "-"
        console.print(f"{claim['state']}: {claim['what']}: {found} ({claim['wanted']})")
    done = f"{len(results['items'])} of {results['planned']} items"
    console.print(f"{done} are in {file.name}, the report is {plan.page.name}.")
    if not any("figures" in entry for entry in results["items"]):
        raise RtsrError(
            results["items"][0].get("error", "Nothing was measured.")
            if results["items"]
            else "The budget was spent before the first item; give a larger one."
        )


def _compare(sides: tuple[Path, Path], json_file: Path | None, console: Any) -> None:
    from dataclasses import asdict

    from rtsr_bench.compare import compare
    from rtsr_bench.results import read_results, write_results
    from rtsr_bench.screen import print_comparison

    found = compare(*(read_results(side) for side in sides))
    if json_file is not None:
        write_results(json_file, asdict(found))
    print_comparison(found, console)


def _command_line() -> str:
    """How it was asked for, without the folders of this machine."""
    words = [re.sub(r"^(--[a-z-]+=)?[./~].*/", r"\1", word) for word in sys.argv[1:]]
    return shlex.join(["rtsr", *words])

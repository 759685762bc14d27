"""``rtsr bench quality`` and ``baseline``: the options of each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def quality_command(
    data: Annotated[
        list[Path],
        typer.Argument(metavar="CORPUS...", help="Folders of recordings; the first comes first."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")],
    cutoff: Annotated[
        list[float] | None,
        typer.Option("--cutoff", metavar="HZ", help="4000, 8000 and 12000; several times."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A bundled name or an .onnx file; several times. All bundled if none."
        ),
    ] = None,
    baselines: Annotated[
        Path | None,
        typer.Option(
            "--baselines",
            help="What rtsr bench baseline fitted; those in 'baselines' if they are there.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="A,B", help="Only these, as for rtsr eval."),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", help="Only clips of this domain; several times."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Clips of each domain; all, if not given.")
    ] = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=1.0, max=3600.0, help="Loudest part scored of each clip."),
    ] = 6.0,
    conditions: Annotated[
        bool,
        typer.Option(
            "--conditions", help="Also 4 kHz content in other files, codecs and bit depths."
        ),
    ] = False,
    artefacts: Annotated[
        bool,
        typer.Option("--artefacts", help="Also what averages hide: hiss, buzz, pre-echo, a hole."),
    ] = False,
    tables_only: Annotated[
        bool,
        typer.Option("--tables-only", help="No timing, no pictures: the quickest."),
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Processes, each with one thread.")
    ] = min(2, os.cpu_count() or 1),
    work: Annotated[Path, typer.Option("--work", help="Folder for inputs and results.")] = Path(
        "validation"
    ),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of Markdown.")
    ] = False,
) -> None:
    """Say how good the models are, in every way.

    Scores the input, the baseline, spectral replication and models on the
    valid clips of one or several corpora and writes quality.md,
    quality.json and pictures. What was interrupted goes on where it
    stopped.

    [bold]rtsr bench quality CORPUS --out report[/bold]
    [bold]rtsr bench quality CORPUS --out look --tables-only --limit 2[/bold]
    """
    import json

    from rtsr_bench.machine import command_line
    from rtsr_bench.quality.make_report import CUTOFFS, Request, make_report

    asked = Request(
        data=data,
        out=out,
        cutoffs=tuple(cutoff or CUTOFFS),
        models=model,
        baselines=baselines,
        metrics=metrics,
        domains=tuple(domain or ()),
        limit=limit,
        seconds=seconds,
        conditions=conditions,
        artefacts=artefacts,
        tables_only=tables_only,
        jobs=jobs,
        work=work,
        command=command_line(),
    )
    report, page = make_report(asked)
    typer.echo(json.dumps(report, indent=1) if as_json else page)


def baseline_command(
    data: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A folder of recordings, as for rtsr train.")
    ],
    cutoff: Annotated[
        list[float], typer.Option("--cutoff", metavar="HZ", help="May be given several times.")
    ] = [4000.0, 8000.0, 12000.0],  # noqa: B006 - typer copies it
    baselines: Annotated[
        Path, typer.Option("--baselines", help="Folder for the fitted baselines.")
    ] = Path("baselines"),
    seconds_per_file: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="Loudest seconds used of a file.")
    ] = 8.0,
    mask: Annotated[
        bool, typer.Option("--mask", help="Fit no band above a recording's measured cutoff.")
    ] = False,
) -> None:
    """Fit the ridge baseline: a linear regression of band energies with shaped noise.

    One fit per cutoff on the corpus's train split, half a minute each on one core. Then
    [bold]rtsr bench quality CORPUS --out report[/bold] holds the models against it.
    """
    import time

    from rtsr.quality.evaluation import check_cutoff
    from rtsr_bench.corpus import list_clips
    from rtsr_bench.quality.baseline import RidgeBaseline, baseline_path

    for cutoff_hz in cutoff:
        check_cutoff(cutoff_hz)
    clips = list_clips(data, "train")
    files = [clip.path for clip in clips]
    limits = {str(clip.path): clip.measured_cutoff_hz for clip in clips} if mask else None
    baselines.mkdir(parents=True, exist_ok=True)
    for cutoff_hz in cutoff:
        start = time.perf_counter()
        baseline = RidgeBaseline.fit(files, cutoff_hz, limits, seconds_per_file)
        target = baseline_path(baselines, cutoff_hz)
        baseline.save(target)
        typer.echo(
            f"{cutoff_hz:g} Hz: {baseline.weights.size} numbers from {len(clips)} files "
            f"in {time.perf_counter() - start:.0f} s -> {target}"
        )

"""``python -m rtsr_bench.precision MODEL.onnx CORPUS``: what each precision costs and saves.

Quality of NAME.onnx, NAME-fp16.onnx and NAME-int8.onnx on the valid clips, beside the time of a
step. The files take turns while they are timed, so that a machine that is slow for a moment is
slow for all of them.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rtsr import enhance_file
from rtsr.errors import RtsrError
from rtsr.runtime.models import SUFFIX, Model, find_model
from rtsr.runtime.providers import select as providers
from rtsr_bench.machine import describe_machine, describe_software
from rtsr_bench.matrix import HOP_MS, MODEL, PRECISIONS, Cell, precision_of
from rtsr_bench.program import run_program
from rtsr_bench.subjects import ModelStep
from rtsr_bench.validation import DOMAINS, Clip, Scores, list_clips, validate

METRICS = ("lsd", "lsd_near", "mel_hf", "hf_bias_db")
MOST_LSD = 0.02
TURN_STEPS = 40
SETTLING_STEPS = 5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Speed:
    """Times of single steps in ms; the tenth percentile is what the machine can do undisturbed."""

    p10: float
    p50: float
    p99: float


def precisions_beside(model: Path) -> dict[str, Model]:
    """The models NAME.onnx, NAME-fp16.onnx and NAME-int8.onnx that are there, by precision.

    Raises:
        ModelError: ``model`` is not one of rtsr's.
        RtsrError: a file's name and its metadata disagree, or the fp32 file is missing.
    """
    full = find_model(model)
    if precision_of(full) != PRECISIONS[0]:
        raise RtsrError(
            f"{model} is {precision_of(full)}; name the fp32 file, the others lie by it."
        )
    found = {PRECISIONS[0]: full}
    for precision in PRECISIONS[1:]:
        file = model.with_name(f"{model.stem}-{precision}{SUFFIX}")
        if file.is_file():
            found[precision] = find_model(file)
            said = found[precision].metadata.precision
            if said != precision:
                raise RtsrError(f"{file} says that it is {said}; convert {model} again.")
    return found


def time_in_turns(
    subjects: Sequence[Callable[[], object]], seconds: float, turn_steps: int = TURN_STEPS
) -> list[Speed]:
    """Call each a few times, then the next, until the time is over; at least two rounds."""
    times: list[list[int]] = [[] for _ in subjects]
    end, rounds = time.perf_counter() + seconds, 0
    gc.collect()
    gc.disable()
    try:
        while rounds < 3 or time.perf_counter() < end:
            for subject, taken in zip(subjects, times, strict=True):
                for _ in range(SETTLING_STEPS):
                    subject()
                # The first round is a warm-up.
                for _ in range(turn_steps):
                    started = time.perf_counter_ns()
                    subject()
                    if rounds:
                        taken.append(time.perf_counter_ns() - started)
            rounds += 1
    finally:
        gc.enable()
    return [Speed(*(float(x) for x in np.percentile(t, (10, 50, 99)) * 1e-6)) for t in times]


def speeds(models: Mapping[str, Model], streams: int, threads: int, seconds: float) -> list[Speed]:
    """Times of one hop of ``streams`` streams on the CPU, in the order of ``models``."""
    steps = [
        ModelStep(
            Cell(
                MODEL, model.name, providers.CPU, precision, 1, streams, threads, HOP_MS,
                {"file": str(model.path)},
            )
        ).step
        for precision, model in models.items()
    ]  # fmt: skip
    return time_in_turns(steps, seconds * len(steps))


def first_clips(clips: Sequence[Clip], most: int | None) -> list[Clip]:
    """The first ``most`` clips of each domain."""
    return [
        clip
        for domain in DOMAINS
        for clip in [clip for clip in clips if clip.domain == domain][:most]
    ]


def moved(scores: Scores, full: Scores) -> float:
    """The largest growth of a domain's median LSD over that in full precision."""
    return max(
        values["lsd"] - full.by_domain[domain]["lsd"] for domain, values in scores.by_domain.items()
    )


@app.command(help=__doc__)
def compare(
    model: Annotated[Path, typer.Argument(help="The fp32 .onnx; the others lie beside it.")],
    data: Annotated[
        Path | None, typer.Argument(help="The corpus; without it only speed.", show_default=False)
    ] = None,
    cutoff: Annotated[
        list[float], typer.Option("--cutoff", metavar="HZ", help="May be given several times.")
    ] = [4000.0, 8000.0],  # noqa: B006 - typer copies it
    clips: Annotated[
        int | None, typer.Option("--clips", help="Clips of each domain; all, if not given.")
    ] = None,
    visqol: Annotated[bool, typer.Option("--visqol", help="Also ViSQOL, which is slow.")] = False,
    streams: Annotated[
        list[int], typer.Option("--streams", help="Streams in one step; several times.")
    ] = [1, 16],  # noqa: B006 - typer copies it
    threads: Annotated[int, typer.Option("--threads", help="Threads within one step.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="Timed, per file and row.")] = 2.0,
    work: Annotated[Path, typer.Option(help="Folder for inputs and outputs.")] = Path("validation"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all values.")] = None,
) -> None:
    """Print both tables; exits with 1 if LSD of any precision moved by more than 0.02."""
    models = precisions_beside(model)
    console = Console()
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "software": describe_software(),
        "speed": {},
        "quality": {},
    }
    table = Table("streams", "precision", "MB", "p10 ms", "p50 ms", "p99 ms", title="speed")
    for count in streams:
        measured = zip(models.items(), speeds(models, count, threads, seconds), strict=True)
        for (precision, one), speed in measured:
            megabytes = f"{one.path.stat().st_size / 1e6:.1f}"
            values = [f"{value:.3f}" for value in (speed.p10, speed.p50, speed.p99)]
            table.add_row(str(count), precision, megabytes, *values)
            report["speed"].setdefault(f"{count} streams", {})[precision] = vars(speed)
    console.print(table)
    worst = 0.0
    if data is not None:
        chosen = first_clips(list_clips(data), clips)
        metrics = (*METRICS, "visqol") if visqol else METRICS
        for cutoff_hz in cutoff:
            rows = _judge(models, chosen, cutoff_hz, metrics, work)
            console.print(_quality_table(rows, cutoff_hz, metrics))
            full = rows[PRECISIONS[0]]
            worst = max(worst, *(moved(scores, full) for scores in rows.values()))
            report["quality"][f"{cutoff_hz:g}"] = {
                precision: {**scores.as_json(), "lsd_moved": moved(scores, full)}
                for precision, scores in rows.items()
            }
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if worst > MOST_LSD:
        console.print(f"LSD grew by {worst:.4f}, more than {MOST_LSD:g}: not to be shipped.")
        raise typer.Exit(1)


def _judge(
    models: Mapping[str, Model],
    clips: Sequence[Clip],
    cutoff_hz: float,
    metrics: Sequence[str],
    work: Path,
) -> dict[str, Scores]:
    rows = {}
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for precision, model in models.items():
            task = bar.add_task(f"{precision} at {cutoff_hz:g} Hz", total=len(clips))
            rows[precision] = validate(
                partial(enhance_file, model=str(model.path), provider=providers.CPU),
                clips,
                work,
                cutoff_hz,
                name=f"{model.path.stem}",
                metrics=metrics,
                progress=partial(_advance, bar, task),
            )
    return rows


def _advance(bar: Progress, task: Any, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _quality_table(rows: Mapping[str, Scores], cutoff_hz: float, metrics: Sequence[str]) -> Table:
    table = Table("precision", *metrics, "LSD moved", title=f"medians of clips to {cutoff_hz:g} Hz")
    table.caption = " / ".join(rows[PRECISIONS[0]].by_domain)
    for precision, scores in rows.items():
        cells = [
            " / ".join(f"{values[metric]:.3f}" for values in scores.by_domain.values())
            for metric in metrics
        ]
        table.add_row(precision, *cells, f"{moved(scores, rows[PRECISIONS[0]]):+.4f}")
    return table


def main() -> None:
    """Run the command."""
    run_program(app)


if __name__ == "__main__":
    main()

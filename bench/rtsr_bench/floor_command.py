"""``python -m rtsr_bench.ridge train|evaluate``: fit the floor, and hold a model against it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from rtsr import enhance_file
from rtsr_bench.program import run_program
from rtsr_bench.ridge import RidgeFloor
from rtsr_bench.validation import (
    Scores,
    headed_table,
    list_clips,
    validate,
)

#: where fitted floors are kept if no other folder is named
FLOORS = Path("floors")

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

DataFolder = Annotated[Path, typer.Argument(help="The corpus: the folder of manifest.csv.")]
Cutoffs = Annotated[
    list[float], typer.Option("--cutoff", metavar="HZ", help="May be given several times.")
]
Floors = Annotated[Path, typer.Option("--floors", help="Folder of the fitted floors (.npz).")]


def floor_path(folder: Path, cutoff_hz: float) -> Path:
    """Where the floor for one cutoff lies."""
    return folder / f"ridge-{cutoff_hz:g}.npz"


@app.command()
def train(
    data: DataFolder,
    cutoff: Cutoffs = [4000.0, 8000.0, 12000.0],  # noqa: B006 - typer copies it
    floors: Floors = FLOORS,
    seconds_per_file: Annotated[float, typer.Option(help="Loudest seconds used of a file.")] = 8.0,
    mask: Annotated[
        bool, typer.Option("--mask", help="Teach no band above a recording's measured cutoff.")
    ] = False,
) -> None:
    """Fit one floor per cutoff on the corpus's train split (half a minute each on one core)."""
    clips = list_clips(data, "train")
    limits = {str(clip.path): clip.measured_cutoff_hz for clip in clips} if mask else None
    floors.mkdir(parents=True, exist_ok=True)
    for cutoff_hz in cutoff:
        start = time.perf_counter()
        floor = RidgeFloor.fit([clip.path for clip in clips], cutoff_hz, limits, seconds_per_file)
        floor.save(floor_path(floors, cutoff_hz))
        seconds = time.perf_counter() - start
        typer.echo(
            f"{cutoff_hz:g} Hz: {floor.weights.size} numbers from {len(clips)} files "
            f"in {seconds:.0f} s -> {floor_path(floors, cutoff_hz)}"
        )


@app.command()
def evaluate(
    data: DataFolder,
    cutoff: Cutoffs = [4000.0, 8000.0],  # noqa: B006 - typer copies it
    floors: Floors = FLOORS,
    work: Annotated[Path, typer.Option(help="Folder for inputs and outputs.")] = Path("validation"),
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Also judge this model: a bundled name or an .onnx file."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all values.")] = None,
) -> None:
    """Medians per domain of input, floor and, with --model, models over the valid split."""
    clips = list_clips(data)
    report = {}
    for cutoff_hz in cutoff:
        floor = RidgeFloor.load(floor_path(floors, cutoff_hz))
        rows: dict[str, Scores] = {}
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"judging at {cutoff_hz:g} Hz", total=None)

            def show(done: int, total: int, bar: Progress = bar, task: object = task) -> None:
                bar.update(task, completed=done, total=total)  # type: ignore[arg-type]

            rows["input"] = validate(None, clips, work, cutoff_hz, progress=show)
            # The bare regression is the harder one to beat on some metrics, so both are shown.
            for name, variant in (("ridge", floor), ("ridge, bare", replace(floor, level=0.0))):
                rows[name] = validate(
                    variant.enhance_file,
                    clips,
                    work,
                    cutoff_hz,
                    name=name.replace(", ", "-"),
                    progress=show,
                )
            for name in model or ():
                rows[Path(name).stem] = validate(
                    partial(enhance_file, model=name),
                    clips,
                    work,
                    cutoff_hz,
                    name=Path(name).stem,
                    progress=show,
                )
        typer.echo(headed_table(cutoff_hz, rows))
        report[f"{cutoff_hz:g}"] = {name: scores.as_json() for name, scores in rows.items()}
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1), encoding="utf-8")


def main() -> None:
    """Run the command."""
    run_program(app)

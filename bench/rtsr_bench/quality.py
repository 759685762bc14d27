"""``python -m rtsr_bench.quality CORPUS --out FOLDER``: how good are the models, in every way?

Judges input, spectral replication and models on the valid clips of a corpus and writes a report
into a folder: ``quality.md``, ``quality.json`` and pictures. Results are kept in the work folder as
they come, so that a report which was interrupted goes on where it stopped.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from rtsr.errors import RtsrError
from rtsr.quality.evaluation import check_cutoff, default_metrics
from rtsr_bench import quality_conditions, quality_pictures, quality_report
from rtsr_bench.machine import describe_machine, describe_software
from rtsr_bench.precision import first_clips
from rtsr_bench.program import run_program
from rtsr_bench.quality_plan import Show, deliver, judge_everything
from rtsr_bench.quality_probes import real_time_factor
from rtsr_bench.quality_results import conditions_part, known, nest_probes, nest_scores, plain
from rtsr_bench.quality_spectrograms import choose_clips, save_spectrograms_of_clips
from rtsr_bench.quality_systems import MODEL, System, SystemFacts, choose_systems, describe_system
from rtsr_bench.validation import (
    MAX_SECONDS,
    count_by_domain,
    fingerprint,
    list_clips,
    prepare_inputs,
    prepare_references,
)
from rtsr_kernels.resample import SUPPORTED_RATES

FORMAT = 1
CUTOFFS = (4000.0, 8000.0, 12000.0, 16000.0)
CONDITION_SECONDS = 3.0
_DRAWN_METRICS = ("visqol", "lsd_near", "mel_hf", "hf_bias_db")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def quality(
    data: Annotated[Path, typer.Argument(help="The corpus: the folder of manifest.csv.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")],
    cutoff: Annotated[
        list[float], typer.Option("--cutoff", metavar="HZ", help="May be given several times.")
    ] = list(CUTOFFS),  # noqa: B006 - typer copies it
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A bundled name or an .onnx file; several times. All bundled if none."
        ),
    ] = None,
    floors: Annotated[
        Path | None,
        typer.Option("--floors", help="Also judge the floors that rtsr_bench.ridge fitted."),
    ] = None,
    conditions: Annotated[
        bool,
        typer.Option("--conditions", help="Also 4 kHz content as other files, codecs and depths."),
    ] = False,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1.0, help="Loudest part judged of each clip.")
    ] = MAX_SECONDS,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Clips of each domain; all, if not given.")
    ] = None,
    picture: Annotated[
        list[str] | None,
        typer.Option("--picture", help="Draw clips with this in their names; else some are chosen"),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Processes, each with one thread.")
    ] = min(2, os.cpu_count() or 1),
    work: Annotated[Path, typer.Option(help="Folder for inputs and results.")] = Path("validation"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of Markdown.")
    ] = False,
) -> None:
    """Judge everything, write the report, print it."""
    cutoffs = _check_cutoffs(cutoff)
    clips = first_clips(list_clips(data), limit)
    needed = [*cutoffs, quality_conditions.CUTOFF_HZ] if conditions else cutoffs
    systems = choose_systems(model, floors, list(dict.fromkeys(needed)))
    metrics = default_metrics()
    quality_pictures.check_drawing()
    _make_folder(out)
    # Clips of another corpus may have the same names.
    folder = work / f"quality-{fingerprint(clips)}"
    with _progress() as show:
        references = prepare_references(clips, folder / f"references-{seconds:g}s", seconds)
        lowest = min(cutoffs)
        drawn = choose_clips(references, lowest, picture)
        inputs = {}
        for done, hz in enumerate(cutoffs):
            show("inputs", done, len(cutoffs))
            inputs[hz] = prepare_inputs(references, folder / f"inputs-{seconds:g}s" / f"{hz:g}", hz)
        facts = _describe(systems, inputs, show)
        part = min(seconds, CONDITION_SECONDS)
        delivered = deliver(clips, folder, part, show) if conditions else {}
        judged, probed, otherwise = judge_everything(
            systems, references, inputs, delivered, metrics, folder / "results", jobs, show
        )
        report = plain(
            {
                "format": FORMAT,
                "date": datetime.date.today().isoformat(),
                "command": _command(cutoffs, model, floors, conditions, seconds, limit),
                "machine": describe_machine(),
                "software": describe_software(),
                "seconds": seconds,
                "clips": count_by_domain(clips),
                "metrics": metrics,
                "systems": {name: one.as_json() for name, one in facts.items()},
                "cutoffs": nest_scores(judged),
                "probes": nest_probes(probed),
                "conditions": conditions_part(otherwise, metrics, part),
                "pictures": [],
            }
        )
        # From here on the report's files are replaced one by one; it is whole when this is back.
        (out / "quality.md").unlink(missing_ok=True)
        report["pictures"] = [
            *_draw_figures(out, report),
            *save_spectrograms_of_clips(
                out, drawn, systems, references, inputs[lowest], lowest, show
            ),
        ]
    text = json.dumps(report, indent=1, allow_nan=False)
    page = quality_report.markdown(report)
    _write_text(out / "quality.json", text)
    _write_text(out / "quality.md", page)
    typer.echo(text if as_json else page)


def _check_cutoffs(cutoffs: Sequence[float]) -> list[float]:
    for hz in cutoffs:
        if round(2.0 * check_cutoff(hz)) not in SUPPORTED_RATES:
            accepted = ", ".join(f"{rate / 2:g}" for rate in SUPPORTED_RATES[:-1])
            raise RtsrError(
                f"Inputs are files at twice the cutoff, and rtsr takes none of {2.0 * hz:g} Hz; "
                f"--cutoff is one of {accepted}."
            )
    return list(dict.fromkeys(cutoffs))


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RtsrError(
            f"The folder {out} for the report cannot be made ({error.strerror}); "
            "give one that can be written to."
        ) from None


def _describe(
    systems: Sequence[System],
    inputs: Mapping[float, Mapping[str, Path]],
    show: Show,
) -> dict[str, SystemFacts]:
    """Costs of every system; speed is measured before the machine gets busy with judging."""
    facts = {}
    for done, system in enumerate(systems):
        show("timing", done, len(systems))
        described = describe_system(system, list(inputs))
        if system.kind == MODEL:
            speed = {
                round(2.0 * hz): real_time_factor(system.source, next(iter(files.values())))
                for hz, files in inputs.items()
            }
            described = replace(described, real_time=speed)
        facts[system.name] = described
    return facts


def _draw_figures(out: Path, report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Draw the metrics; what the pictures are called and what they show."""
    pictures = []
    for place, rows in report["cutoffs"].items():
        title = f"Medians at an input cutoff of {float(place) / 1000:g} kHz"
        metrics = [name for name in report["metrics"] if name != "silence_dbfs"]
        pictures.append({"file": f"metrics-{place}.png", "title": title})
        quality_pictures.save_metrics(out / f"metrics-{place}.png", rows, metrics, title)
    if report["conditions"]:
        drawn = known(_DRAWN_METRICS, report["metrics"])
        pictures.append({"file": "conditions.png", "title": "Metrics by way of delivery"})
        quality_pictures.save_conditions(out / "conditions.png", report["conditions"], drawn)
    return pictures


def _command(
    cutoffs: Sequence[float],
    model: Sequence[str] | None,
    floors: Path | None,
    conditions: bool,
    seconds: float,
    limit: int | None,
) -> str:
    """The command again, without the folders of this machine."""
    words = ["python -m rtsr_bench.quality CORPUS --out FOLDER"]
    if tuple(cutoffs) != CUTOFFS:
        words += [f"--cutoff {hz:g}" for hz in cutoffs]
    words += [f"--model {Path(one).name}" for one in model or ()]
    words += ["--floors FLOORS"] if floors else []
    words += ["--conditions"] if conditions else []
    words += [f"--seconds {seconds:g}"] if seconds != MAX_SECONDS else []
    words += [f"--limit {limit}"] if limit else []
    return " ".join(words)


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".partial-{path.name}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


@contextmanager
def _progress() -> Iterator[Show]:
    """``show(what, done, of)`` on the terminal's error stream."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("inputs", total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)


def main() -> None:
    """Run the command."""
    run_program(app)


if __name__ == "__main__":
    main()

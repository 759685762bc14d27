"""``python -m rtsr_bench.quality CORPUS ... --out FOLDER``: how good are the models, in every way?

Judges input, floor, spectral replication and models on the valid clips of one or several corpora
and writes a report into a folder: ``quality.md``, ``quality.json`` and pictures. Results are kept
in the work folder as they come, so that a report which was interrupted goes on where it stopped,
and a later one with one more model computes only what is new. Of several corpora all get tables;
speed, probes, conditions and spectrograms are of the first.
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
from rtsr.quality.evaluation import check_cutoff, check_metrics
from rtsr_bench import quality_conditions, quality_pictures, quality_report
from rtsr_bench.floor_command import FLOORS
from rtsr_bench.machine import describe_machine, describe_software
from rtsr_bench.program import run_program
from rtsr_bench.quality_corpora import Corpus, Show, prepare_corpora
from rtsr_bench.quality_plan import deliver, judge_everything
from rtsr_bench.quality_probes import real_time_factor
from rtsr_bench.quality_results import conditions_part, known, nest_probes, nest_scores, plain
from rtsr_bench.quality_spectrograms import choose_clips, save_spectrograms_of_clips
from rtsr_bench.quality_systems import (
    MODEL,
    System,
    SystemFacts,
    choose_systems,
    describe_system,
    missing_floors,
)
from rtsr_bench.validation import MAX_SECONDS, count_by_domain
from rtsr_kernels.resample import SUPPORTED_RATES

FORMAT = 2
CUTOFFS = (4000.0, 8000.0, 12000.0)
CONDITION_SECONDS = 3.0
_DRAWN_METRICS = ("visqol", "lsd_near", "mel_hf", "hf_bias_db")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def quality(
    data: Annotated[
        list[Path],
        typer.Argument(metavar="CORPUS...", help="Folders of manifest.csv; the first comes first."),
    ],
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
        typer.Option(
            "--floors",
            help="The floors that rtsr_bench.ridge fitted; those in 'floors' if they are there.",
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
        float, typer.Option("--seconds", min=1.0, help="Loudest part judged of each clip.")
    ] = MAX_SECONDS,
    conditions: Annotated[
        bool,
        typer.Option("--conditions", help="Also 4 kHz content as other files, codecs and depths."),
    ] = False,
    tables_only: Annotated[
        bool,
        typer.Option("--tables-only", help="No timing, no probes, no pictures: the quickest."),
    ] = False,
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
    names = check_metrics(None if metrics is None else [m.strip() for m in metrics.split(",")])
    if tables_only and picture:
        raise RtsrError("With --tables-only nothing is drawn; leave out --picture or that.")
    needed = [*cutoffs, quality_conditions.CUTOFF_HZ] if conditions else cutoffs
    needed = list(dict.fromkeys(needed))
    systems = choose_systems(model, floors or _usual_floors(needed), needed)
    if not tables_only:
        quality_pictures.check_drawing()
    _make_folder(out)
    with _progress() as show:
        corpora = prepare_corpora(data, cutoffs, work, seconds, domain or (), limit, show)
        first, lowest = corpora[0], min(cutoffs)
        drawn = [] if tables_only else choose_clips(first.references, lowest, picture)
        facts = _describe(systems, first, show, is_timed=not tables_only)
        part = min(seconds, CONDITION_SECONDS)
        judged = judge_everything(
            systems,
            corpora,
            names,
            work / "quality-results",
            jobs,
            show,
            delivered=deliver(first, part, show) if conditions else None,
            is_probed=not tables_only,
        )
        report = plain(
            {
                "format": FORMAT,
                "date": datetime.date.today().isoformat(),
                "command": _command(corpora, cutoffs, model, floors, metrics, domain, limit,
                                    seconds, conditions, tables_only),
                "machine": describe_machine(),
                "software": describe_software(),
                "seconds": seconds,
                "metrics": names,
                "systems": {name: one.as_json() for name, one in facts.items()},
                "corpora": [
                    {
                        "name": corpus.name,
                        "clips": count_by_domain(corpus.clips),
                        "left_out": corpus.left_out,
                        "cutoffs": nest_scores(judged.clips[corpus.name]),
                    }
                    for corpus in corpora
                ],
                "failed": judged.failed,
                "probes": nest_probes(judged.probes),
                "conditions": conditions_part(judged.conditions, names, part),
                "pictures": [],
            }
        )  # fmt: skip
        # From here on the report's files are replaced one by one; it is whole when this is back.
        (out / "quality.md").unlink(missing_ok=True)
        if not tables_only:
            report["pictures"] = [
                *_draw_figures(out, report),
                *save_spectrograms_of_clips(
                    out, drawn, systems, first.references, first.inputs[lowest], lowest, show
                ),
            ]
    text = json.dumps(report, indent=1, allow_nan=False)
    page = quality_report.markdown(report)
    _write_text(out / "quality.json", text)
    _write_text(out / "quality.md", page)
    typer.echo(text if as_json else page)


def _usual_floors(cutoffs: Sequence[float]) -> Path | None:
    """The folder of fitted floors if it has all that is needed; else says how to come by them."""
    missing = missing_floors(cutoffs)
    if not missing:
        return FLOORS
    options = " ".join(f"--cutoff {hz:g}" for hz in missing)
    typer.echo(
        "The floor is left out; a minute with 'python -m rtsr_bench.ridge train CORPUS "
        f"{options}' adds it.",
        err=True,
    )
    return None


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
    systems: Sequence[System], corpus: Corpus, show: Show, *, is_timed: bool
) -> dict[str, SystemFacts]:
    """Costs of every system; speed is measured before the machine gets busy with judging."""
    facts = {}
    for done, system in enumerate(systems):
        show("timing" if is_timed else "counting", done, len(systems))
        described = describe_system(system, list(corpus.inputs))
        if is_timed and system.kind == MODEL:
            speed = {
                round(2.0 * hz): real_time_factor(system.source, next(iter(files.values())))
                for hz, files in corpus.inputs.items()
            }
            described = replace(described, real_time=speed)
        facts[system.name] = described
    return facts


def _draw_figures(out: Path, report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Draw the metrics; what the pictures are called and what they show."""
    pictures = []
    metrics = [name for name in report["metrics"] if name != "silence_dbfs"]
    for corpus in report["corpora"]:
        for place, rows in corpus["cutoffs"].items():
            file = quality_report.metrics_picture(corpus, place)
            title = f"Medians of {corpus['name']} at an input cutoff of {float(place) / 1000:g} kHz"
            pictures.append({"file": file, "title": title})
            quality_pictures.save_metrics(out / file, rows, metrics, title)
    if report["conditions"]:
        drawn = known(_DRAWN_METRICS, report["metrics"])
        pictures.append({"file": "conditions.png", "title": "Metrics by way of delivery"})
        quality_pictures.save_conditions(out / "conditions.png", report["conditions"], drawn)
    return pictures


def _command(
    corpora: Sequence[Corpus],
    cutoffs: Sequence[float],
    model: Sequence[str] | None,
    floors: Path | None,
    metrics: str | None,
    domains: Sequence[str] | None,
    limit: int | None,
    seconds: float,
    conditions: bool,
    tables_only: bool,
) -> str:
    """The command again, without the folders of this machine."""
    names = " ".join(corpus.name for corpus in corpora)
    words = [f"python -m rtsr_bench.quality {names} --out FOLDER"]
    if tuple(cutoffs) != CUTOFFS:
        words += [f"--cutoff {hz:g}" for hz in cutoffs]
    words += [f"--model {Path(one).name}" for one in model or ()]
    words += ["--floors FLOORS"] if floors else []
    words += [f"--metrics {metrics}"] if metrics else []
    words += [f"--domain {one}" for one in domains or ()]
    words += [f"--seconds {seconds:g}"] if seconds != MAX_SECONDS else []
    words += [f"--limit {limit}"] if limit else []
    words += ["--conditions"] if conditions else []
    words += ["--tables-only"] if tables_only else []
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

"""``rtsr enhance``: files in, their full-band versions out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsr.cli import options
from rtsr.cli.sentences import EXIT_BAD_INPUT, sentence_of
from rtsr.errors import RtsrError

if TYPE_CHECKING:
    from rtsr.cli.enhance_files import Job
    from rtsr.files import EnhanceReport


def enhance_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN... OUT",
            help="A sound file, 8 to 192 kHz (WAV, FLAC, Ogg, MP3 and what else libsndfile reads; "
            "M4A, WebM, AMR and films where PyAV is installed), and the file to write, whose "
            "extension names the format; or a folder and a folder to write into.",
        ),
    ],
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out-dir",
            "-o",
            metavar="DIR",
            help="Read all of the paths, files and folders, and write into this folder under "
            "the same names.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            "-y",
            help="Replace the file OUT if it exists. In a folder to write into files are always "
            "replaced.",
        ),
    ] = False,
    model: options.Model = "small",
    provider: options.Provider = "auto",
    block_ms: options.BlockMs = 160,
    threads: options.Threads = 1,
    seed: options.Seed = 0,
    cutoff: options.Cutoff = None,
    ceiling: options.Ceiling = None,
    wet: options.Wet = 1.0,
    colour: options.Colour = None,
    out_rate: options.OutRate = None,
    octave_model: options.OctaveModel = None,
    limiter: options.Limiter = True,
    subtype: Annotated[
        str | None,
        typer.Option(
            "--subtype",
            help="Sample format: PCM_16, PCM_24, FLOAT, ... The input's if it is fine enough.",
            rich_help_panel="Sound",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per file about what was done.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no report.")] = False,
) -> None:
    """Enhance a file, several files, or a folder.

    The output is aligned with the input to the sample and has as many channels.
    It appears under its name only when it is whole, with the input's title,
    artist and the like, but without pictures and cue points. Memory does not grow
    with the length of the file. A file that cannot be enhanced does not stop the
    others; the exit code is then 2.

      rtsr enhance call.wav call-48k.wav

      rtsr enhance a.wav b.flac --out-dir enhanced

      rtsr enhance recordings enhanced
    """
    from rtsr.cli.enhance_files import check_is_new, make_folder, plan_jobs

    options.check_band(cutoff, ceiling)
    if as_json:
        options.check_stdout()
    settings: dict[str, Any] = {
        "model": model,
        "provider": provider,
        "block_ms": block_ms,
        "threads": threads,
        "seed": seed,
        "cutoff": cutoff,
        "ceiling": ceiling,
        "wet": wet,
        "colour": options.read_colour_option(colour),
        "output_rate": out_rate,
        "octave_model": octave_model,
        "limiter": limiter,
        "subtype": subtype,
    }
    into_folder = out_dir is not None or paths[0].is_dir()
    jobs = plan_jobs(paths, out_dir)
    if not (into_folder or overwrite):
        check_is_new(jobs[0])
    failed = 0
    for job in jobs:
        try:
            if into_folder:
                make_folder(job.target.parent)
            report = _enhance(job, settings, shown=not (as_json or quiet))
        except (RtsrError, OSError) as error:
            if not into_folder:
                raise
            failed += 1
            typer.echo(f"rtsr: {_of_several(job, sentence_of(error))}", err=True)
            continue
        _print_warnings(job, report, cutoff, ceiling, several=into_folder)
        if as_json:
            typer.echo(json.dumps(report.to_json(), allow_nan=False))
        elif not quiet:
            _print_report(job, report)
    if failed:
        typer.echo(f"rtsr: {failed} of {len(jobs)} files could not be enhanced.", err=True)
        raise typer.Exit(EXIT_BAD_INPUT)


def _enhance(job: Job, settings: dict[str, Any], shown: bool) -> EnhanceReport:
    from rtsr.cli.progress import AudioProgress
    from rtsr.files import enhance_file

    rate = _rate_of(job.source) if shown else None
    with AudioProgress(job.source.name, rate, shown) as progress:
        return enhance_file(job.source, job.target, **settings, progress=progress.show)


def _print_warnings(
    job: Job, report: EnhanceReport, cutoff: float | None, ceiling: float | None, several: bool
) -> None:
    sentences = [
        options.cutoff_warning(cutoff, report.input_rate),
        options.ceiling_warning(ceiling, report.cutoff_hz, report.added_steps),
        *report.warnings(),
    ]
    for sentence in filter(None, sentences):
        typer.echo(f"rtsr: {_of_several(job, sentence) if several else sentence}", err=True)


def _of_several(job: Job, sentence: str) -> str:
    """Return a sentence about one of several files, with the file's name where it has none."""
    names = f"'{job.source}'", f"'{job.target}'"
    return sentence if any(name in sentence for name in names) else f"{names[0]}: {sentence}"


def _print_report(job: Job, report: EnhanceReport) -> None:
    typer.echo(
        f"{job.target}: {report.seconds:.2f} s, {report.channels} channel(s) at "
        f"{report.output_rate} Hz, {report.bandwidth()}"
    )
    typer.echo(
        f"{report.real_time_factor:.1f}x real time, step of {report.block_ms:g} ms "
        f"p50 {report.step_ms.p50:.2f} ms, "
        f"p99.9 {report.step_ms.p99_9:.2f} ms, "
        f"latency of the stream {report.latency.algorithmic_ms:.1f} ms (compensated)"
    )
    if learning := options.describe_learning(report.colour):
        typer.echo(learning)


def _rate_of(path: Path) -> int | None:
    """Return the file's rate for the progress bar; errors are left to the enhancement itself."""
    from rtsr.audio.reader import open_input

    if not path.is_file():  # what was read from a pipe is gone
        return None
    try:
        with open_input(path) as file:
            return file.rate
    except RtsrError:
        return None

"""``rtsr enhance``: a file in, its full-band version out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rtsr.cli import options


def enhance_command(
    input_file: Annotated[
        Path, typer.Argument(metavar="IN", help="Any file that libsndfile reads, 8 to 48 kHz.")
    ],
    output_file: Annotated[
        Path, typer.Argument(metavar="OUT", help="Its extension names the format: wav, flac, ...")
    ],
    model: options.Model = "small",
    provider: options.Provider = "auto",
    block_ms: options.BlockMs = 40,
    threads: options.Threads = 1,
    seed: options.Seed = 0,
    cutoff: options.Cutoff = None,
    ceiling: options.Ceiling = None,
    wet: options.Wet = 1.0,
    colour: options.Colour = None,
    out_rate: options.OutRate = 48000,
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
        bool, typer.Option("--json", help="Print one JSON object about what was done.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no report.")] = False,
) -> None:
    """Enhance a file.

    The output is aligned with the input to the sample and has as many channels.
    It appears under its name only when it is whole. Memory does not grow with
    the length of the file.
    """
    from rtsr.cli.progress import AudioProgress
    from rtsr.colour.colour import read_colour
    from rtsr.files import enhance_file

    if as_json:
        options.check_stdout()
    shown = not (as_json or quiet)
    rate = _rate_of(input_file) if shown else None
    with AudioProgress(input_file.name, rate, shown) as progress:
        report = enhance_file(
            input_file,
            output_file,
            model=model,
            provider=provider,
            block_ms=block_ms,
            threads=threads,
            seed=seed,
            cutoff=cutoff,
            ceiling=ceiling,
            wet=wet,
            output_rate=out_rate,
            limiter=limiter,
            subtype=subtype,
            progress=progress.show,
            colour=None if colour is None else read_colour(colour),
        )
    unusable = options.cutoff_warning(cutoff, report.input_rate)
    for sentence in [*([unusable] if unusable else []), *report.warnings()]:
        typer.echo(f"rtsr: {sentence}", err=True)
    if as_json:
        typer.echo(json.dumps(report.to_json(), allow_nan=False))
    elif not quiet:
        typer.echo(
            f"{output_file}: {report.seconds:.2f} s, {report.channels} channel(s) at "
            f"{out_rate} Hz, content of the input up to {report.cutoff_hz:.0f} Hz"
        )
        typer.echo(
            f"{report.real_time_factor:.1f}x real time, step p50 {report.step_ms.p50:.2f} ms, "
            f"p99.9 {report.step_ms.p99_9:.2f} ms, "
            f"latency of the stream {report.latency.algorithmic_ms:.1f} ms (compensated)"
        )


def _rate_of(path: Path) -> int | None:
    """The file's rate for the progress bar; whatever is wrong with the file is said later."""
    from rtsr.audio.reader import InputFile
    from rtsr.errors import RtsrError

    try:
        with InputFile(path) as file:
            return file.rate
    except RtsrError:
        return None

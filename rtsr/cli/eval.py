"""``rtsr eval``: evaluate files against their full-band originals."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtsr.cli import options
from rtsr.cli.metric_meanings import MEANINGS
from rtsr.errors import ArgumentError, RtsrError

if TYPE_CHECKING:
    from rich.console import Console

    from rtsr.quality.compare import FolderComparison

# One hop: the metrics refuse anything shorter.
_SHORTEST_SECONDS = 0.01


def eval_command(
    reference: Annotated[
        Path, typer.Argument(help="The full-band original: a file, or a folder of files.")
    ],
    estimate: Annotated[
        Path, typer.Argument(help="What to evaluate: a file, or a folder with the same file names.")
    ],
    cutoff: Annotated[
        float | None,
        typer.Option(
            "--cutoff",
            metavar="HZ",
            help="Where the narrow-band input's content ended; measured on --input if left out.",
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="The narrow-band input: gives the cutoff, a column in the table of two files, "
            "and a panel in the picture.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="Only these metrics, for example visqol,lsd_near; there are "
            f"{', '.join(MEANINGS)}; band_levels stands for all level_ metrics.",
        ),
    ] = None,
    artefacts: Annotated[
        bool,
        typer.Option(
            "--artefacts",
            help="Also hunt artefacts (hiss, sibilants, pre-echo, buzz, pumping...), "
            "each with its limit.",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.png", help="Write a picture of the spectrograms."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Evaluate files against their full-band originals.

    Two files, or two folders whose files are paired by name; a pair that cannot be compared is left
    out and named, and the exit code is then 2. Every estimate is first aligned with its original to
    the sample; no gain is changed. Files at other rates are resampled to 48 kHz.

    The level_ metrics, in dB, compare 24 bands from the cutoff to where the original ends, 100
    times a second wherever the original has sound: bias is a band's mean error, wander the
    variation of its error over time, loud the quarter in which the high band is loudest,
    octave1 to octave3 are the octaves above the cutoff.
    """
    # Imported here: scipy and soundfile would slow down every other command's start.
    from rtsr.cli.progress import counting
    from rtsr.quality.compare import FolderComparison, compare_files, compare_folders
    from rtsr.quality.cutoff import measure_file_cutoff
    from rtsr.quality.evaluation import check_cutoff, check_metrics

    names = check_metrics(_split(metrics)) if metrics is not None else None
    folders = _both_folders(reference, estimate)
    if folders and plot is not None:
        raise ArgumentError(
            "--plot draws one pair of files; give two files instead of two folders."
        )
    if plot is not None and plot.suffix.lower() != ".png":
        raise ArgumentError(f"--plot draws a PNG; give a name that ends in .png, not '{plot}'.")
    if plot is not None and not plot.absolute().parent.is_dir():
        raise RtsrError(f"There is no folder {plot.absolute().parent} to write the picture into.")
    if cutoff is None:
        if input_file is None:
            raise ArgumentError(
                "The metrics depend on where the input's content ended: give --cutoff HZ "
                "(4000 for an 8 kHz file), or --input FILE to have it measured."
            )
        cutoff = measure_file_cutoff(input_file)
    check_cutoff(cutoff)
    if as_json:
        options.check_stdout()
    if not folders:
        _check_lengths(reference, estimate, *([] if input_file is None else [input_file]))

    before: dict[str, float] | None = None
    if folders:
        with counting("evaluating", enabled=not as_json) as show:
            result = compare_folders(reference, estimate, cutoff, names, show, artefacts=artefacts)
    else:
        pair = compare_files(reference, estimate, cutoff, names, artefacts=artefacts)
        result = FolderComparison([pair])
        if input_file is not None:
            before = compare_files(reference, input_file, cutoff, names).metrics
    if plot is not None:
        _plot(plot, reference, estimate, input_file, cutoff)
    if as_json:
        typer.echo(json.dumps(_as_object(result, cutoff, artefacts, before), allow_nan=False))
    else:
        _print_table(result, cutoff, names is None, before)
        if artefacts:
            _print_artefacts(result)
    if not folders and (end := _end_of(reference)) < 1.1 * cutoff:
        typer.echo(
            f"warning: {reference} holds nothing above {end:.0f} Hz, so that the scores mean "
            "nothing; the first file must be the full-band original",
            err=True,
        )
    for pair in result.files:
        for mismatch in pair.mismatches:
            typer.echo(f"warning: {pair.name} is {mismatch}", err=True)
    for name, why in result.failed.items():
        typer.echo(f"left out '{name}': {why}", err=True)
    if result.failed:
        raise typer.Exit(2)


def _end_of(reference: Path) -> float:
    """Return where an original's content ends in Hz; infinity for a silent one."""
    from rtsr.quality.cutoff import measure_file_cutoff

    try:
        return measure_file_cutoff(reference)
    except RtsrError:
        return math.inf


def _split(metrics: str) -> list[str]:
    return [name.strip() for name in metrics.split(",") if name.strip()]


def _both_folders(reference: Path, estimate: Path) -> bool:
    if reference.is_dir() != estimate.is_dir():
        raise ArgumentError(
            f"{reference} and {estimate} are a folder and a file; give two files or two folders."
        )
    return reference.is_dir()


def _check_lengths(*paths: Path) -> None:
    """Refuse files that are too short; those that cannot be opened are refused when read."""
    import soundfile

    from rtsr.audio.reader import native_name

    for path in paths:
        try:
            info = soundfile.info(native_name(path))
        except (soundfile.LibsndfileError, TypeError):
            continue
        if 0 < info.frames < _SHORTEST_SECONDS * info.samplerate:
            raise RtsrError(
                f"'{path}' is shorter than {_SHORTEST_SECONDS * 1000:.0f} ms "
                f"({info.frames} samples at {info.samplerate} Hz), too short to be evaluated."
            )


def _plot(
    path: Path, reference: Path, estimate: Path, input_file: Path | None, cutoff: float
) -> None:
    from rtsr.quality.align import align
    from rtsr.quality.audio import read_audio
    from rtsr.quality.spectrogram import save_spectrograms

    original, aligned, _ = align(read_audio(reference), read_audio(estimate), cutoff)
    panels = [(f"reference: {reference.name}", original), (f"estimate: {estimate.name}", aligned)]
    if input_file is not None:
        panels.insert(0, (f"input: {input_file.name}", read_audio(input_file)))
    title = f"{estimate.stem}, input cutoff {cutoff:.0f} Hz"
    save_spectrograms(path, panels, title=title, cutoff_hz=cutoff)


def _as_object(
    result: FolderComparison, cutoff: float, artefacts: bool, before: dict[str, float] | None
) -> dict[str, object]:
    from rtsr.quality.artefacts import ARTEFACTS

    answer: dict[str, object] = {
        "cutoff_hz": cutoff,
        "files": [
            {
                "name": pair.name,
                "reference": str(pair.reference),
                "estimate": str(pair.estimate),
                "metrics": _finite(pair.metrics),
                "mismatches": pair.mismatches,
            }
            | ({"artefacts": _finite(pair.artefacts)} if artefacts else {})
            for pair in result.files
        ],
        "median": _finite(result.median),
        "unmatched": result.unmatched,
        "failed": result.failed,
    }
    if before is not None:
        answer["input"] = _finite(before)
    if artefacts:
        answer |= {
            "artefact_median": _finite(result.artefact_median),
            "artefact_limits": {
                name: {"lowest": _limit(artefact.lowest), "highest": _limit(artefact.highest)}
                for name, artefact in ARTEFACTS.items()
            },
        }
    return answer


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: a metric that is not defined for these signals is null."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _print_table(
    result: FolderComparison, cutoff: float, all_metrics: bool, before: dict[str, float] | None
) -> None:
    from rtsr.quality.band_levels import BAND_LEVELS
    from rtsr.quality.visqol import visqol_available

    title = f"input cutoff {cutoff:.0f} Hz, {len(result.files)} pair(s)"
    names = list(result.files[0].metrics)
    if len(result.files) == 1:
        _print_one(result.files[0].metrics, before, title)
    else:
        # One table of all would be too wide to be read.
        for is_level in (False, True):
            part = [name for name in names if (name in BAND_LEVELS) == is_level]
            if part:
                _print_many(result, part, title)
    if result.unmatched:
        typer.echo(f"without a partner: {', '.join(result.unmatched)}", err=True)
    if all_metrics and not visqol_available():
        typer.echo('visqol left out; it needs: pip install "rtsr[eval]"', err=True)
    if any(math.isnan(pair.metrics.get("visqol", 0.0)) for pair in result.files):
        typer.echo("visqol needs at least 1 s of sound; shorter pairs show -", err=True)


def _print_one(metrics: dict[str, float], before: dict[str, float] | None, title: str) -> None:
    from rich.table import Table

    table = Table(title=title)
    table.add_column("metric")
    for heading in ("value",) if before is None else ("input", "estimate"):
        table.add_column(heading, justify="right")
    table.add_column("meaning", overflow="fold")
    for name, value in metrics.items():
        shown = [value] if before is None else [before[name], value]
        table.add_row(name, *map(_number, shown), MEANINGS[name].in_words)
    _console().print(table)


def _print_many(result: FolderComparison, names: list[str], title: str) -> None:
    from rich.table import Table

    table = Table(title=title)
    table.add_column("file", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for pair in result.files:
        table.add_row(pair.name, *(_number(pair.metrics[name]) for name in names))
    table.add_section()
    table.add_row("median", *(_number(result.median[name]) for name in names), style="bold")
    _console().print(table)


def _print_artefacts(result: FolderComparison) -> None:
    from rich.table import Table

    from rtsr.quality.artefacts import ARTEFACTS

    many = len(result.files) > 1
    table = Table(title="artefacts; ! marks what lies beyond its limit")
    table.add_column("artefact")
    for heading in ("median", "lowest", "highest", "beyond") if many else ("value",):
        table.add_column(heading, justify="right")
    table.add_column("limit")
    table.add_column("meaning", overflow="fold")
    for name, artefact in ARTEFACTS.items():
        values = [pair.artefacts[name] for pair in result.files]
        known = [value for value in values if not math.isnan(value)]
        median = result.artefact_median[name]
        values_shown = [_number(median) + ("" if artefact.accepts(median) else " !")]
        if many:
            values_shown += [_number(end(known, default=math.nan)) for end in (min, max)]
            values_shown.append(
                f"{sum(not artefact.accepts(value) for value in known)} of {len(known)}"
            )
        table.add_row(name, *values_shown, artefact.limits, artefact.meaning)
    _console().print(table)
    typer.echo("- : the original holds nothing to measure it on (no pause, no s, no attack...)")


def _console() -> Console:
    from rtsr.terminal import plain_console

    # Without a terminal there is no width to fit into, and a folded table is hard to read.
    return plain_console(width=None if sys.stdout.isatty() else 220)


def _limit(value: float) -> float | None:
    """JSON has no infinity: a missing limit is null."""
    return None if math.isinf(value) else value


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"

"""``rtsr colour``: learn a colour, and look at one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtsr.cli import options

if TYPE_CHECKING:
    from rtsr.colour.colour import Colour

colour_app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    no_args_is_help=True,
    help="Know a voice or microphone: gains of the new band, learnt once from full-band sound.",
)


@colour_app.command("learn")
def learn_command(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            metavar="VOICE.wav...",
            help="Full-band recordings of one voice or source, 10 s or more in all.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.json", help="Where to write it.")
    ],
    model: options.Model = "small",
    provider: options.Provider = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the colour as one JSON object.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Learn a colour from full-band recordings, for `--colour` of other commands.

    The sound is made narrow and enhanced again, and how far each new band is from
    its own on the whole becomes a gain. The file holds band gains and no sound.
    """
    from rtsr.cli.progress import counting
    from rtsr.colour_learning import learn_colour
    from rtsr.errors import RtsrError
    from rtsr.whole_file import check_writable

    if as_json:
        options.check_stdout()
    check_writable(output)
    if any(output.exists() and output.samefile(one) for one in recordings if one.exists()):
        raise RtsrError(f"Recording and output are the same file '{output}'; give another name.")
    with counting("learning", enabled=not (as_json or quiet)) as show:
        colour = learn_colour(recordings, model=model, provider=provider, progress=show)
    colour.save(output)
    if as_json:
        typer.echo(json.dumps(colour.to_json()))
    elif not quiet:
        _show(colour, output)


@colour_app.command("show")
def show_command(
    colour_file: Annotated[Path, typer.Argument(metavar="FILE.json")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a colour's file holds: its model, how much it rests on, its gains."""
    from rtsr.colour.colour import read_colour

    if as_json:
        options.check_stdout()
    colour = read_colour(colour_file)
    if as_json:
        typer.echo(json.dumps(colour.to_json()))
    else:
        _show(colour, colour_file)


def _show(colour: Colour, path: Path) -> None:
    from rich.table import Table

    from rtsr.colour.bands import CUTOFFS_HZ, colour_edges
    from rtsr.terminal import plain_console

    table = Table(title=f"gains in dB, by where the content of the input ends ({path})")
    table.add_column("band, kHz")
    for cutoff_hz in CUTOFFS_HZ:
        table.add_column(f"{cutoff_hz / 1000:g} kHz", justify="right")
    edges = colour_edges() / 1000.0
    for band, (low, high) in enumerate(itertools.pairwise(edges)):
        cells = [
            f"{gains[band]:+.1f}" if high * 1000.0 > cutoff_hz else ""
            for cutoff_hz, gains in zip(CUTOFFS_HZ, colour.gains_db, strict=True)
        ]
        table.add_row(f"{low:.1f} - {high:.1f}", *cells)
    console = plain_console()
    console.print(table)
    console.print(
        f"learnt for model '{colour.model}' from {colour.seconds:.1f} s of sound; "
        "band gains, no sound",
        highlight=False,
    )

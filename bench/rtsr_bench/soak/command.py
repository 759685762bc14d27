"""``rtsr bench soak`` and ``stalls``: the options of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def soak_command(
    minutes: Annotated[float, typer.Option("--minutes", help="Minutes to play.")] = 10.0,
    gil_hog: Annotated[
        bool,
        typer.Option("--gil-hog", help="In a program whose main thread spins in Python."),
    ] = False,
    load: Annotated[
        int,
        typer.Option("--load", metavar="N", help="Beside N programs that only use the processor."),
    ] = 0,
    model: Annotated[str, typer.Option("--model", "-m", help="Highest fallback level.")] = "small",
    clip: Annotated[str, typer.Option("--clip", help="What is played: speech or music.")] = "music",
    frames: Annotated[int, typer.Option("--frames", help="Frames of a JACK period.")] = 128,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Give the server real-time priority, if allowed.")
    ] = False,
    screen: Annotated[
        bool, typer.Option("--screen", help="With the screen of rtsr live, on a terminal.")
    ] = False,
    page: Annotated[
        bool,
        typer.Option("--page", help="With the page of rtsr live, and a program that reads it."),
    ] = False,
    colour: Annotated[
        bool,
        typer.Option("--colour", help="Played in full band, with a colour that is learnt of it."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures.")
    ] = None,
) -> None:
    """Run the live engine on a real sound server: does the sound ever stop?

    Starts a JACK server without a sound card, plays a recording into rtsr
    live, keeps what comes out, and says what was lost, what it took, and
    for how long the machine itself stood still. Linux, with jackd2.
    """
    import json

    from rtsr.terminal import plain_console
    from rtsr_bench.files import check_writable, write_text
    from rtsr_bench.soak.protocol import Protocol
    from rtsr_bench.soak.run import build_table, soak

    check_writable(json_file)
    protocol = Protocol(
        60.0 * minutes, gil_hog, load, model, clip, frames, realtime, screen, page, colour
    )
    results = soak(protocol)
    plain_console().print(build_table(results))
    if json_file is not None:
        write_text(json_file, json.dumps(results, indent=1) + "\n")


def stalls_command(
    seconds: Annotated[float, typer.Option("--seconds", help="Seconds to watch.")] = 60.0,
) -> None:
    """Say for how long this machine does not run what it should.

    On every core a program of the highest priority sleeps for 2 ms at a
    time. Whatever it wakes up late by, no sound could have been in time.
    """
    import time

    from rich.table import Table

    from rtsr.errors import ArgumentError
    from rtsr.terminal import plain_console
    from rtsr_bench.soak.stalls import LONGEST_SECONDS, StallWatch

    if not 0.0 < seconds <= LONGEST_SECONDS:
        raise ArgumentError(f"--seconds must be above 0 and at most {LONGEST_SECONDS:.0f}.")
    with StallWatch() as watch:
        time.sleep(seconds)
    stalls = watch.found
    table = Table(title=f"{stalls.seconds:.0f} s, {stalls.wake_ups} wake-ups", show_header=False)
    for row in stalls.rows():
        table.add_row(*row)
    plain_console().print(table)

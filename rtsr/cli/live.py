"""``rtsr live``: the engine between two audio devices."""

from __future__ import annotations

from typing import Annotated

import typer

from rtsr.cli import options
from rtsr.cli.addresses import host_and_port
from rtsr.errors import ArgumentError

_DEVICES = "Devices"
_CONTROLS = "Controls"
_WATCHING = "Watching"
_PAGE = "Page in the browser"
_LISTEN = "127.0.0.1:8080"


def live_command(
    input_device: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="DEVICE",
            help="Number or part of the name, see `rtsr devices`.",
            rich_help_panel=_DEVICES,
        ),
    ] = None,
    output_device: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="DEVICE", help="Likewise.", rich_help_panel=_DEVICES
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            "--rate",
            "-r",
            help="Sample rate of the devices in Hz; 48000 where they can.",
            rich_help_panel=_DEVICES,
        ),
    ] = None,
    out_rate: Annotated[
        int | None,
        typer.Option(
            "--out-rate",
            metavar="192000|96000|48000|...",
            help="Sample rate of the output device in Hz, if it is another. Beyond 48000 the "
            "octaves above 24 kHz are made, too.",
            rich_help_panel=_DEVICES,
        ),
    ] = None,
    frames: Annotated[
        int,
        typer.Option(
            "--frames",
            help="Frames per device block; fewer is sooner. 0: what the device likes. JACK has its "
            "own period.",
            rich_help_panel=_DEVICES,
        ),
    ] = 128,
    channels: Annotated[
        int | None,
        typer.Option(
            "--channels",
            "-c",
            help="Channels, 1 to 8; two where both devices have two, else one.",
            show_default=False,
            rich_help_panel=_DEVICES,
        ),
    ] = None,
    sample_format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="float32|int24|int16",
            help="Samples of the devices.",
            rich_help_panel=_DEVICES,
        ),
    ] = "float32",
    model: options.Model = "small",
    provider: options.Provider = "auto",
    threads: options.Threads = 1,
    octave_model: options.OctaveModel = None,
    cutoff: options.Cutoff = None,
    colour: options.KeptColour = None,
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker",
            metavar="process|thread",
            help="Where the model runs; a thread saves memory, a process (the default) keeps its "
            "time.",
            rich_help_panel=options._ENGINE,
        ),
    ] = None,
    limiter: options.Limiter = True,
    governor: Annotated[
        bool,
        typer.Option(
            "--governor/--no-governor",
            help="Take a cheaper model, or none, while the machine does not keep up.",
            rich_help_panel=options._ENGINE,
        ),
    ] = True,
    allowance_ms: Annotated[
        float,
        typer.Option(
            "--allowance-ms",
            help="Time that one step of 10 ms sound may take; part of the latency.",
            rich_help_panel=options._ENGINE,
        ),
    ] = 5.0,
    wet: Annotated[
        float | None,
        typer.Option(
            "--wet", help="Share of the generated band, 0 to 1.", rich_help_panel=_CONTROLS
        ),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option("--level", help="Its level in dB, -24 to 12.", rich_help_panel=_CONTROLS),
    ] = None,
    tilt: Annotated[
        float | None,
        typer.Option(
            "--tilt",
            help="Its slope in dB per octave, -6 (dark) to 6.",
            rich_help_panel=_CONTROLS,
        ),
    ] = None,
    ceiling: Annotated[
        float | None,
        typer.Option(
            "--ceiling",
            help="Where it ends in Hz, 8000 to 24000, or to half of an output rate beyond.",
            rich_help_panel=_CONTROLS,
        ),
    ] = None,
    gate: Annotated[
        float | None,
        typer.Option(
            "--gate",
            help="Only while the input is louder than this, in dBFS, -100 (off) to -30.",
            rich_help_panel=_CONTROLS,
        ),
    ] = None,
    bypass: Annotated[
        bool,
        typer.Option("--bypass", help="Start with the dry signal.", rich_help_panel=_CONTROLS),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Of the generated texture.", rich_help_panel=_CONTROLS),
    ] = None,
    midi: Annotated[
        str | None,
        typer.Option(
            "--midi",
            metavar="PORT",
            help="MIDI port with the knobs: number or part of the name.",
            rich_help_panel=options.KNOBS,
        ),
    ] = None,
    midi_map: options.MidiMap = None,
    learn: Annotated[
        str | None,
        typer.Option(
            "--learn",
            metavar="CONTROL",
            help="Bind the next knob that is moved, and write the map.",
            rich_help_panel=options.KNOBS,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="Stop after this time.", rich_help_panel=_WATCHING),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="No screen, no keys.", rich_help_panel=_WATCHING),
    ] = False,
    json_stats: Annotated[
        str | None,
        typer.Option(
            "--json-stats",
            metavar="FILE",
            help="Write what was counted and measured, at the end; - for stdout.",
            rich_help_panel=_WATCHING,
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--every",
            help="And a line now and every second meanwhile.",
            rich_help_panel=_WATCHING,
        ),
    ] = False,
    page: Annotated[
        bool,
        typer.Option(
            "--page",
            help="Serve a page that shows and steers it, on this machine alone; its address is "
            "printed.",
            rich_help_panel=_PAGE,
        ),
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help=f"Where the page is, {_LISTEN} if left out.",
            show_default=False,
            rich_help_panel=_PAGE,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="SECRET",
            help="What the page's address must carry; drawn anew at every start if left out.",
            envvar="RTSR_PAGE_TOKEN",
            rich_help_panel=_PAGE,
        ),
    ] = None,
    test: Annotated[
        bool,
        typer.Option(
            "--test",
            help="Send a click from output to input (connect them) and measure the latency; the "
            "model runs in a thread meanwhile.",
            rich_help_panel=_WATCHING,
        ),
    ] = False,
) -> None:
    """Enhance sound from one device to another while it plays.

    Stop with q or Ctrl-C. What cannot be enhanced in time is played as it came in,
    equally late: the sound has no gaps. Keys turn the controls, ? shows them.

      rtsr live                                   the default devices

      rtsr live -i headset -o "virtual cable"     clean up a call

      rtsr live --page                            and watch and steer it in a browser

      rtsr live --out-rate 96000                  one octave more, where the device has it

      rtsr live -q --json-stats stats.json --seconds 600
    """
    from rtsr.cli.knobs import Knobs
    from rtsr.cli.live_run import Page, measure, play, until_signal
    from rtsr.colour.auto import AutoColour
    from rtsr.colour.colour import read_colour
    from rtsr.live.settings import LiveSettings

    if every and json_stats is None:
        raise ArgumentError("--every adds lines to the file of --json-stats; give that, too.")
    if listen is not None and not page:
        raise ArgumentError("--listen says where the page is; give --page, too.")
    if seconds is not None and not seconds > 0.0:
        raise ArgumentError(f"--seconds must be more than 0, not {seconds:g}.")
    given = {
        "wet": wet,
        "level_db": level,
        "tilt_db": tilt,
        "ceiling_hz": ceiling,
        "gate_dbfs": gate,
        "bypass": 1.0 if bypass else None,
        "seed": seed,
    }
    kept = options.kept_colour_file(colour)
    known = read_colour(kept) if kept is not None and kept.exists() else None
    settings = LiveSettings(
        input_device=input_device,
        output_device=output_device,
        rate=rate,
        output_rate=out_rate,
        block=frames,
        channels=1 if test and channels is None else channels,
        sample_format=sample_format,
        model=model,
        provider=provider,
        threads=threads,
        cutoff_hz=cutoff,
        octave_model=octave_model,
        colour=options.read_colour_option(colour) if kept is None else AutoColour(known),
        limiter=limiter,
        governor=governor,
        worker=worker or ("thread" if test else "process"),
        controls={name: float(value) for name, value in given.items() if value is not None},
        allowance_ms=allowance_ms,
    )
    if test:
        _check_test(
            {
                "--seconds": seconds is not None,
                "--every": every,
                "--midi": midi is not None,
                "--midi-map": midi_map is not None,
                "--learn": learn is not None,
                "--page": page,
                "--worker process": worker == "process",
                "--colour auto:FILE.json": kept is not None,
                "--colour auto": colour == "auto",
            }
        )
        measure(settings, json_stats, quiet)
        return
    knobs = Knobs(midi, midi_map, learn, on_page=page)
    shown = Page(host_and_port(listen or _LISTEN), token or "") if page else None
    with until_signal() as stopped:
        play(settings, stopped, seconds, quiet, json_stats, every, knobs, shown, kept)


def _check_test(others: dict[str, bool]) -> None:
    given = [name for name, is_given in others.items() if is_given]
    if given:
        raise ArgumentError(f"--test measures once, by itself; leave out {', '.join(given)}.")

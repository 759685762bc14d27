"""``rtsr pipe``: raw PCM from stdin to stdout."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rtsr.cli import options
from rtsr.errors import RtsrError


def pipe_command(
    rate: Annotated[int, typer.Option("--rate", "-r", help="Sample rate of the input in Hz.")],
    channels: Annotated[
        int, typer.Option("--channels", "-c", help="Interleaved channels, 1 to 8.")
    ] = 1,
    sample_format: Annotated[
        str,
        typer.Option("--format", "-f", metavar="s16|f32", help="Samples in, little-endian."),
    ] = "s16",
    out_format: Annotated[
        str | None,
        typer.Option("--out-format", metavar="s16|f32", help="Samples out; as in if left out."),
    ] = None,
    drop_latency: Annotated[
        bool,
        typer.Option("--drop-latency", help="Leave out the delay, so that out aligns with in."),
    ] = False,
    model: options.Model = "small",
    provider: options.Provider = "auto",
    block_ms: options.BlockMs = 10,
    threads: options.Threads = 1,
    seed: options.Seed = 0,
    cutoff: options.Cutoff = None,
    ceiling: options.Ceiling = None,
    wet: options.Wet = 1.0,
    colour: options.Colour = None,
    out_rate: options.OutRate = None,
    octave_model: options.OctaveModel = None,
    limiter: options.Limiter = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print latency and step times to stderr.")
    ] = False,
) -> None:
    """Enhance raw PCM from stdin to stdout.

    What has arrived is processed and passed on at once; at the end of the input
    the rest follows. For example, with ffmpeg, and with sox in stereo:

      ffmpeg -v 0 -i in.mp3 -f s16le -ac 1 -ar 8000 - | rtsr pipe -r 8000 >out.s16

      sox in.wav -t raw -e signed -b 16 -r 16000 -c 2 - | rtsr pipe -r 16000 -c 2
    """
    from rtsr.pipe import check_format, run_pipe

    check_format(sample_format)
    options.check_band(cutoff, ceiling)
    if out_format is not None:
        check_format(out_format)
    for stream, name in ((sys.stdin, "stdin"), (sys.stdout, "stdout")):
        if stream is None:
            raise RtsrError(f"{name} is closed; connect it to a program or file.")
    if sys.stdin.isatty() or sys.stdout.isatty():
        end = "stdin" if sys.stdin.isatty() else "stdout"
        raise RtsrError(
            f"`rtsr pipe` moves raw PCM and {end} is a terminal; connect it to a program or file."
        )
    from rtsr.upsampler import Upsampler

    with Upsampler(
        rate,
        model=model,
        provider=provider,
        channels=channels,
        hops_per_step=options.hops_of_block(block_ms),
        threads=threads,
        seed=seed,
        cutoff=cutoff,
        ceiling=ceiling,
        wet=wet,
        output_rate=out_rate,
        octave_model=octave_model,
        limiter=limiter,
        colour=options.read_colour_option(colour),
    ) as upsampler:
        if unusable := options.cutoff_warning(cutoff, rate):
            typer.echo(f"rtsr: {unusable}", err=True)
        report = run_pipe(
            upsampler,
            sys.stdin.fileno(),
            sys.stdout.fileno(),
            input_format=sample_format,
            output_format=out_format,
            drop_latency=drop_latency,
        )
        statistics = upsampler.statistics
        unused = options.ceiling_warning(ceiling, report.cutoff_hz, statistics.added_steps)
        if unused is not None:
            typer.echo(f"rtsr: {unused}", err=True)
        if report.left_over_bytes:
            typer.echo(
                f"rtsr: the input ended within a sample: its last {report.left_over_bytes} byte(s) "
                f"were left out; are --format {sample_format} and --channels {channels} right?",
                err=True,
            )
        if statistics.repaired_samples:
            typer.echo(
                f"rtsr: {statistics.repaired_samples} input samples were not usable numbers and "
                "were replaced.",
                err=True,
            )
        if report.clipped_samples:
            typer.echo(
                f"rtsr: {report.clipped_samples} output samples exceeded full scale and were "
                "clipped; lower the input's level or write --out-format f32.",
                err=True,
            )
        if statistics.degraded_blocks:
            typer.echo(
                f"rtsr: {statistics.degraded_blocks} blocks came out without a high band.",
                err=True,
            )
        if verbose:
            if learning := options.describe_learning(upsampler.colour):
                typer.echo(learning, err=True)
            times = statistics.step_ms
            typer.echo(
                f"{report.received} samples in, {report.sent} out, {report.clipped_samples} "
                f"clipped; latency {upsampler.latency.algorithmic_ms:.2f} ms; step p50 "
                f"{times.p50:.2f}, p99.9 {times.p99_9:.2f}, max {times.max:.2f} ms",
                err=True,
            )

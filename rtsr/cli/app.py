"""The ``rtsr`` application: finds its commands, and turns errors into one sentence and a code.

A command's module is imported when the command is used or listed; what a command needs to run it
imports inside its function. So ``rtsr --help`` is quick and ``rtsr pipe`` starts without the rest.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rtsr.cli.compile_messages import tell_of_compiling
from rtsr.cli.sentences import EXIT_BAD_INPUT, sentence_of
from rtsr.errors import RtsrError, RtsrWarning

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

PLUG_INS = "rtsr.commands"

_COMMANDS = {
    "enhance": "rtsr.cli.enhance:enhance_command",
    "pipe": "rtsr.cli.pipe:pipe_command",
    "devices": "rtsr.cli.devices:devices_command",
    "live": "rtsr.cli.live:live_command",
    "call": "rtsr.cli.call:call_app",
    "demo": "rtsr.cli.demo:demo_command",
    "colour": "rtsr.cli.colour:colour_app",
    "models": "rtsr.cli.models:models_command",
    "eval": "rtsr.cli.eval:eval_command",
    "train": "rtsr.cli.train:train_command",
    "warm-up": "rtsr.cli.warm_up:warm_up_command",
}


# Typer brings its own copy of click's exceptions; this is the public way to their base.
_UsageError: Any = typer.BadParameter.__base__


class _Commands(TyperGroup):
    """Loads commands on demand: ours, and those of other distributions (entry points)."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run as a program; wrong use ends in one sentence on stderr, too."""
        _let_any_file_name_be_printed()
        # Without arguments the help is printed, which is an error to typer.
        without_arguments = not (sys.argv[1:] if args is None else args)
        standalone = standalone_mode and without_arguments

        def run() -> Any:
            return super(_Commands, self).main(
                args, prog_name, complete_var, standalone, windows_expand_args, **extra
            )

        if standalone or not standalone_mode:
            return run()
        try:
            code = run()
        except _UsageError as error:
            message = " ".join(error.format_message().split()).rstrip(".")
            program = error.ctx.command_path if error.ctx else "rtsr"
            if not message:
                # A group without a command, whose help has just been printed.
                sys.exit(error.exit_code)
            _fail(f"{message}; see `{program} --help`.")
        except typer.Abort:
            sys.exit(EXIT_INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: Any) -> list[str]:
        """List our commands in the order in which one learns them, then the others."""
        return [*_COMMANDS, *sorted(set(_plug_ins()) - set(_COMMANDS))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, or ``None``."""
        if cmd_name in _COMMANDS:
            place = metadata.EntryPoint(cmd_name, _COMMANDS[cmd_name], PLUG_INS)
            return _as_command(cmd_name, place.load())
        entry_point = _plug_ins().get(cmd_name)
        if entry_point is None:
            return None
        try:
            return _as_command(cmd_name, entry_point.load())
        except Exception as error:  # a broken plug-in must not take the others with it
            return _as_command(cmd_name, _not_loadable(cmd_name, entry_point.value, error))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an expected error ends in one sentence on stderr."""
        tell_of_compiling()
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            _silence_stdout()
            sys.exit(EXIT_BROKEN_PIPE)
        except (RtsrError, OSError) as error:
            _fail(sentence_of(error))


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import rtsr

        typer.echo(f"rtsr {rtsr.__version__}")
        raise typer.Exit


@app.callback()
def rtsr_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    r"""Real-time audio super-resolution: narrow-band sound in, full-band sound out.

    Everything runs as a stream with about 13 ms of algorithmic latency,
    on one core of a CPU.

    [bold]Try it[/bold]

      rtsr demo                           stream a packaged recording
      rtsr enhance call.wav call-48k.wav  a WAV, FLAC, Ogg, Opus or MP3 file
      rtsr live                           from microphone to loudspeaker, while it plays
      rtsr eval original.wav call-48k.wav --input call.wav --plot spectra.png

    [bold]In a chain of programs[/bold]

      ffmpeg -v 0 -i call.mp3 -f s16le -ac 1 -ar 8000 - \
        | rtsr pipe --rate 8000 | play -t raw -e signed -b 16 -r 48000 -

    Bad input ends with one sentence on stderr and exit code 2.
    [bold]rtsr COMMAND --help[/bold] explains a command.
    """


def _plug_ins() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=PLUG_INS)}


def _as_command(name: str, function: Callable[..., None] | typer.Typer) -> Any:
    if isinstance(function, typer.Typer):
        group = typer.main.get_command(function)
        group.name = name
        return group
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(name)(function)
    return typer.main.get_command(single)


def _not_loadable(name: str, origin: str, error: Exception) -> Callable[[], None]:
    reason = f"{type(error).__name__}: {error}"

    def not_loadable() -> None:
        raise RtsrError(f"Command {name!r} ({origin}) cannot be loaded ({reason}).")

    not_loadable.__doc__ = f"(cannot be loaded: {reason})"
    return not_loadable


def _let_any_file_name_be_printed() -> None:
    # A name that is not UTF-8 holds surrogates, which stdout refuses to encode by default.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


def _fail(sentence: str) -> None:
    if sys.stdout is not None:
        sys.stdout.flush()
    if sys.stderr is not None:  # print() would take stdout instead
        # Where stderr cannot be written either, the exit code remains.
        with contextlib.suppress(OSError):
            print(f"rtsr: {sentence}", file=sys.stderr, flush=True)
    sys.exit(EXIT_BAD_INPUT)


_show_other_warning = warnings.showwarning


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, *rest: Any, **named: Any
) -> None:
    """Print our warnings as one sentence, without the place in the source."""
    if issubclass(category, RtsrWarning):
        with contextlib.suppress(OSError):
            print(f"rtsr: {message}", file=sys.stderr, flush=True)
    else:
        _show_other_warning(message, category, filename, *rest, **named)


def _silence_stdout() -> None:
    # The interpreter flushes stdout once more on its way out, and would complain about it.
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)

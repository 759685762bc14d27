"""Options that several commands share, declared once so that they read the same everywhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtsr.errors import ArgumentError, RtsrError

if TYPE_CHECKING:
    from rtsr.colour.auto import AutoColour
    from rtsr.colour.colour import Colour as LearntColour
    from rtsr.runtime.models import Model as FoundModel

_ENGINE = "Engine"
_SOUND = "Sound"
KNOBS = "Knobs"

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A bundled model (see `rtsr models`), `replicate`, or the path of an .onnx file.",
        rich_help_panel=_ENGINE,
    ),
]
Network = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A bundled network (see `rtsr models`), or the path of an .onnx file.",
        rich_help_panel=_ENGINE,
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        "--provider",
        metavar="NAME[:OPTION=VALUE]...",
        help="auto, cpu, cuda or tensorrt. Options of a GPU: device=N, graph=on|off|auto, and for "
        "cuda tf32=on|off, search=heuristic|exhaustive|default, for tensorrt fp16=on|off.",
        rich_help_panel=_ENGINE,
    ),
]
BlockMs = Annotated[
    int,
    typer.Option(
        "--block-ms",
        metavar="10|20|40|80|160",
        help="Audio per model step; longer is cheaper and later.",
        rich_help_panel=_ENGINE,
    ),
]
Threads = Annotated[
    int, typer.Option("--threads", help="CPU threads per step.", rich_help_panel=_ENGINE)
]
MidiMap = Annotated[
    Path | None,
    typer.Option(
        "--midi-map",
        metavar="FILE",
        help="Which knob turns which control (TOML).",
        rich_help_panel=KNOBS,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        help="Of the generated texture: the same seed, the same output.",
        rich_help_panel=_ENGINE,
    ),
]
Cutoff = Annotated[
    float | None,
    typer.Option(
        "--cutoff",
        metavar="HZ",
        help="Where the input's real content ends. Measured if left out.",
        rich_help_panel=_SOUND,
    ),
]
Ceiling = Annotated[
    float | None,
    typer.Option(
        "--ceiling",
        metavar="HZ",
        help="Where the output should end. The model's default if left out.",
        rich_help_panel=_SOUND,
    ),
]
Wet = Annotated[
    float,
    typer.Option(
        "--wet",
        metavar="0..1",
        help="Gain of the generated band; 0 leaves the input as it is.",
        rich_help_panel=_SOUND,
    ),
]
# Before the name of the file in which what is learnt is kept.
_KEPT = "auto:"
_COLOUR_HELP = "Gains of the new band that `rtsr colour learn` found for this voice"
Colour = Annotated[
    str | None,
    typer.Option(
        "--colour",
        metavar="auto|FILE.json",
        help=f"{_COLOUR_HELP}; auto learns them while the input is wide.",
        rich_help_panel=_SOUND,
    ),
]
KeptColour = Annotated[
    str | None,
    typer.Option(
        "--colour",
        metavar="auto[:FILE.json]|FILE.json",
        help=f"{_COLOUR_HELP}; auto learns them while the input is wide, auto:FILE.json goes on "
        "from that file, if there is one, and keeps what was learnt there at the end.",
        rich_help_panel=_SOUND,
    ),
]
CallersColours = Annotated[
    str | None,
    typer.Option(
        "--colour",
        metavar="auto[:FOLDER]|FILE.json",
        help=f"{_COLOUR_HELP}, for all callers; auto learns each caller's own while their band is "
        "wide, auto:FOLDER keeps each in a file there from call to call.",
        rich_help_panel=_SOUND,
    ),
]
OutRate = Annotated[
    int | None,
    typer.Option(
        "--out-rate",
        metavar="192000|96000|48000|44100|...",
        help="Sample rate of the output in Hz, down to 16000. If left out 48000, or the input's "
        "own where that is higher; such a rate is kept or doubled.",
        rich_help_panel=_SOUND,
    ),
]
OctaveModel = Annotated[
    str | None,
    typer.Option(
        "--octave-model",
        metavar="MODEL",
        help="What makes the octaves beyond 48 kHz. If left out, `octave` makes one beside a "
        "bundled network, and otherwise --model.",
        rich_help_panel=_ENGINE,
    ),
]
Limiter = Annotated[
    bool,
    typer.Option(
        "--limiter/--no-limiter",
        help="Turn peaks above -1 dBFS down, so that none leaves full scale.",
        rich_help_panel=_SOUND,
    ),
]


def read_colour_option(colour: str | None) -> LearntColour | str | None:
    """Return what ``--colour`` names: the colour in a file, the word ``auto``, or none.

    Raises:
        RtsrError: the file cannot be read, or holds no colour.
        ArgumentError: what is learnt is to be kept in a file.
    """
    from rtsr.colour.colour import read_colour

    if colour is not None and colour.startswith(_KEPT):
        raise ArgumentError(
            f"Only `rtsr live` and `rtsr call sip` keep what they learn; give auto, or the file, "
            f"not '{colour}'."
        )
    return colour if colour is None or colour == "auto" else read_colour(colour)


def kept_colour_file(colour: str | None) -> Path | None:
    """Return the file in which ``--colour auto:FILE.json`` keeps what is learnt.

    Raises:
        RtsrError: no file is named, or it cannot be written.
    """
    from rtsr.whole_file import check_writable

    path = _kept_in(colour, "the file to keep it in, as in auto:me.json")
    if path is not None:
        check_writable(path)
    return path


def kept_colours_folder(colour: str | None) -> Path | None:
    """Return the folder in which ``--colour auto:FOLDER`` keeps what is learnt of each caller.

    Raises:
        ArgumentError: no folder is named.
    """
    return _kept_in(colour, "the folder to keep them in, as in auto:colours")


def _kept_in(colour: str | None, needed: str) -> Path | None:
    if colour is None or not colour.startswith(_KEPT):
        return None
    name = colour.removeprefix(_KEPT)
    if not name:
        raise ArgumentError(f"--colour auto: needs {needed}.")
    # The shell does so at the beginning of a word alone.
    return Path(os.path.expanduser(name))


def describe_learning(colour: LearntColour | AutoColour | None) -> str | None:
    """Return a sentence on what was learnt by itself, or ``None`` where nothing is."""
    from rtsr.colour.auto import AutoColour

    if not isinstance(colour, AutoColour):
        return None
    return (
        f"colour: {colour.learnt_hops / 100:.1f} s with sound learnt from and "
        f"{colour.skipped_hops / 100:.1f} s skipped, of {colour.heard_hops / 100:.1f} s of wide "
        "input"
    )


def find_network(model: str) -> FoundModel:
    """Return the network that ``--model`` names, for commands that run nothing else.

    Raises:
        ArgumentError: ``model`` is no network.
        ModelError: it cannot be read.
    """
    from rtsr.runtime.models import bundled, find_model

    found = find_model(model)
    if not found.is_network:
        raise ArgumentError(
            f"Calls need a network, and {model!r} is none: {', '.join(bundled())}, or the path of "
            "an .onnx file."
        )
    return found


def check_stdout() -> None:
    """Raise :class:`RtsrError` if what a command prints would be lost."""
    if sys.stdout is None:
        raise RtsrError("stdout is closed; connect it to a program or file.")


def cutoff_warning(cutoff: float | None, input_rate: int) -> str | None:
    """Return a warning if the input cannot hold content up to the given cutoff, else ``None``."""
    if cutoff is None or cutoff <= input_rate / 2:
        return None
    return (
        f"--cutoff {cutoff:g} Hz is beyond what a rate of {input_rate} Hz can hold; "
        f"{input_rate / 2:g} Hz is used."
    )


def check_band(cutoff: float | None, ceiling: float | None) -> None:
    """Raise :class:`ArgumentError` unless a ceiling lies above a cutoff, where both are given."""
    if cutoff is not None and ceiling is not None and ceiling <= cutoff:
        raise ArgumentError(
            f"--ceiling {ceiling:g} Hz is not above --cutoff {cutoff:g} Hz, so there is no band to "
            "add; give a higher ceiling."
        )


def ceiling_warning(ceiling: float | None, cutoff_hz: float, added_steps: int) -> str | None:
    """Return a warning if a ceiling within the input's content left nothing to add, else ``None``.

    Args:
        ceiling: as given.
        cutoff_hz: where the content of the input's end ends; elsewhere it may have ended lower.
        added_steps: steps that added something, anywhere.
    """
    if ceiling is None or ceiling > cutoff_hz or added_steps:
        return None
    return (
        f"nothing was added: the input's content reaches up to {cutoff_hz:.0f} Hz, beyond "
        f"--ceiling {ceiling:g} Hz."
    )


def hops_of_block(block_ms: int) -> int:
    """Return the hops per step for a block length in milliseconds.

    Raises:
        ArgumentError: the length is not accepted.
    """
    from rtsr.files import HOPS_OF_BLOCK_MS

    if block_ms not in HOPS_OF_BLOCK_MS:
        accepted = ", ".join(map(str, HOPS_OF_BLOCK_MS))
        raise ArgumentError(f"The block length must be one of {accepted} ms, not {block_ms}.")
    return HOPS_OF_BLOCK_MS[block_ms]

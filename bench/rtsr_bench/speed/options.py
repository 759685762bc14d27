"""From the options of the command line to a plan, or one sentence about what is wrong with them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from rtsr.errors import ArgumentError
from rtsr.runtime.providers import select as providers
from rtsr_bench.speed import external_model, matrix, run
from rtsr_bench.speed.measure import Protocol
from rtsr_bench.speed.stream_search import EXACT_UP_TO

# An exact number takes more trials than two minutes have room for.
_QUICK_EXACT_UP_TO = 4


def build_plan(
    axes: matrix.Axes,
    peers: list[matrix.Case],
    references: bool,
    repetitions: int | None,
    seconds: float | None,
    paced: bool,
    search: bool,
    most_streams: int,
    quick: bool,
    began: float,
    command: str,
) -> run.Plan:
    """Build the plan of matrix, peers and references; ``None`` is the default.

    ``began`` is the ``time.monotonic()`` from which the time of a quick run counts.

    Raises:
        ArgumentError: something that cannot be measured was asked for.
    """
    repetitions = (2 if quick else 5) if repetitions is None else repetitions
    seconds = (1.0 if quick else 2.0) if seconds is None else seconds
    if not 1 <= repetitions <= 1000:
        raise ArgumentError(f"The number of repetitions must be 1 to 1000, not {repetitions}.")
    if not 0.01 <= seconds <= 600.0:
        raise ArgumentError(f"A repetition must take 0.01 to 600 seconds, not {seconds:g}.")
    matrix.check_streams(most_streams)
    cases = [*matrix.model_cases(axes), *peers]
    searches = [case.with_streams(1) for case in cases if run.can_search(case)]
    if references:
        hops, streams = min(axes.hops), min(axes.streams)
        cases += [matrix.reference_case(kind, hops, streams) for kind in matrix.REFERENCES]
    return run.Plan(
        list(dict.fromkeys(cases)),
        list(dict.fromkeys(searches)) if search else [],
        repetitions,
        Protocol(seconds=seconds, warm_up_seconds=max(0.5 * seconds, 0.05), paced=paced),
        most_streams,
        _QUICK_EXACT_UP_TO if quick else EXACT_UP_TO,
        run.QUICK_SECONDS if quick else None,
        began,
        command,
    )


def peer_cases(
    file: Path,
    inputs: list[str],
    outputs: list[str],
    states: list[str],
    period_ms: float,
    axes: matrix.Axes,
) -> list[matrix.Case]:
    """Cases of a external file, after one call that shows that its declaration fits.

    Raises:
        ArgumentError: it does not.
    """
    matrix.check_axes(axes)
    declaration = external_model.parse_declaration(inputs, outputs, states)
    cases = external_model.external_cases(
        file,
        declaration,
        matrix.choose_providers(axes.providers),
        axes.streams,
        axes.threads,
        period_ms,
    )
    # One call here, so that a wrong declaration is known now and not after half an hour. On the
    # CPU if that is asked for: a GPU that does not start is noted in its case.
    by_provider = {case.provider: case for case in cases}
    external_model.ExternalStep(by_provider.get(providers.CPU, cases[-1])).step()
    return cases


def names(option: str, values: list[str] | None) -> list[str] | None:
    """Options may be repeated or joined by commas; ``None`` if there are none.

    Raises:
        ArgumentError: such an option is there, but nothing in it.
    """
    found = [name for value in values or () for name in value.split(",") if name]
    if values and not found:
        raise ArgumentError(f"{option} is empty; name something, or leave it out.")
    return found or None


def numbers(option: str, values: list[str] | None, default: tuple[int, ...]) -> list[int]:
    """Whole numbers of such an option.

    Raises:
        ArgumentError: one of them is none.
    """
    found = names(option, values)
    if found is None:
        return list(default)
    for name in found:
        if not re.fullmatch(r"-?\d{1,9}", name):
            raise ArgumentError(f"{option} takes whole numbers, not {name!r}.")
    return list(dict.fromkeys(int(name) for name in found))


def command_line() -> str:
    """Write how it was asked for, without the folders of this machine."""
    words = [re.sub(r"^(--[a-z-]+=)?[./~].*/", r"\1", word) for word in sys.argv[1:]]
    return shlex.join(["rtsr", *words])

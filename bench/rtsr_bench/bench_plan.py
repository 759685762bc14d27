"""From the options of the command line to a plan, or one sentence about what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

from rtsr.errors import RtsrError
from rtsr.runtime.providers import select as providers
from rtsr_bench import campaign, foreign, matrix
from rtsr_bench.measure import Protocol
from rtsr_bench.streams import EXACT_UP_TO

# An exact number takes more trials than two minutes have room for.
_QUICK_EXACT_UP_TO = 4


def build_plan(
    axes: matrix.Axes,
    peers: list[matrix.Cell],
    floor: bool,
    repetitions: int | None,
    seconds: float | None,
    paced: bool,
    search: bool,
    most_streams: int,
    quick: bool,
    began: float,
    command: str,
) -> campaign.Plan:
    """The matrix, the peers and the floor, and how they are taken; ``None`` is the default.

    ``began`` is the ``time.monotonic()`` from which the time of a quick run counts.

    Raises:
        RtsrError: something that cannot be measured was asked for.
    """
    repetitions = (2 if quick else 5) if repetitions is None else repetitions
    seconds = (1.0 if quick else 2.0) if seconds is None else seconds
    if not 1 <= repetitions <= 1000:
        raise RtsrError(f"The number of repetitions must be 1 to 1000, not {repetitions}.")
    if not 0.01 <= seconds <= 600.0:
        raise RtsrError(f"A repetition must take 0.01 to 600 seconds, not {seconds:g}.")
    matrix.check_streams(most_streams)
    cells = [*matrix.model_cells(axes), *peers]
    searches = [cell.with_streams(1) for cell in cells if campaign.can_search(cell)]
    if floor:
        hops, streams = min(axes.hops), min(axes.streams)
        cells += [matrix.floor_cell(kind, hops, streams) for kind in matrix.FLOORS]
    return campaign.Plan(
        list(dict.fromkeys(cells)),
        list(dict.fromkeys(searches)) if search else [],
        repetitions,
        Protocol(seconds=seconds, warm_up_seconds=max(0.5 * seconds, 0.05), paced=paced),
        most_streams,
        _QUICK_EXACT_UP_TO if quick else EXACT_UP_TO,
        campaign.QUICK_SECONDS if quick else None,
        began,
        command,
    )


def peer_cells(
    file: Path,
    inputs: list[str],
    outputs: list[str],
    states: list[str],
    period_ms: float,
    axes: matrix.Axes,
) -> list[matrix.Cell]:
    """Cells of a foreign file, after one call that shows that its declaration fits.

    Raises:
        RtsrError: it does not.
    """
    matrix.check_axes(axes)
    declaration = foreign.parse_declaration(inputs, outputs, states)
    cells = foreign.foreign_cells(
        file,
        declaration,
        matrix.choose_providers(axes.providers),
        axes.streams,
        axes.threads,
        period_ms,
    )
    # One call here, so that a wrong declaration is known now and not after half an hour. On the
    # CPU if that is asked for: a GPU that does not start is noted in its cell.
    by_provider = {cell.provider: cell for cell in cells}
    foreign.ForeignStep(by_provider.get(providers.CPU, cells[-1])).step()
    return cells


def names(option: str, values: list[str] | None) -> list[str] | None:
    """Options may be repeated or joined by commas; ``None`` if there are none.

    Raises:
        RtsrError: such an option is there, but nothing in it.
    """
    found = [name for value in values or () for name in value.split(",") if name]
    if values and not found:
        raise RtsrError(f"{option} is empty; name something, or leave it out.")
    return found or None


def numbers(option: str, values: list[str] | None, default: tuple[int, ...]) -> list[int]:
    """Whole numbers of such an option.

    Raises:
        RtsrError: one of them is none.
    """
    found = names(option, values)
    if found is None:
        return list(default)
    for name in found:
        if not re.fullmatch(r"-?\d{1,9}", name):
            raise RtsrError(f"{option} takes whole numbers, not {name!r}.")
    return list(dict.fromkeys(int(name) for name in found))

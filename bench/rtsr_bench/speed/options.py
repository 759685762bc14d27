"""From the options of the command line to a plan, or one sentence about what is wrong with them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import typer

from rtsr.cli.given import options_given
from rtsr.errors import ArgumentError
from rtsr.runtime.providers import select as providers
from rtsr_bench.files import check_writable
from rtsr_bench.machine import command_line
from rtsr_bench.speed import external_model, matrix, order, run
from rtsr_bench.speed.gpu_monitor import require_free
from rtsr_bench.speed.measure import Protocol
from rtsr_bench.speed.stream_search import EXACT_UP_TO

# An exact number takes more trials than two minutes have room for.
_QUICK_EXACT_UP_TO = 4
#: A number of streams above 8 is found within an eighth of it.
_EVIDENCE_EXACT_UP_TO = 8
_LEAST_BUDGET_S, _DEFAULT_BUDGET_S, _MOST_BUDGET_S = 10.0, 270.0, 86_400.0
_MATRIX = ("provider", "model", "precision", "hops", "streams", "threads")
#: what goes with an option, and why nothing else does
_BESIDE = {
    "--evidence": ({*_MATRIX, "evidence", "budget"}, "has a protocol of its own"),
    "--compare": ({"comparison", "json_file", "html_file"}, "measures nothing"),
}
#: Seconds of timed steps per item: this part of the budget, within limits.
_PART_PER_ITEM, _LEAST_S, _MOST_S = 1 / 150, 0.05, 2.0


def build_plan(
    axes: matrix.Axes,
    peers: list[matrix.Case],
    references: bool,
    repetitions: int | None,
    seconds: float | None,
    paced: bool,
    search: bool,
    most_streams: int | None,
    quick: bool,
    began: float,
) -> run.Plan:
    """Build the plan of matrix, peers and references; ``None`` is the default.

    ``began`` is the ``time.monotonic()`` from which the time of a quick run counts.

    Raises:
        ArgumentError: something that cannot be measured was asked for.
    """
    repetitions = (2 if quick else 5) if repetitions is None else repetitions
    seconds = (1.0 if quick else 2.0) if seconds is None else seconds
    most_streams = run.Plan.most_streams if most_streams is None else most_streams
    if not 1 <= repetitions <= 1000:
        raise ArgumentError(f"The number of repetitions must be 1 to 1000, not {repetitions}.")
    if not 0.01 <= seconds <= 600.0:
        raise ArgumentError(f"A repetition must take 0.01 to 600 seconds, not {seconds:g}.")
    matrix.check_streams(most_streams)
    cases = [*matrix.model_cases(axes), *peers]
    searches = [case.with_streams(1) for case in cases if search and run.can_search(case)]
    if references:
        hops, streams = min(axes.hops), min(axes.streams)
        cases += [matrix.reference_case(kind, hops, streams) for kind in matrix.REFERENCES]
    cases, searches = (
        list(dict.fromkeys(replace(case, paced=paced) for case in some))
        for some in (cases, searches)
    )
    return run.Plan(
        order.in_turns(cases, searches, repetitions),
        Protocol(seconds=seconds, warm_up_seconds=max(0.5 * seconds, 0.05)),
        most_streams,
        _QUICK_EXACT_UP_TO if quick else EXACT_UP_TO,
        budget_seconds=run.QUICK_SECONDS if quick else None,
        began=began,
        command=command_line(),
    )


def check_apart(json_file: Path | None, html_file: Path | None, *read: Path | None) -> None:
    """Raise :class:`ArgumentError` where a file that is written has the name of another one."""
    for file, others in ((json_file, read), (html_file, (json_file, *read))):
        # Devices may be named as often as one likes.
        is_file = file is not None and (file.is_file() or not file.exists())
        if file and is_file and file.resolve() in [one.resolve() for one in others if one]:
            raise ArgumentError(f"'{file}' is named twice; what is written needs its own name.")


def check_beside(context: typer.Context, option: str) -> None:
    """Raise :class:`ArgumentError` for options that were given and do not go with this one."""
    accepted, reason = _BESIDE[option]
    given = [shown for name, shown in options_given(context).items() if name not in accepted]
    if given:
        raise ArgumentError(f"{option} {reason}; leave out {', '.join(given)}.")


def build_evidence_plan(
    file: Path, budget_s: float | None, axes: matrix.Axes, began: float
) -> run.Plan:
    """Build the plan of ``--evidence``: one provider's networks, the most valuable first.

    Raises:
        ArgumentError: something that cannot be measured was asked for, or a file is in the way.
        RtsrError: the GPU is busy, or the folder cannot be written to.
    """
    budget_s = _DEFAULT_BUDGET_S if budget_s is None else budget_s
    check_writable(file)
    if file.suffix == ".html":
        raise ArgumentError(f"'{file}' is to hold JSON; the report is written beside it as .html.")
    for one in (file, file.with_suffix(".html")):
        if one.exists():
            raise ArgumentError(f"'{one}' exists; name another file, or move it away.")
    if budget_s < _LEAST_BUDGET_S:
        raise ArgumentError(
            f"A budget of {budget_s:g} s is too small for one item; give {_LEAST_BUDGET_S:g} s or "
            "more."
        )
    if not budget_s <= _MOST_BUDGET_S:
        raise ArgumentError(f"A budget of {budget_s:g} s is more than a day; give less.")
    matrix.check_axes(axes)
    if len(axes.providers or ()) > 1:
        raise ArgumentError(
            "Evidence is about one provider; name one, and run it again for another."
        )
    chosen = matrix.choose_providers(axes.providers)
    name, options = providers.parse_provider(chosen[0])
    if name != providers.CPU:
        require_free(options.device)
    found = matrix.model_cases(replace(axes, providers=chosen[:1], hops=(1,), streams=(1,)))
    # Reference costs have no network. The others are compared with single precision.
    networks = [case for case in found if case.kind == matrix.MODEL]
    networks.sort(key=lambda case: matrix.PRECISIONS.index(case.precision))
    if not networks:
        raise ArgumentError("Evidence is about networks; name one with --model.")
    seconds = min(max(_PART_PER_ITEM * budget_s, _LEAST_S), _MOST_S)
    return run.Plan(
        order.most_valuable_first(order.with_tf32(networks), axes.hops, axes.streams),
        Protocol(seconds=seconds, warm_up_seconds=0.3 * seconds),
        exact_up_to=_EVIDENCE_EXACT_UP_TO,
        share_of_period=1.0,
        budget_seconds=budget_s,
        began=began,
        may_be_cut_short=True,
        command=command_line(),
    )


def peer_cases(
    file: Path,
    inputs: list[str],
    outputs: list[str],
    states: list[str],
    period_ms: float,
    axes: matrix.Axes,
) -> list[matrix.Case]:
    """Cases of an external file, after one call that shows that its declaration fits.

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

"""``rtsr models``: what is bundled, and what its makers measured."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsr.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from rtsr.runtime.models import Model

#: Parts of a card that are sentences for people.
_IN_WORDS = ("description", "method", "data")


def models_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="Names or .onnx files; all that are bundled if left out."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List what can be run by name, and the cards; or those of models of your own.

    `replicate` is no network; `octave` makes octaves beyond 48 kHz.
    """
    from rtsr.runtime.models import bundled_octaves, find_model, names

    if as_json:
        options.check_stdout()
    found = [find_model(name) for name in models or (*names(), *bundled_octaves())]
    if as_json:
        typer.echo(json.dumps({"models": [_as_object(model) for model in found]}))
        return
    from rtsr.runtime.card import card_clips, card_medians
    from rtsr.terminal import plain_console

    console = plain_console()
    console.print(_table_of(found))
    for model in found:
        console.print(f"\n{model.name}", style="bold", highlight=False)
        card = model.metadata.card
        for line in _sentences(card):
            console.print(line, highlight=False)
        metrics = card.get("metrics")
        if inputs := card_medians(metrics):
            console.print(_metrics_table(inputs, card_clips(metrics)))
    console.print("\nThe whole cards, with all settings of the training: rtsr models --json")


def _table_of(models: list[Model]) -> Table:
    from rich.table import Table

    table = Table()
    for heading in ("model", "network", "version", "parameters", "file", "latency", "licence"):
        table.add_column(heading, no_wrap=True)
    for model in models:
        facts = model.metadata
        table.add_row(
            model.name,
            "yes" if model.is_network else "no",
            facts.version,
            f"{facts.parameters / 1e6:.2f} M",
            f"{model.path.stat().st_size / 1e6:.1f} MB",
            f"{_latency_ms(model):.1f} ms",
            facts.licence,
        )
    return table


def _sentences(card: dict[str, Any]) -> list[str]:
    """Return what a card says in words, and how long the training took."""
    lines = [text for name, text in card.items() if name in _IN_WORDS and isinstance(text, str)]
    training: Any = card.get("training")
    # A card may be anybody's, and not all of this in it.
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        steps = sum(training["steps"].values())
        machine = card["machine"] if "machine" in card else training["device"]
        lines.append(
            f"Last training: {training['minutes']:.0f} minutes and {steps} steps on {machine}, "
            f"{training['hours']:.1f} hours of recordings."
        )
    return lines


def _metrics_table(inputs: dict[str, dict[str, list[Any]]], clips: str) -> Table:
    """One row per rate of the input; each cell has the medians of the domains."""
    from rich.table import Table

    from rtsr.runtime.card import write_median

    names = list(dict.fromkeys(name for values in inputs.values() for name in values))
    table = Table(caption=clips or None, caption_justify="left")
    for heading in ("input", *names):
        table.add_column(heading, no_wrap=True)
    for name, values in inputs.items():
        cells = [" ".join(map(write_median, values.get(one, [None]))) for one in names]
        table.add_row(name, *cells)
    return table


def _kind(model: Model) -> str:
    return "network" if model.is_network else "no network"


def _latency_ms(model: Model) -> float:
    return 1000.0 * model.metadata.latency_samples / model.metadata.sample_rate


def _as_object(model: Model) -> dict[str, Any]:
    facts = model.metadata
    return {
        "name": model.name,
        "kind": _kind(model),
        "version": facts.version,
        "parameters": facts.parameters,
        "file_bytes": model.path.stat().st_size,
        "latency_ms": _latency_ms(model),
        "licence": facts.licence,
        "weights_sha256": facts.weights_sha256,
        "card": facts.card,
    }

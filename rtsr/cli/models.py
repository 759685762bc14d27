"""``rtsr models``: what is bundled, and what its makers measured."""

from __future__ import annotations

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
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    console.print(_table_of(found))
    for model in found:
        console.print(f"\n[bold]{escape(model.name)}[/bold]")
        card = model.metadata.card
        for line in _sentences(card):
            console.print(line, highlight=False, markup=False)
        if card.get("metrics"):
            console.print(_metrics_table(card["metrics"]))
    console.print("\nThe whole cards, with all settings of the training: rtsr models --json")


def _table_of(models: list[Model]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for heading in ("model", "network", "version", "parameters", "file", "latency", "licence"):
        table.add_column(heading, no_wrap=True)
    for model in models:
        facts = model.metadata
        table.add_row(
            escape(model.name),
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
    lines = [text for name, text in card.items() if name in _IN_WORDS]
    training = card.get("training")
    if training:
        steps = sum(training["steps"].values())
        machine = card.get("machine", training["device"])
        lines.append(
            f"Last training: {training['minutes']:.0f} minutes and {steps} steps on {machine}, "
            f"{training['hours']:.1f} hours of recordings."
        )
    return lines


def _metrics_table(metrics: dict[str, Any]) -> Table:
    """One row per rate of the input; each cell has the medians of the domains."""
    from rich.table import Table

    inputs = {name: values for name, values in metrics.items() if isinstance(values, dict)}
    names = list(dict.fromkeys(name for values in inputs.values() for name in values))
    table = Table(caption=metrics.get("clips"), caption_justify="left")
    for heading in ("input", *names):
        table.add_column(heading, no_wrap=True)
    for name, values in inputs.items():
        table.add_row(name, *(" ".join(map(_median, values[one])) for one in names))
    return table


def _median(value: float | str | None) -> str:
    """Write a median, or a dash where there is none."""
    # A card's JSON may have 3 for 3.0; to Python, a truth value is an integer, too.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:.2f}" if is_number else "-"


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

"""``rtsr models``: what is bundled, and what its makers measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsr.cli import options

if TYPE_CHECKING:
    from rtsr.runtime.models import Model


def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List what can be run by name, and the cards. `replicate` is no network."""
    from rtsr.runtime.models import find_model, names

    if as_json:
        options.check_stdout()
    models = [find_model(name) for name in names()]
    if as_json:
        typer.echo(json.dumps({"models": [_as_object(model) for model in models]}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("model", "kind", "version", "parameters", "file", "latency", "licence"):
        table.add_column(heading, no_wrap=heading == "kind")
    for model in models:
        facts = model.metadata
        table.add_row(
            model.name,
            _kind(model),
            facts.version,
            f"{facts.parameters / 1e6:.2f} M",
            f"{model.path.stat().st_size / 1e6:.1f} MB",
            f"{_latency_ms(model):.1f} ms",
            facts.licence,
        )
    console = Console()
    console.print(table)
    for model in models:
        if model.metadata.card:
            console.print(f"\n[bold]{model.name}[/bold]")
            console.print_json(json.dumps(model.metadata.card))


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

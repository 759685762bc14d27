"""``rtsr devices``: the audio devices, and which of them ``rtsr live`` would use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from rtsr.cli import options

if TYPE_CHECKING:
    from rtsr.live.device.devices import Device


def devices_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List audio devices: host API, channels, rates that work, latency.

    `rtsr live --input` and `--output` take the number or a part of the name.
    Marked are the devices that it would use without them.
    """
    from rtsr.live.device import devices

    if as_json:
        options.check_stdout()
    found = devices.list_devices()
    used: dict[int, list[str]] = {device.number: [] for device in found}
    for kind in ("input", "output"):
        default = devices.default_device(kind, found)  # type: ignore[arg-type]
        if default is not None:
            used[default.number].append(kind)
    if as_json:
        listed = [devices.describe(device, used[device.number]) for device in found]
        typer.echo(json.dumps({"host_apis": devices.host_apis(), "devices": listed}))
        return
    if not found:
        typer.echo(
            "No audio device was found; connect one or start a sound server "
            f"(looked for: {', '.join(devices.host_apis())})."
        )
        return
    _print_table(found, used)


def _print_table(found: list[Device], used: dict[int, list[str]]) -> None:
    from rich.table import Table

    from rtsr.terminal import plain_console

    table = Table()
    for heading in ("#", "device", "host API", "in", "out", "rates in kHz", "latency in/out"):
        table.add_column(heading)
    table.add_column("rtsr uses it for")
    for device in found:
        inputs, outputs = device.rates("input"), device.rates("output")
        rates = _in_kilohertz(inputs or outputs)
        if inputs and outputs and inputs != outputs:
            rates = f"{_in_kilohertz(inputs)} in, {_in_kilohertz(outputs)} out"
        table.add_row(
            str(device.number),
            device.name,
            device.host_api,
            str(device.input_channels or "-"),
            str(device.output_channels or "-"),
            rates or "-",
            f"{_latency(device.input_channels, device.input_latency_ms)} / "
            f"{_latency(device.output_channels, device.output_latency_ms)}",
            " and ".join(used[device.number]),
        )
    plain_console().print(table)


def _in_kilohertz(rates: list[int]) -> str:
    return " ".join(f"{rate / 1000:g}" for rate in rates)


def _latency(channels: int, milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms" if channels else "-"

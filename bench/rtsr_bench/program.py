"""``rtsr bench``: one program, a sub-command per question.

A sub-command's module is imported when it is used or listed, and imports what it needs to run when
it runs: ``rtsr bench --help`` needs neither torch nor ONNX Runtime.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperGroup

_COMMANDS = {
    "speed": "rtsr_bench.speed.command:speed_command",
    "quality": "rtsr_bench.quality.command:quality_command",
    "baseline": "rtsr_bench.quality.command:baseline_command",
    "soak": "rtsr_bench.soak.command:soak_command",
    "stalls": "rtsr_bench.soak.command:stalls_command",
}


class _Commands(TyperGroup):
    """Loads sub-commands on demand."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name them in the order in which one needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the sub-command of that name, or ``None``."""
        if cmd_name not in _COMMANDS:
            return None
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(cmd_name)(EntryPoint(cmd_name, _COMMANDS[cmd_name], "rtsr bench").load())
        return typer.main.get_command(single)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def bench_command() -> None:
    """Measure this machine, the models and the live engine.

    [bold]rtsr bench speed --quick[/bold]                   what this machine can do
    [bold]rtsr bench quality CORPUS --out report[/bold]     how good the models are
    [bold]rtsr bench soak --minutes 10[/bold]               does the sound ever stop?
    """

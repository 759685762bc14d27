"""Which options of a command were given."""

from __future__ import annotations

import typer


def options_given(context: typer.Context) -> dict[str, str]:
    """Return the options and arguments of the command line: parameters' names, and as written."""
    return {
        one.name: (one.secondary_opts if context.params[one.name] is False else one.opts)[0]
        for one in context.command.params
        if one.name is not None
        and getattr(context.get_parameter_source(one.name), "name", "") == "COMMANDLINE"
    }

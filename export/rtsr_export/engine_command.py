"""``rtsr export --engine``: builds an engine and shows that it is still at it."""

from __future__ import annotations

import typer
from rich.status import Status
from rich.text import Text

from rtsr.errors import ArgumentError
from rtsr.runtime.models import find_model
from rtsr.runtime.providers.options import TENSORRT, parse_provider
from rtsr.terminal import plain_console
from rtsr_export.tensorrt import BuiltEngine, build_engine


def export_engine(engine: str, model: str, batch: int, hops: int, rebuild: bool) -> None:
    """Build the engine and say where it went.

    Raises:
        ArgumentError: another provider than TensorRT was asked for.
        RtsrError: the engine cannot be built.
    """
    provider, options = parse_provider(engine)
    if provider != TENSORRT:
        raise ArgumentError(f"Engines are built for provider {TENSORRT!r}, not for {provider!r}.")
    found = find_model(model)
    with BuildProgress(f"{found.name}, batch {batch}, {hops} hops per step") as progress:
        built = build_engine(found, batch, hops, options, rebuild=rebuild, progress=progress.show)
    typer.echo(summary(built))


def summary(built: BuiltEngine) -> str:
    """One paragraph on what is in the cache now."""
    if built.against_cpu is None or built.graph is None:
        return f"{built.folder}: fits this machine, nothing to do (--rebuild builds it anew)."
    lines = [f"{built.folder}: built in {built.seconds:.0f} s for {built.key.gpu}."]
    if built.replaced:
        lines.append(f"It replaces one that could not be used: {built.replaced}.")
    graph = (
        f"captured as a CUDA graph, {built.graph.worst:.1e} from single launches"
        if built.graph.captured
        else "not captured as a CUDA graph"
    )
    lines.append(
        f"Over {built.against_cpu.hops} hops it differs from the CPU by "
        f"{built.against_cpu.high_band:.1e} of the signal; {graph}."
    )
    return "\n".join(lines)


class BuildProgress:
    """The phase and its seconds: in one moving line on a terminal, else a line per phase."""

    def __init__(self, label: str) -> None:
        self._console = plain_console(stderr=True)
        self._label = label
        self._phase = ""
        self._status: Status | None = None
        if self._console.is_terminal:
            self._status = self._console.status(Text(label))

    def __enter__(self) -> BuildProgress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, phase: str, seconds: float) -> None:
        """Take note of the phase and how long it has lasted."""
        if self._status is not None:
            minutes, rest = divmod(int(seconds), 60)
            self._status.update(Text(f"{self._label}: {phase}, {minutes}:{rest:02d}"))
        elif phase != self._phase:
            self._console.print(f"{self._label}: {phase}", highlight=False, soft_wrap=True)
        self._phase = phase

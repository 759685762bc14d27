"""``rtsr warm-up``: compile everything now, so that no later start has to."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import time
from collections.abc import Iterator
from typing import Any, cast

import typer

from rtsr.cli.compile_messages import LOGGER

#: Modules outside the kernels that compile something.
_OTHERS = ("rtsr.live.callback.callback", "rtsr.live.callback.clock")


class _Counter(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.compiled = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.compiled += record.levelno == logging.INFO


def warm_up_command() -> None:
    """Compile all kernels for this machine and run each bundled model once.

    Kernels are compiled at the first start, which takes about a minute, and kept on disk. An
    installer, an image or a service calls this once instead, as the user who will run rtsr.
    """
    from rich.progress import Progress

    from rtsr.terminal import plain_console

    logger = logging.getLogger(LOGGER)
    counter = _Counter()
    # The bar says what they would.
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(counter)
    logger.setLevel(logging.INFO)
    began = time.perf_counter()
    console = plain_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        import rtsr_kernels

        modules = [module.name for module in pkgutil.iter_modules(rtsr_kernels.__path__)]
        task = bar.add_task("compiling", total=len(modules) + len(_OTHERS))
        for name in modules:
            importlib.import_module(f"rtsr_kernels.{name}")
            bar.advance(task)
        for name in _OTHERS:
            importlib.import_module(name)
            bar.advance(task)
    ran = list(_run_models())
    from rtsr_kernels.ring import ring_write

    seconds = time.perf_counter() - began
    what = f"Compiled {counter.compiled} functions" if counter.compiled else "Found all compiled"
    typer.echo(
        f"{what}, ran {', '.join(ran)}, in {seconds:.1f} s; the code lies in "
        f"'{cast(Any, ring_write).stats.cache_path}'."
    )


def _run_models() -> Iterator[str]:
    import numpy as np

    from rtsr.runtime.models import bundled_octaves, names
    from rtsr.upsampler import Upsampler

    rates = dict.fromkeys(names(), 8000) | dict.fromkeys(bundled_octaves(), 96000)
    for name, rate in rates.items():
        with Upsampler(rate, model=name) as upsampler:
            upsampler.process(np.zeros((rate // 10, 1), np.float32))
        yield name

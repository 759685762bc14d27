"""Run a script of the examples in this process: what it imports is then imported once."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """Import ``examples/NAME.py`` without running it."""
    return load_script(EXAMPLES / f"{name}.py")


def load_script(path: Path) -> ModuleType:
    """Import a file that is in no package, under its own name, without running it."""
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for the names in their annotations.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run_example(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``examples/NAME`` as its own program would, and return how it ended and what it wrote."""
    script, before = EXAMPLES / name, set(sys.modules)
    command = [str(script), *map(str, arguments)]
    code: object = 0
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as errors,
        mock.patch.object(sys, "argv", command),
        mock.patch.object(sys, "path", [str(EXAMPLES), *sys.path]),
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            for module in set(sys.modules) - before:
                file = getattr(sys.modules[module], "__file__", None)
                if file and Path(file).parent == EXAMPLES:
                    del sys.modules[module]
    if isinstance(code, str):
        errors.write(f"{code}\n")
        code = 1
    return subprocess.CompletedProcess(command, int(code or 0), out.getvalue(), errors.getvalue())

"""Optional packages: importing rtsr needs none of them, using what needs one says which."""

from __future__ import annotations

import subprocess
import sys

import pytest

OPTIONAL = (
    *("torch", "onnx", "onnxruntime", "sounddevice", "rtmidi", "matplotlib", "visqol", "soxr"),
    *("av", "aiortc", "aiosipua", "starlette", "uvicorn", "prometheus_client"),
)
HIDE = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"


def run_without(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter where every optional package is missing."""
    return subprocess.run(
        [sys.executable, "-c", HIDE + code], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", ["rtsr", "rtsr.cli", "rtsr.upsampler", "rtsr_kernels"])
def test_importing_needs_no_optional_package(module):
    finished = run_without(f"import {module}; print('imported')")
    assert finished.stdout.strip() == "imported", finished.stderr


def test_importing_rtsr_loads_neither_numba_nor_onnx_runtime():
    code = "import sys, rtsr.cli; print([m for m in ('numba', 'onnxruntime') if m in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"


def command_without(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return run_without(f"sys.argv = ['rtsr', *{arguments!r}]\nfrom rtsr.cli import main\nmain()")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["pipe", "--rate", "8000"], 'pip install "rtsr[cpu]"'),
        (["train", "."], 'pip install "rtsr[train]"'),
        (["export", "last.pt", "model.onnx"], 'pip install "rtsr[train]"'),
        (["export", "small", "start.pt"], 'pip install "rtsr[train]"'),
        (["live", "--page"], "Serving a page needs a package that is not installed: pip install"),
        (["live", "--page"], '"rtsr[page]"'),
    ],
)
def test_a_missing_package_is_one_sentence_with_the_command_that_helps(arguments, extra):
    finished = command_without(arguments)
    assert finished.returncode == 2
    assert extra in finished.stderr
    assert finished.stderr.startswith("rtsr: ")
    assert "Traceback" not in finished.stderr


def test_calls_without_their_extra_are_one_sentence():
    code = (
        "from rtsr.errors import MissingDependencyError\n"
        "try:\n    import rtsr.call\nexcept MissingDependencyError as error:\n    print(error)"
    )
    finished = run_without(code)
    assert finished.stdout.strip() == (
        'Taking calls needs a package that is not installed: pip install "rtsr[call]".'
    ), finished.stderr

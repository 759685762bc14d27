"""Names of files, devices and models are shown as they stand, whatever rich takes them for."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import rtsr
from rtsr import Colour
from rtsr.cli.app import app
from rtsr.cli.devices import _print_table as print_devices
from rtsr.cli.eval import _print_table as print_comparison
from rtsr.quality.compare import Comparison, FolderComparison

ROOT = Path(rtsr.__file__).parents[1]
NAMES = ["song [live]", "loop [/left]", "x :bell:"]


def test_files_that_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    files = [Comparison(name, Path("a"), Path("b"), 4000.0, {"lsd": 1.0}) for name in NAMES]
    print_comparison(FolderComparison(files), 4000.0, False, None)
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES)


def test_devices(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found: list[Any] = [
        SimpleNamespace(
            number=number,
            name=name,
            host_api="JACK",
            rates=lambda kind: [48000],
            input_channels=1,
            output_channels=0,
            input_latency_ms=1.0,
            output_latency_ms=0.0,
        )
        for number, name in enumerate(NAMES)
    ]
    print_devices(found, {number: [] for number in range(len(NAMES))})
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_colour(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.json")
    path.parent.mkdir(exist_ok=True)
    Colour("small", "a" * 64, 1.0, ((0.0,) * 24,) * 4).save(path)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["colour", "show", str(path)])
    assert done.exit_code == 0, done.exception
    assert f"({path})" in done.stdout


def test_nothing_else_is_printed_through_markup() -> None:
    """Bars and tables get their names from elsewhere, too."""
    found = set()
    for folder in ("rtsr", "export", "bench", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "Console(" not in text and "TextColumn(" not in text:
                continue
            for call in ast.walk(ast.parse(text)):
                name = getattr(call.func, "id", "") if isinstance(call, ast.Call) else ""
                if isinstance(call, ast.Call) and name in ("Console", "TextColumn"):
                    found.add(name)
                    given = {one.arg: ast.unparse(one.value) for one in call.keywords}
                    assert given.get("markup") == "False", f"{path}:{call.lineno}"
    assert found == {"Console", "TextColumn"}


def test_what_is_waited_for_is_no_markup() -> None:
    """A status takes its text for markup whatever its console says."""
    found = 0
    for folder in ("rtsr", "export", "bench", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for call in ast.walk(ast.parse(text)) if "console.status(" in text else ():
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("console.status"):
                    found += 1
                    given = ast.unparse(call.args[0])
                    assert given.startswith("Text("), f"{path}:{call.lineno}"
    assert found

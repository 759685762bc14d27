"""``rtsr bench`` as a user meets it, at a budget that shows its form and measures nothing."""

from __future__ import annotations

import json
import re
import sys
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rtsr.cli import app as application
from rtsr.errors import RtsrError
from rtsr_bench.bench_command import _command_line
from rtsr_bench.html_report import build_page
from rtsr_bench.results import check_writable, read_results, write_results
from rtsr_bench.screen import notes, print_results, three_digits

TINY = ["--seconds", "0.02", "--repetitions", "2", "--hops", "1", "--streams", "2"]
FOREIGN = [
    *("--against-input", "audio:Nx1x480", "--against-input", "noise:Nx4x1"),
    *("--against-input", "f_prior:Nx1x1=4000", "--against-input", "f_target:Nx1x1=22000"),
    *("--against-input", "state.history:Nx1x120"),
    *("--against-state", "state.history=next.history"),
]


def bench(*arguments: str) -> Any:
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"})
    return runner.invoke(application.app, ["bench", *arguments])


@pytest.fixture
def failing_on_load(write_model: Any) -> Path:
    """Its metadata promises a state that its graph does not have."""
    return Path(write_model(states={"memory": [1, 1, 7]}))


@pytest.fixture(scope="module")
def measured(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one tiny run with everything in it."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench(
        *(*TINY, "--model", str(stand_in), "--provider", "cpu", "--most-streams", "1"),
        *("--against", str(stand_in), *FOREIGN),
        *("--json", str(folder / "one.json"), "--html", str(folder / "one.html")),
    )
    assert done.exit_code == 0, done.stderr
    (folder / "screen.txt").write_text(done.stdout)
    return folder


def test_a_run_has_all_its_cells(measured: Path) -> None:
    results = read_results(measured / "one.json")
    kinds = [(cell["kind"], cell["streams"]) for cell in results["cells"]]
    assert kinds == [
        *(("model", 2), ("foreign", 2)),
        *(("replicate", 2), ("resampler", 2), ("soxr", 2)),
    ]
    assert [search["kind"] for search in results["searches"]] == ["model", "foreign"]
    for cell in results["cells"]:
        if cell["error"] is None:
            assert len(cell["repetitions"]) == 2
            assert cell["figures"]["p50_ms"] <= cell["figures"]["p99_9_ms"]


def test_results_name_no_folder(measured: Path, stand_in: Path) -> None:
    for file in ("one.json", "one.html"):
        text = (measured / file).read_text()
        for folder in (stand_in.parent, measured, Path.home(), Path(sys.prefix)):
            assert str(folder) not in text


def test_the_screen_shows_the_matrix(measured: Path) -> None:
    text = (measured / "screen.txt").read_text()
    for word in ("p99.9", "jitter", "missed", "cold", "replicate", "soxr", "stand-in fp32"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_report_is_self_contained(measured: Path) -> None:
    page = (measured / "one.html").read_text()
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script|<link|<img|https?://", page)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) > 10
    for picture in pictures:
        ElementTree.fromstring(picture)
        for numbers in re.findall(r'(?:points|c[xy]|[xy][12]?)="([^"]*)"', picture):
            assert "nan" not in numbers
            assert "inf" not in numbers
    for heading in ("Distribution", "Streams per device", "steady state", "Machine"):
        assert heading in page


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--json", "/somewhere/else/a.json"], "rtsr bench --json a.json"),
        (["--json=../a.json", "--model=~/b.onnx"], "rtsr bench --json=a.json --model=b.onnx"),
        (["--model", "runs/b.onnx"], "rtsr bench --model runs/b.onnx"),
        (["--against-input", "the audio:1x1"], "rtsr bench --against-input 'the audio:1x1'"),
    ],
)
def test_the_command_is_kept_without_folders(
    arguments: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/rtsr", "bench", *arguments])
    assert _command_line() == command


def test_a_run_without_one_result_is_an_error(failing_on_load: Path) -> None:
    done = bench("--no-search", *TINY, "--provider", "cpu", "--model", str(failing_on_load))
    assert done.exit_code == 2
    assert "does not match its metadata" in done.stderr


def test_nothing_changed_between_a_run_and_itself(measured: Path) -> None:
    one = str(measured / "one.json")
    done = bench("--compare", one, one, "--json", str(measured / "compared.json"))
    assert done.exit_code == 0, done.stderr
    assert "0 figures changed" in done.stdout
    compared = json.loads((measured / "compared.json").read_text())
    assert {change["verdict"] for change in compared["changes"]} == {"within noise"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--provider", "rocket"], "Provider 'rocket' is unknown; present here: "),
        (["--streams", "0"], "The number of streams must be 1 to 65536, not 0."),
        (["--streams", "many"], "--streams takes whole numbers, not 'many'."),
        (["--hops", "3"], "The number of hops per step must be one of 1, 2, 4, not 3."),
        (["--model", "none.onnx"], "Model file 'none.onnx' does not exist."),
        (["--model", "replicate", "--most-streams", "0"], "must be 1 to 65536, not 0."),
        (["--repetitions", "0"], "The number of repetitions must be 1 to 1000, not 0."),
        (["--seconds", "nan"], "A repetition must take 0.01 to 600 seconds, not nan."),
        (["--against", "none.onnx"], "Model file 'none.onnx' does not exist."),
        (["--against-input", "a:1"], "describe a file: add --against FILE."),
        (["--json", "nowhere/one.json"], "There is no folder 'nowhere'; make it first."),
        (["--compare", "a.json", "b.json"], "'a.json' cannot be read: No such file"),
        (["--compare", "a.json"], "Option '--compare' requires 2 arguments"),
        (["--compare", "a.json", "b.json", "--html", "c.html"], "--compare writes no --html"),
        (["--provider", ""], "--provider is empty; name something, or leave it out."),
        (["--streams", ","], "--streams is empty; name something, or leave it out."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bench(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("rtsr: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_model_is_not_one_of_ours(write_model: Any) -> None:
    done = bench("--model", str(write_model(text=None)))
    assert done.exit_code == 2
    assert "is an ONNX model but not one of rtsr's" in done.stderr


def test_other_files_are_no_results(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    whole: dict[str, Any] = {"kind": "rtsr bench", "format": 1, "cells": [], "searches": []}
    search = {"label": "a", "streams": 1, "fails_at": None, "finished": True}

    def with_cell(repetition: Any) -> str:
        return json.dumps({**whole, "cells": [{"label": "a", "repetitions": [repetition]}]})

    for text, sentence in (
        ("no json", "is not JSON"),
        ("[]", "holds no results"),
        (json.dumps({**whole, "format": 99}), "has format 99, this rtsr reads format 1"),
        (json.dumps({**whole, "cells": [1]}), "damaged: its cells"),
        (json.dumps({**whole, "searches": [{}]}), "damaged: its searches"),
        ("[" * 100_000, "is not JSON"),
        (with_cell({"p50_ms": "fast"}), "damaged: its cells"),
        (with_cell({"steps": [], "missed_deadlines": 0}), "damaged: its cells"),
        (with_cell(1), "damaged: its cells"),
        (
            json.dumps({**whole, "searches": [{**search, "fails_at": "b"}]}),
            "damaged: its searches",
        ),
    ):
        file.write_text(text)
        with pytest.raises(RtsrError, match=sentence):
            read_results(file)
    write_results(file, whole)
    assert read_results(file) == whole
    assert list(tmp_path.iterdir()) == [file]


def test_a_closed_pipe_does_not_cost_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("rtsr_bench.screen.print_results", broken)
    file = tmp_path / "one.json"
    few = ("--no-search", "--no-floor", "--hops", "1", "--streams", "1")
    done = bench(*TINY[:4], *few, "--model", "replicate", "--json", str(file))
    assert done.exit_code == 141
    assert len(read_results(file)["cells"]) == 1


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RtsrError, match="is a folder; name a file"):
        check_writable(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "-"), (0.0, "0.000"), (0.0123, "0.012"), (0.1234, "0.123"), (12.345, "12.3")),
        *((99.96, "100"), (1234.5, "1234"), (15, "15")),
    ],
)
def test_figures_have_three_digits(value: float | None, text: str) -> None:
    assert three_digits(value) == text


def test_what_is_doubtful_is_said(measured: Path) -> None:
    results = read_results(measured / "one.json")
    results["machine"]["load_average"] = 5.0
    results["machine"]["cpu"]["usable_threads"] = 2
    results["cells"][0] = {
        **results["cells"][0],
        "error": "It <broke>.",
        "repetitions": [],
    }
    del results["cells"][0]["figures"]
    results["cells"][1]["steady"] = False
    results["searches"][0] = {**results["searches"][0], "finished": False}
    text = " ".join(notes(results))
    assert "The machine was busy" in text
    assert "Not in a steady state" in text
    assert "It <broke>." in text
    page = build_page(results)
    assert "It &lt;broke&gt;." in page
    assert "not confirmed" in page
    console = Console(file=StringIO(), width=80, record=True)
    print_results(results, console)
    assert "not confirmed" in console.export_text()

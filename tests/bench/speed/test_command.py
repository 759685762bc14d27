"""``rtsr bench`` as a user meets it, at a budget that shows its form and measures nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from rtsr.errors import RtsrError
from rtsr.runtime.models import find_model
from rtsr_bench.files import check_writable, write_json
from rtsr_bench.machine import command_line
from rtsr_bench.speed.html.plots import latency_plots
from rtsr_bench.speed.report import (
    doubts,
    known_quality,
    quality_domains,
    show_page,
    show_results,
    three_digits,
    verdict,
)
from rtsr_bench.speed.results import read_results

PUBLISHED = Path(__file__).parents[3] / "bench" / "results" / "bench-2-cores.json"
TINY = ["--seconds", "0.02", "--repetitions", "2", "--hops", "1", "--streams", "2"]
EXTERNAL = [
    *("--against-input", "audio:Nx1x480", "--against-input", "noise:Nx4x1"),
    *("--against-input", "f_prior:Nx1x1=4000", "--against-input", "f_target:Nx1x1=22000"),
    *("--against-input", "state.history:Nx1x120"),
    *("--against-state", "state.history=next.history"),
]


@pytest.fixture(scope="module")
def speed(bench: Any) -> Any:
    """``speed(*arguments)``: ``rtsr bench speed ARGUMENTS``."""
    return partial(bench, "speed")


@pytest.fixture
def failing_on_load(write_model: Any) -> Path:
    """Its metadata promises a state that its graph does not have."""
    return Path(write_model(states={"memory": [1, 1, 7]}))


@pytest.fixture(scope="module")
def measured(speed: Any, stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one tiny run with everything in it."""
    folder = tmp_path_factory.mktemp("bench")
    done = speed(
        *(*TINY, "--model", str(stand_in), "--provider", "cpu", "--most-streams", "1"),
        *("--against", str(stand_in), *EXTERNAL),
        *("--json", str(folder / "one.json"), "--html", str(folder / "one.html")),
    )
    assert done.exit_code == 0, done.stderr
    (folder / "screen.txt").write_text(done.stdout)
    return folder


def test_a_run_has_all_its_cases(measured: Path) -> None:
    results = read_results(measured / "one.json")
    kinds = [(case["kind"], case["streams"]) for case in results["cases"]]
    assert kinds == [
        *(("model", 2), ("external", 2)),
        *(("replicate", 2), ("resampler", 2), ("soxr", 2)),
    ]
    assert [search["kind"] for search in results["searches"]] == ["model", "external"]
    for case in results["cases"]:
        if case["error"] is None:
            assert len(case["repetitions"]) == 2
            assert case["figures"]["p50_ms"] <= case["figures"]["p99_9_ms"]


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
    assert len(pictures) >= 5
    for picture in pictures:
        ElementTree.fromstring(picture)
        for numbers in re.findall(r'(?:points|c[xy]|[xy][12]?)="([^"]*)"', picture):
            assert "nan" not in numbers
            assert "inf" not in numbers
    for heading in ("Distribution", "streams in one batch", "steady state", "Machine"):
        assert heading in page


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--json", "/somewhere/else/a.json"], "rtsr bench speed --json a.json"),
        (["--json=../a.json", "--model=~/b.onnx"], "rtsr bench speed --json=a.json --model=b.onnx"),
        (["--model", "runs/b.onnx"], "rtsr bench speed --model runs/b.onnx"),
        (["--model", "small,/home/me/b.onnx,~/c"], "rtsr bench speed --model small,b.onnx,c"),
        (["--model", "C:\\Users\\me\\b.onnx"], "rtsr bench speed --model b.onnx"),
        (["--model=file:///home/me/b.onnx"], "rtsr bench speed --model=b.onnx"),
        (["-m/home/me/b.onnx"], "rtsr bench speed -mb.onnx"),
        (["--against-input", "the audio:1x1"], "rtsr bench speed --against-input 'the audio:1x1'"),
    ],
)
def test_the_command_is_kept_without_folders(
    arguments: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/rtsr", "bench", "speed", *arguments])
    assert command_line() == command


@pytest.mark.slow
def test_a_run_without_one_result_is_an_error(speed: Any, failing_on_load: Path) -> None:
    done = speed("--no-search", *TINY, "--provider", "cpu", "--model", str(failing_on_load))
    assert done.exit_code == 2
    assert "does not match its metadata" in done.stderr


def test_nothing_changed_between_a_run_and_itself(speed: Any, measured: Path) -> None:
    one = str(measured / "one.json")
    done = speed("--compare", one, one, "--json", str(measured / "compared.json"))
    assert done.exit_code == 0, done.stderr
    assert "Both files hold the same measurement, so nothing changed." in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1
    compared = json.loads((measured / "compared.json").read_text())
    assert {change["verdict"] for change in compared["changes"]} == {"within noise"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--provider", "rocket"], "Provider 'rocket' is unknown; present here: "),
        (["--streams", "0"], "The number of streams must be 1 to 65536, not 0."),
        (["--streams", "many"], "--streams takes whole numbers, not 'many'."),
        (["--hops", "3"], "The number of hops per step must be one of 1, 2, 4, 8, 16, not 3."),
        (["--model", "none.onnx"], "Model file 'none.onnx' does not exist."),
        (["--model", "replicate", "--most-streams", "0"], "must be 1 to 65536, not 0."),
        (["--repetitions", "0"], "The number of repetitions must be 1 to 1000, not 0."),
        (["--seconds", "nan"], "A repetition must take 0.01 to 600 seconds, not nan."),
        (["--against", "none.onnx"], "Model file 'none.onnx' does not exist."),
        (["--against-input", "a:1"], "describe a file: add --against FILE."),
        (["--against-ms", "20"], "describe a file: add --against FILE."),
        (["--json", "nowhere/one.json"], "There is no folder 'nowhere'; make it first."),
        (["--compare", "a.json", "b.json"], "'a.json' cannot be read: No such file"),
        (["--compare", "a.json"], "Option '--compare' requires 2 arguments"),
        (["--compare", "a", "b", "-m", "small", "--quick"], "leave out --model, --quick."),
        (["--compare", "a", "b", "--json", "./b"], "'b' is named twice; what is written needs its"),
        (["--json", "a", "--html", "a"], "'a' is named twice; what is written needs its own"),
        (["--against", "a", "--json", "a"], "'a' is named twice; what is written needs its own"),
        (["--threads", "99999"], "threads on this machine, not 99999."),
        (["--threads", "0"], "threads on this machine, not 0."),
        (["--provider", ""], "--provider is empty; name something, or leave it out."),
        (["--streams", ","], "--streams is empty; name something, or leave it out."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_sentence(
    speed: Any, arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = speed(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("rtsr: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_another_models_file_is_not_one_of_ours(speed: Any, write_model: Any) -> None:
    done = speed("--model", str(write_model(text=None)))
    assert done.exit_code == 2
    assert "is an ONNX model but not one of rtsr's" in done.stderr


def test_other_files_are_no_results(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    whole: dict[str, Any] = {"kind": "rtsr bench", "format": 2, "cases": [], "searches": []}
    search = {"label": "a", "streams": 1, "fails_at": None, "limit_ms": 8.0, "finished": True}

    def with_case(repetition: Any) -> str:
        return json.dumps({**whole, "cases": [{"label": "a", "repetitions": [repetition]}]})

    for text, sentence in (
        ("no json", "is not JSON"),
        ("[]", "holds no results"),
        (json.dumps({**whole, "format": 99}), "has format 99, this rtsr reads format 2"),
        (json.dumps({"kind": "rtsr bench", "format": 2}), "is damaged: it does not hold"),
        (json.dumps({**whole, "cases": [1]}), "is damaged: it does not hold"),
        (json.dumps({**whole, "searches": [{}]}), "is damaged: it does not hold"),
        ("[" * 100_000, "is not JSON"),
        (with_case({"p50_ms": float("nan")}), "is not JSON"),
        (with_case({"p50_ms": "fast"}), "is damaged: it does not hold"),
        (with_case({"steps": [1], "missed_deadlines": 0}), "is damaged: it does not hold"),
        (with_case(1), "is damaged: it does not hold"),
        (
            json.dumps({**whole, "searches": [{**search, "fails_at": "b"}]}),
            "is damaged: it does not hold",
        ),
    ):
        file.write_text(text)
        with pytest.raises(RtsrError, match=sentence):
            read_results(file)
    write_json(file, whole)
    assert read_results(file) == whole
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
def test_a_closed_pipe_does_not_cost_the_results(
    speed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("rtsr_bench.speed.report.show_results", broken)
    file = tmp_path / "one.json"
    few = ("--no-search", "--no-references", "--hops", "1", "--streams", "1")
    done = speed(*TINY[:4], *few, "--model", "replicate", "--json", str(file))
    assert done.exit_code == 141
    assert len(read_results(file)["cases"]) == 1


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
    results["machine"]["cpu"]["threads"] = 2
    results["cases"][0] = {
        **results["cases"][0],
        "error": "It <broke>.",
        "repetitions": [],
    }
    del results["cases"][0]["figures"]
    results["cases"][1]["steady"] = False
    results["searches"][0] = {**results["searches"][0], "finished": False}
    console = Console(file=StringIO(), width=200, record=True)
    show_results(results, console)
    text = console.export_text()
    assert "not confirmed" in text
    assert "The machine was busy" in text
    assert "Not in a steady state" in text
    assert "It <broke>." in text
    page = show_page(results)
    assert "It &lt;broke&gt;." in page
    assert "not confirmed" in page


@pytest.mark.parametrize(
    "metrics", ["good", {"8 kHz": {"visqol": 3.0}}, {"clips": 5, "8 kHz": {"visqol": [3.0, None]}}]
)
def test_cards_that_are_not_as_they_should_be_cost_no_report(metrics: Any) -> None:
    results = {"quality": {"net fp32": metrics}}
    assert set(known_quality(results).values()) <= {"3.00 / -"}
    assert quality_domains(results) == ""


def test_a_machine_that_is_busy_meanwhile_is_doubted(measured: Path) -> None:
    results = read_results(measured / "one.json")
    results["machine"]["cpu"] = {**results["machine"]["cpu"], "threads": 4, "usable_threads": 1}
    for before, after, when in (
        *((1.9, 3.0, None), (None, None, None), (2.1, 9.0, "before it began (load 2.1 on 4")),
        (0.1, 3.1, "meanwhile (load 3.1 on 4 threads, 1 of them its own)"),
    ):
        results["machine"]["load_average"], results["load_average_after"] = before, after
        told = [line for line in doubts(results) if "was busy" in line]
        assert len(told) == (when is not None)
        assert not when or when in told[0]


def test_steps_that_were_missed_are_told_of_how_many(measured: Path) -> None:
    results = read_results(measured / "one.json")
    results["cases"][0]["figures"].update(missed_deadlines=3, steps=4000, p99_9_ms=2.0)
    results["cases"][1]["figures"].update(missed_deadlines=0, steps=200)
    console = Console(file=StringIO(), width=80, record=True)
    show_results(results, console)
    page = show_page(results)
    assert "3 of 4000" in console.export_text()
    assert '<span class="bad">3 of 4000</span>' in page
    assert "<td>~" in page
    results["cases"][0]["figures"]["steps"] = 999
    assert "(p99.9 ~2)" in verdict(results)[0].text


def test_paced_steps_that_are_late_do_not_keep_up(measured: Path) -> None:
    results = read_results(measured / "one.json")
    figures = results["cases"][0]["figures"]
    for late, kind in ((2, "good"), (3, "bad")):
        figures.update(missed_by_the_clock=late, missed_deadlines=1, steps=2000, p99_9_ms=2.0)
        first = verdict(results)[0]
        assert first.kind == kind
        assert f"{late} of 2000 steps after their time" in first.text


def test_lines_that_a_plot_leaves_out_are_counted(measured: Path) -> None:
    case = read_results(measured / "one.json")["cases"][0]
    assert "The first 24 of 30 cases." in latency_plots([case] * 30)
    assert "of 24 cases" not in latency_plots([case] * 24)


def test_the_report_begins_with_a_verdict_and_its_facts_are_a_table(measured: Path) -> None:
    page = (measured / "one.html").read_text()
    body = page[page.index("<body>") :]
    first = body[body.index("</h1>") + len("</h1>") :]
    assert re.match(r'<p class="verdict (good|bad)">stand-in fp32 on cpu (keeps|does not)', first)
    assert body.count('class="soft"') <= 6 + body.count('<span class="soft"')
    assert "<dl>" not in body
    assert re.search(r'<td class="text">cpu, threads</td><td class="text">\d+</td>', body)
    for part in ("machine", "software", "protocol"):
        assert f"<h3>{part}</h3><table" in body


def test_a_slow_model_gets_a_bad_verdict(measured: Path) -> None:
    results = read_results(measured / "one.json")
    results["cases"][0]["figures"]["p99_9_ms"] = 12.0
    assert '<p class="verdict bad">stand-in fp32 on cpu does not keep up' in show_page(results)


@pytest.mark.slow
def test_quality_stands_beside_speed_where_a_card_knows_it(
    speed: Any, tmp_path: Path, stand_in: Path
) -> None:
    file = tmp_path / "one.json"
    few = ("--no-search", "--no-references", "--hops", "1", "--streams", "1")
    models = ("--model", "small", "--model", str(stand_in), "--precision", "fp32")
    done = speed(*TINY[:4], *few, *models, "--json", str(file))
    assert done.exit_code == 0, done.stderr
    card = find_model("small").metadata.card["metrics"]
    wanted = " / ".join(f"{value:.2f}" for value in card["8 kHz"]["visqol"])
    assert f"small fp32 {wanted}" in " ".join(done.stdout.split())
    page = show_page(read_results(file))
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    assert "<th>ViSQOL</th>" in rows[0]
    ours, other = rows[1:3]
    assert ours.endswith(f"<td>{wanted}</td>")
    assert other.endswith("<td>-</td>")
    assert "speech / effects / music" in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.slow
def test_a_page_is_no_wider_than_a_narrow_screen(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(show_page(read_results(PUBLISHED)))
    frame = tmp_path / "frame.html"
    # The narrowest window of a browser without a screen is wider than a telephone.
    frame.write_text(
        "<iframe width=375 height=800 src=page.html onload='const page ="
        " this.contentDocument.documentElement; document.title ="
        " page.scrollWidth - page.clientWidth'></iframe>"
    )
    assert _title_of(frame, "--allow-file-access-from-files") == "0"


def _title_of(page: Path, *options: str) -> str:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *options]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return re.findall(r"<title>([\d.]+)</title>", done.stdout)[0]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.slow
def test_the_main_table_fits_a_screen_of_1280_pixels(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    script = (
        "<script>document.title = Math.max(...[...document.querySelectorAll('table')]"
        ".slice(0, 3).map(table => table.getBoundingClientRect().right))</script>"
    )
    page.write_text(show_page(read_results(PUBLISHED)) + script)
    assert float(_title_of(page, "--window-size=1280,800")) <= 1280.0


def test_the_published_results_are_read() -> None:
    assert len(read_results(PUBLISHED)["cases"]) > 20


def test_a_comparison_has_a_page(speed: Any, measured: Path, tmp_path: Path) -> None:
    results = read_results(measured / "one.json")
    for repetition in results["cases"][0]["repetitions"]:
        repetition["p50_ms"] *= 100.0
    slower = tmp_path / "slower.json"
    write_json(slower, results)
    page_file = tmp_path / "changed.html"
    done = speed("--compare", measured / "one.json", slower, "--html", page_file)
    assert done.exit_code == 0, done.stderr
    page = page_file.read_text()
    body = page[page.index("</h1>") :]
    assert re.match(r'</h1><p class="verdict bad">1 figure changed \(0 better, 1 worse\)', body)
    assert '<span class="bad">worse</span>' in body
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script|<link|<img|https?://", page)


def test_one_repetition_is_told_in_plain_words(speed: Any, measured: Path, tmp_path: Path) -> None:
    results = read_results(measured / "one.json")
    results["date"] = "another day"
    for case in results["cases"]:
        case["repetitions"] = case["repetitions"][:1]
    once = tmp_path / "once.json"
    write_json(once, results)
    done = speed("--compare", measured / "one.json", once)
    text = " ".join(done.stdout.split())
    assert "figures changed cannot be said: measured once, a figure has no spread" in text
    assert "Measure both sides in the same way, with --repetitions 5." in text


@pytest.mark.parametrize("arguments", [["bench", "--help"], ["--help"]], ids=" ".join)
def test_help_loads_nothing_that_takes_time(arguments: list[str]) -> None:
    program = (
        "import sys; from rtsr.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    slow = {'torch', 'matplotlib', 'onnxruntime', 'numba', 'scipy'} & set(sys.modules)\n"
        "    print('loaded', sorted(slow), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert "loaded []" in done.stderr
    assert "bench" in done.stdout


def test_help_names_every_sub_command(bench: Any) -> None:
    done = bench("--help")
    assert done.exit_code == 0
    for name in ("speed", "quality", "baseline", "soak", "stalls"):
        assert re.search(rf"│ {name} ", done.stdout), name
    unknown = bench("quickly")
    assert unknown.exit_code == 2

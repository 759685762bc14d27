"""``rtsr bench speed --evidence``: order, budget, what is left at any moment, the verdict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rtsr.cli import app as application
from rtsr.errors import RtsrError
from rtsr_bench.speed import gpu_monitor
from rtsr_bench.speed.matrix import MODEL, Case
from rtsr_bench.speed.measure import Protocol
from rtsr_bench.speed.order import PARITY, SEARCH, STEPS, Item, most_valuable_first, with_tf32
from rtsr_bench.speed.report import doubts, show_page, verdict
from rtsr_bench.speed.results import read_results
from rtsr_bench.speed.run import Plan, run_plan
from rtsr_bench.speed.workers import GivenUpError, RepetitionError, Workers

ON_CUDA = Case(MODEL, "small", "cuda", "fp32", 1, 1, 1, 10.0, source={"file": "small.onnx"})
HALF = replace(ON_CUDA, precision="fp16")


def bench(*arguments: object) -> Any:
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})
    return runner.invoke(application.app, ["bench", "speed", *map(str, arguments)])


@pytest.fixture(scope="module")
def measured(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with everything in it that two numbers of streams have."""
    file = tmp_path_factory.mktemp("evidence") / "found.json"
    done = bench(
        *("--provider", "cpu", "--model", str(stand_in), "--hops", "1", "--streams", "1,4"),
        *("--evidence", str(file), "--budget", "60"),
    )
    assert done.exit_code == 0, done.stderr
    file.with_suffix(".txt").write_text(done.stdout)
    return file


def test_a_run_has_every_item(measured: Path) -> None:
    results = read_results(measured)
    assert results["finished"]
    ways = {(case["streams"], case["whole"], case["paced"]) for case in results["cases"]}
    assert len(ways) == len(results["cases"]) == 8
    assert all(case["figures"]["steps"] > 0 for case in results["cases"])
    assert results["seconds"] < 60.0
    (parity,) = results["parity"]
    assert not parity["captured"]
    assert [search["whole"] for search in results["searches"]] == [False, True]
    # How many fit is up to the machine and what else it does.
    assert all(search["trials"] for search in results["searches"])
    assert not [entry["error"] for entry in (*results["cases"], parity) if entry["error"]]


def test_the_verdict_stands_at_the_top_of_the_page(measured: Path) -> None:
    page = measured.with_suffix(".html").read_text()
    for sentence in ("stand-in fp32 on cpu ", " whole."):
        assert page.index(sentence) < page.index("<h2>")
    assert "Parity" not in page, "a CPU alone has nothing to compare with"
    assert "single launches" not in page
    text = measured.with_suffix(".txt").read_text()
    assert "stand-in fp32 whole paced" in text
    assert "in one process" in " ".join(text.split())


def test_results_name_no_folder(measured: Path, stand_in: Path) -> None:
    for file in (measured, measured.with_suffix(".html")):
        for folder in (stand_in.parent, measured.parent, Path.home(), Path(sys.prefix)):
            assert str(folder) not in file.read_text()


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_what_it_knew(stand_in: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rtsr", "bench", "speed", "--provider", "cpu"),
            *("--model", str(stand_in)),
            *("--evidence", str(file), "--budget", "600"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        ends = time.monotonic() + 60.0
        # The page is made of the results and comes behind them.
        while time.monotonic() < ends and not file.with_suffix(".html").is_file():
            time.sleep(0.1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    results = json.loads(file.read_text())
    assert results["parity"]
    assert results["protocol"]["budget_seconds"] == 600.0
    assert not results["finished"]
    assert any("It ended before everything was measured" in line for line in doubts(results))
    assert "</html>" in file.with_suffix(".html").read_text()


@pytest.mark.slow
def test_the_budget_is_kept(stand_in: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    done = bench(
        *("--provider", "cpu", "--model", str(stand_in)),
        *("--evidence", str(tmp_path / "found.json"), "--budget", "20"),
    )
    assert done.exit_code == 0, done.stderr
    assert time.monotonic() - began < 40.0
    results = json.loads((tmp_path / "found.json").read_text())
    assert not results["finished"]
    assert results["cases"]
    assert any("It ended before everything was measured" in line for line in doubts(results))


@pytest.mark.slow
def test_a_process_that_dies_costs_one_item(stand_in: Path) -> None:
    case = Case(
        MODEL, "stand-in", "cpu", "fp32", 1, 1, 1, 10.0, source={"file": str(stand_in)}
    )  # fmt: skip
    protocol = Protocol(seconds=0.02, warm_up_seconds=0.01)
    with Workers(kept=True) as workers:
        assert workers.measure(case, protocol)["cold_start_ms"] > 0.0
        assert workers.measure(case, protocol)["cold_start_ms"] is None, "it is kept"
        (child,) = worker_pids()
        os.kill(child, signal.SIGKILL)
        with pytest.raises(RepetitionError, match="was ended by SIGKILL"):
            workers.measure(case, protocol)
        assert workers.measure(case, protocol)["cold_start_ms"] > 0.0, "the next has a fresh one"
        with pytest.raises(GivenUpError):
            workers.measure(case, protocol, longest_seconds=0.0)
    assert worker_pids() == []


def worker_pids() -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "rtsr_bench.speed.worker"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [int(pid) for pid in found.stdout.split()]


def test_the_most_valuable_comes_first() -> None:
    items = most_valuable_first(with_tf32([ON_CUDA, HALF]), (1, 2, 4))
    assert [item.kind for item in items[:3]] == [PARITY, STEPS, STEPS]
    assert [(item.case.streams, item.case.whole) for item in items[1:3]] == [(1, False), (1, True)]
    assert len(set(items)) == len({(item.kind, item.case) for item in items}) == len(items)
    of_main = [
        item for item in items[:12] if (item.case.provider, item.case.precision) == ("cuda", "fp32")
    ]
    assert {item.kind for item in of_main} == {PARITY, STEPS, SEARCH}
    assert any(item.case.paced for item in of_main)
    assert len({item.case for item in items if item.kind == STEPS}) == 3 * 3 * 6 * 2 * 2
    assert all(item.case.period_ms == 10.0 * item.case.hops for item in items)


def test_products_in_tf32_are_an_option_of_cuda() -> None:
    found = with_tf32([ON_CUDA, HALF, replace(ON_CUDA, provider="cuda:device=1")])
    assert [case.provider for case in found] == [
        *("cuda", "cuda:tf32=on", "cuda", "cuda:device=1", "cuda:device=1,tf32=on")
    ]
    on_cpu = replace(ON_CUDA, provider="cpu")
    assert with_tf32([on_cpu]) == [on_cpu]


class Runner:
    """Answers at once that a step takes so long, whatever it is."""

    def __init__(self, milliseconds: float) -> None:
        self.milliseconds = milliseconds
        self.taken: list[Case] = []

    def __call__(self, case: Case, protocol: Protocol, longest: float) -> dict[str, Any]:
        self.taken.append(case)
        nothing = ("launch_ms", "load_ms", "first_step_ms", "cold_start_ms", "missed_by_the_clock",
                   "cpu_power_w", "rss_mb", "device_mb", "gpu_power_w")  # fmt: skip
        return {
            **dict.fromkeys(nothing), "warm_up_steps": 1, "warm_up_settled": True,
            "times_ms": [self.milliseconds] * 2000,
        }  # fmt: skip


def test_what_is_hopeless_is_left_out() -> None:
    first = replace(ON_CUDA, streams=16)
    others = {
        "more": replace(first, streams=64), "paced": replace(first, paced=True),
        "longer": replace(first, streams=64, hops=4, period_ms=40.0),
        "whole": replace(first, streams=64, whole=True), "fewer": replace(first, streams=8),
    }  # fmt: skip
    runner = Runner(30.0)
    items = [Item(STEPS, case) for case in (first, *others.values())]
    results = run_plan(Plan(items, may_be_cut_short=True), runner=runner)
    assert runner.taken == [first, others["longer"], others["whole"], others["fewer"]]
    errors = {case["label"]: case["error"] for case in results["cases"]}
    assert errors[others["more"].label] == "Left out: 16 streams took 30 ms, far above 10."
    assert errors[others["paced"].label]
    assert errors[first.label] is None
    told = [line for line in doubts(results) if "machine was busy" not in line]
    assert told == ["2 cases left out: fewer streams were far too slow already."]
    del runner.taken[:]
    run_plan(Plan(items), runner=runner)
    assert runner.taken == [first, *others.values()], "who names a matrix gets it whole"


def test_only_the_last_of_what_is_kept_is_finished() -> None:
    kept: list[bool] = []
    items = [Item(STEPS, replace(ON_CUDA, streams=streams)) for streams in (1, 2, 3)]
    plan = Plan(items, may_be_cut_short=True)
    run_plan(plan, runner=Runner(1.0), keep=lambda results: kept.append(results["finished"]))
    assert kept == [False, False, True]


def test_what_was_not_reached_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(
        [Item(STEPS, replace(ON_CUDA, streams=streams)) for streams in (1, 2)],
        budget_seconds=0.0, may_be_cut_short=True,
    )  # fmt: skip
    results = run_plan(plan, runner=Runner(1.0))
    assert (results["cases"], results["finished"]) == ([], False)


def test_a_model_that_does_not_start_ends_it_at_once(tmp_path: Path, write_model: Any) -> None:
    broken = write_model(states={"memory": [1, 1, 7]})
    done = bench("--model", str(broken), "--provider", "cpu", "--evidence", tmp_path / "x.json")
    assert done.exit_code == 2
    assert "does not match its metadata" in done.stderr
    assert not list(tmp_path.glob("x.*"))


def _results(*parity: dict[str, Any]) -> dict[str, Any]:
    plan = Plan([Item(STEPS, ON_CUDA)], may_be_cut_short=True)
    return {**run_plan(plan, runner=Runner(0.4)), "parity": list(parity)}


def _parity(to_cpu: float | None) -> dict[str, Any]:
    return {
        "label": ON_CUDA.search_label, **ON_CUDA.identity(), "error": None, "captured": True,
        "to_eager": 1e-6, "to_eager_limit": 1e-4, "to_cpu": to_cpu, "to_cpu_limit": 2e-3,
    }  # fmt: skip


@pytest.mark.parametrize(("to_cpu", "is_sound"), [(1e-4, True), (3e-3, False), (None, False)])
def test_a_failed_parity_comes_first(to_cpu: float | None, is_sound: bool) -> None:
    first, second = verdict(_results(_parity(to_cpu)))
    assert first.kind == ("good" if is_sound else "bad")
    assert ("Parity holds" in first.text) is is_sound
    assert ("do not use it" in first.text) is not is_sound
    assert second.text.startswith("small fp32 on cuda keeps up: 1 stream, 10 ms of sound in 0.4 ms")


def test_steps_that_are_not_captured_are_told() -> None:
    lines = verdict(_results({**_parity(1e-4), "captured": False}))
    assert [line.text for line in lines if line.kind == "bad"] == [
        "Steps are NOT CAPTURED as CUDA graphs."
    ]


def test_a_page_survives_items_without_figures() -> None:
    failed = {**_parity(None), "error": "out of <memory>"}
    page = show_page({**_results(failed, _parity(None)), "cases": []})
    assert "out of &lt;memory&gt;" in page
    assert "no number &gt; 2e-03" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--budget", "3"], "too small for one item; give 10 s or more"),
        (["--budget", "100000"], "more than a day"),
        (["--budget", "nan"], "more than a day"),
        (["--json", "x.json"], "a protocol of its own; leave out --json"),
        (["--paced", "--quick"], "leave out --paced, --quick"),
        (["--no-search", "--most-streams", "4"], "leave out --no-search, --most-streams"),
        (["--no-references"], "leave out --no-references"),
        (["--seconds", "0", "--repetitions", "0"], "leave out --repetitions, --seconds"),
        (
            ["--against-input", "x:1x480", "--against-output", "y", "--against-state", "a=b"],
            "leave out --against-input, --against-output, --against-state",
        ),
        (["--against-ms", "20"], "leave out --against-ms"),
        (["--compare", "a.json", "b.json"], "leave out --compare"),
        (["--provider", "cpu", "--provider", "cuda"], "about one provider"),
        (["--model", "replicate"], "about networks"),
        (["--model", "nothing.onnx"], "nothing.onnx"),
        (["--provider", "cuda"], "not in the installed ONNX Runtime"),
        (["--hops", "3"], "must be one of 1, 2, 4, 8, 16"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, stand_in: Path
) -> None:
    given = ["--evidence", str(tmp_path / "found.json"), *arguments]
    if "--model" not in arguments:
        given += ["--model", str(stand_in)]
    done = bench(*given)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_results_that_exist_are_not_overwritten(tmp_path: Path) -> None:
    for name in ("found.json", "found.html"):
        (tmp_path / name).write_text("kept")
        done = bench("--evidence", str(tmp_path / "found.json"))
        assert done.exit_code == 2
        assert "exists; name another file" in done.stderr
        assert (tmp_path / name).read_text() == "kept"
        (tmp_path / name).unlink()


def test_a_budget_needs_evidence() -> None:
    done = bench("--budget", "60")
    assert done.exit_code == 2
    assert "--budget is for --evidence" in done.stderr


@pytest.mark.parametrize(
    ("row", "is_free"),
    [
        ([["0", "500", "81559"]], True),
        ([["97", "500", "81559"]], False),
        ([["0", "60000", "81559"]], False),
        ([["[N/A]", "[N/A]", "[N/A]"]], True),
        ([], True),
    ],
)
def test_a_busy_gpu_is_refused(
    row: list[list[str]], is_free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_monitor, "gpu_query", lambda *_, **__: row)
    if is_free:
        gpu_monitor.require_free(0)
        return
    with pytest.raises(RtsrError, match="used by somebody else"):
        gpu_monitor.require_free(0)


def test_a_gpu_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    looks = "for i in 1 2 3; do echo '300.5, 1000'; sleep 0.05; done"
    program.write_text(f"#!/bin/sh\n{looks}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    began = time.time()
    monitor = gpu_monitor.GpuMonitor(0)
    ends = time.monotonic() + 10.0
    while len(monitor.samples) < 3 and time.monotonic() < ends:
        time.sleep(0.01)
    monitor.stop()
    seen = monitor.between(began, time.time())
    assert seen == {"gpu_power_w": 300.5, "gpu_memory_mb": pytest.approx(1048.576)}
    assert monitor.between(0.0, 1.0)["gpu_power_w"] is None

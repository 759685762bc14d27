"""``rtsr bench speed --evidence``: order, budget, what is left at any moment, the verdict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rtsr.cli import app as application
from rtsr.errors import RtsrError
from rtsr_bench.speed import gpu_monitor
from rtsr_bench.speed.evidence import run
from rtsr_bench.speed.evidence.items import (
    PARITY,
    SEARCH,
    STEPS,
    Item,
    Network,
    plan_items,
    with_tf32,
)
from rtsr_bench.speed.evidence.report import build_page, verdict
from rtsr_bench.speed.summary import step_figures

ON_CUDA = Network("small", "fp32", "cuda", "small.onnx")
HALF = Network("small", "fp16", "cuda", "small-fp16.onnx")


def bench(*arguments: str) -> Any:
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})
    return runner.invoke(application.app, ["bench", "speed", *arguments])


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
    results = json.loads(measured.read_text())
    assert results["finished"]
    assert results["planned"] == len(results["items"])
    ways = {
        (entry["streams"], entry["whole"], entry["paced"])
        for entry in results["items"]
        if entry["kind"] == STEPS and "figures" in entry
    }
    assert len(ways) == 8
    assert results["elapsed_s"] < 60.0
    for entry in results["items"]:
        assert "error" not in entry
        if entry["kind"] == PARITY:
            assert entry["to_eager"] == 0.0
            assert entry["parity_hops"] == 200
        if entry["kind"] == SEARCH:
            assert entry["search"]["streams"] >= 1


def test_the_verdict_stands_at_the_top_of_the_page(measured: Path) -> None:
    results = json.loads(measured.read_text())
    assert "a step of stand-in takes" in results["verdict"]["headline"]
    assert "parity holds" in results["verdict"]["headline"]
    page = measured.with_suffix(".html").read_text()
    assert page.index("a step of stand-in takes") < page.index("<h2>")
    assert results["verdict"]["headline"].split(":")[0] in measured.with_suffix(".txt").read_text()


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
        while time.monotonic() < ends and not file.is_file():
            time.sleep(0.1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    results = json.loads(file.read_text())
    assert results["items"]
    assert not results["finished"]
    assert results["verdict"]["headline"]
    assert "</html>" in file.with_suffix(".html").read_text()


@pytest.mark.slow
def test_the_budget_is_kept(stand_in: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    done = bench(
        *("--provider", "cpu", "--model", str(stand_in)),
        *("--evidence", str(tmp_path / "found.json"), "--budget", "10"),
    )
    assert done.exit_code == 0, done.stderr
    assert time.monotonic() - began < 20.0
    results = json.loads((tmp_path / "found.json").read_text())
    assert not results["finished"]
    assert 0 < len(results["items"]) < results["planned"]


@pytest.mark.slow
def test_a_process_that_dies_costs_one_item(stand_in: Path) -> None:
    worker = run._Worker()
    item = Item(STEPS, Network("stand-in", "fp32", "cpu", str(stand_in)))
    job = {"item": _as_job(item), "seconds": 0.02, "seconds_left": 30.0, "first": 1}
    try:
        assert "figures" in worker.ask(job, 30.0)
        assert worker._process is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        assert "died" in worker.ask(job, 30.0)["error"]
        assert "figures" in worker.ask(job, 30.0), "the next one has a fresh process"
        assert worker.ask(job, 0.0)["cut_off"]
    finally:
        worker.stop()


def _as_job(item: Item) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(item)


def test_the_most_valuable_comes_first() -> None:
    items = plan_items(with_tf32([ON_CUDA, HALF]))
    assert [item.kind for item in items[:3]] == [PARITY, STEPS, STEPS]
    assert [(item.streams, item.whole) for item in items[1:3]] == [(1, False), (1, True)]
    labels = [item.label for item in items]
    assert len(set(labels)) == len(labels)
    of_main = [item for item in items[:12] if item.network == ON_CUDA]
    assert {item.kind for item in of_main} == {PARITY, STEPS, SEARCH}
    assert any(item.paced for item in of_main)
    everything = {
        (item.network.precision, item.hops, item.streams, item.whole, item.paced)
        for item in items
        if item.kind == STEPS
    }
    assert len(everything) == 3 * 3 * 6 * 2 * 2


def test_products_in_tf32_are_an_option_of_cuda() -> None:
    assert [network.provider for network in with_tf32([ON_CUDA, HALF])] == [
        *("cuda", "cuda:tf32=on", "cuda")
    ]
    on_cpu = Network("small", "fp32", "cpu", "small.onnx")
    assert with_tf32([on_cpu]) == [on_cpu]


def test_what_is_hopeless_is_left_out() -> None:
    entry = {**Item(STEPS, ON_CUDA, streams=16).identity(), "figures": _figures(30.0)}
    more = Item(STEPS, ON_CUDA, streams=64)
    assert "16 streams took 30 ms" in run._why_left_out(more, [entry])["left_out"]
    assert run._why_left_out(Item(STEPS, ON_CUDA, streams=16, paced=True), [entry])
    assert not run._why_left_out(Item(STEPS, ON_CUDA, streams=16), [entry])
    assert not run._why_left_out(Item(STEPS, ON_CUDA, hops=4, streams=64), [entry])
    assert not run._why_left_out(Item(STEPS, ON_CUDA, streams=64, whole=True), [entry])


def _figures(milliseconds: float) -> dict[str, Any]:
    import numpy as np

    return step_figures(np.full(2000, milliseconds), 10.0)


def _results(*items: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(items), "provider": "cuda", "gpu": {"name": "NVIDIA H100"},
            "machine": {"cpu": {"model": "a CPU"}}}  # fmt: skip


def _parity(to_cpu: float | None) -> dict[str, Any]:
    return {
        **Item(PARITY, ON_CUDA).identity(), "captured": True, "to_eager": 1e-6,
        "to_eager_limit": 1e-4, "to_cpu": to_cpu, "to_cpu_limit": 2e-3,
    }  # fmt: skip


@pytest.mark.parametrize(("to_cpu", "is_sound"), [(1e-4, True), (3e-3, False), (None, False)])
def test_a_failed_parity_is_the_headline(to_cpu: float | None, is_sound: bool) -> None:
    found = verdict(_results(_parity(to_cpu)))
    assert found["sound"] is is_sound
    assert ("parity holds" in found["headline"]) is is_sound
    assert ("do not use it" in found["headline"]) is not is_sound


@pytest.mark.parametrize(("milliseconds", "state"), [(0.3, "met"), (0.5, "missed")])
def test_claims_are_met_missed_or_open(milliseconds: float, state: str) -> None:
    single = {**Item(STEPS, ON_CUDA).identity(), "figures": _figures(milliseconds)}
    search = {"streams": 2100, "finished": True, "fails_at": 2200, "trials": []}
    streams = {**Item(SEARCH, ON_CUDA).identity(), "search": search}
    claims = verdict(_results(_parity(1e-4), single, streams))["claims"]
    assert [claim["state"] for claim in claims] == [state, "not measured", "met", "not measured"]


def test_a_page_survives_items_without_figures() -> None:
    failed = {**Item(STEPS, ON_CUDA).identity(), "error": "out of <memory>"}
    results = {
        **_results(failed, _parity(None)), "verdict": {}, "elapsed_s": 1.0, "budget_s": 9.0,
        "planned": 4, "finished": False, "date": "", "command": "", "notes": ["slower"],
        "software": {"rtsr": "0", "revision": None, "python": "3", "libraries": {}},
    }  # fmt: skip
    results["machine"].update(system="", load_average=None, gpus=[])
    results["machine"]["cpu"]["usable_threads"] = 2
    results["verdict"] = verdict(results)
    page = build_page(results)
    assert "out of &lt;memory&gt;" in page
    assert "no number" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--budget", "3"], "too small for one item; give 10 s or more"),
        (["--budget", "100000"], "more than a day"),
        (["--budget", "nan"], "more than a day"),
        (["--json", "x.json"], "a protocol of its own; leave out --json"),
        (["--paced", "--quick"], "leave out --paced, --quick"),
        (["--provider", "cpu", "--provider", "cuda"], "about one provider"),
        (["--model", "replicate"], "about networks"),
        (["--model", "nothing.onnx"], "nothing.onnx"),
        (["--provider", "cuda"], "not in the installed ONNX Runtime"),
        (["--hops", "3"], "must be one of 1, 2, 4"),
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
    looks = "for i in 1 2 3; do echo '300.5, 1000, 40, 1980'; sleep 0.05; done"
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
    assert seen == {
        "gpu_power_w": 300.5, "gpu_memory_mb": pytest.approx(1048.576), "gpu_clock_mhz": 1980.0,
    }  # fmt: skip
    assert monitor.between(0.0, 1.0)["gpu_power_w"] is None

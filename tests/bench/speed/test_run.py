"""Turns, budgets, failures and what becomes of them, with a runner that times nothing."""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtsr.runtime.models import find_model
from rtsr_bench import machine, resources
from rtsr_bench.speed.clock import Clock
from rtsr_bench.speed.gpu_monitor import GpuMonitor, gpu_megabytes
from rtsr_bench.speed.matrix import MODEL, Case, reference_case
from rtsr_bench.speed.measure import Protocol, measure
from rtsr_bench.speed.order import STEPS, in_turns, with_tf32
from rtsr_bench.speed.report import doubts
from rtsr_bench.speed.run import Plan, run_plan
from rtsr_bench.speed.workers import GivenUpError, RepetitionError, Workers


def case(name: str, streams: int = 1) -> Case:
    return Case(MODEL, name, "cpu", "fp32", 1, streams, 1, 10.0, source={"file": "nowhere"})


def plan(
    cases: list[Case], searches: tuple[Case, ...] | list[Case] = (), *, repetitions: int = 5,
    **rest: Any,
) -> Plan:  # fmt: skip
    return Plan(in_turns(cases, searches, repetitions), **rest)


def answer(times: list[float], **facts: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(("launch_ms", "load_ms", "cold_start_ms", "first_step_ms", "rss_mb"), 1.0),
        **dict.fromkeys(("device_mb", "cpu_power_w", "gpu_power_w", "missed_by_the_clock")),
        "warm_up_steps": 3,
        "warm_up_settled": True,
        "times_ms": times,
        **facts,
    }


class Runner:
    """Answers at once; step time is one millisecond per stream."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int]] = []

    def __call__(self, case: Case, protocol: Protocol, longest: float) -> dict[str, Any]:
        self.taken.append((case.name, case.streams))
        if case.name == "broken":
            raise RepetitionError("It is broken.")
        return answer([float(case.streams)] * 30)


def test_repetitions_take_turns() -> None:
    runner = Runner()
    results = run_plan(plan([case("a"), case("b")], repetitions=3), runner=runner)
    assert [name for name, _ in runner.taken] == ["a", "b"] * 3
    assert [len(entry["repetitions"]) for entry in results["cases"]] == [3, 3]


@pytest.mark.parametrize(("taken", "kept"), [(0, []), (3, [2, 1])])
def test_what_was_measured_before_ctrl_c_is_kept(taken: int, kept: list[int]) -> None:
    runner, seen = Runner(), []

    def interrupted(*job: Any) -> dict[str, Any]:
        if len(runner.taken) == taken:
            raise KeyboardInterrupt
        return runner(*job)

    made = plan([case("a"), case("b")], repetitions=3)
    with pytest.raises(KeyboardInterrupt):
        run_plan(made, runner=interrupted, keep=seen.append)
    assert [len(entry["repetitions"]) for one in seen for entry in one["cases"]] == kept
    assert [one["finished"] for one in seen] == [False] * bool(kept)
    errors = [entry["error"] for one in seen for entry in one["cases"]]
    assert errors == [f"Cut short: there was time for {n} of 3 repetitions." for n in kept]


def test_results_hold_every_documented_figure_and_are_strict_json() -> None:
    made = plan([case("a")], [case("a")], repetitions=2)
    results = json.loads(json.dumps(run_plan(made, runner=Runner()), allow_nan=False))
    assert {"cpu", "memory_gb", "gpus", "system", "load_average"} <= set(results["machine"])
    assert {"rtsr", "revision", "libraries", "providers"} <= set(results["software"])
    (entry,) = results["cases"]
    assert {
        *("cold_start_ms", "first_step_ms", "p50_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms"),
        *("jitter_ms", "missed_deadlines", "real_time_factor", "rss_mb", "device_mb"),
        *("cpu_power_w", "gpu_power_w"),
    } <= set(entry["figures"])
    assert entry["figures"]["steps"] == 60
    assert entry["steady"]
    assert all("warm_up_steps" in repetition for repetition in entry["repetitions"])
    (search,) = results["searches"]
    assert (search["streams"], search["fails_at"], search["finished"]) == (7, 8, True)
    assert "nowhere" not in json.dumps(results)


def test_a_failure_stays_in_its_case() -> None:
    runner = Runner()
    results = run_plan(plan([case("broken"), case("a")], repetitions=3), runner=runner)
    broken, whole = results["cases"]
    assert (broken["error"], broken["repetitions"]) == ("It is broken.", [])
    assert whole["error"] is None
    assert [name for name, _ in runner.taken].count("broken") == 1


def test_a_run_that_does_not_settle_is_not_steady() -> None:
    made = plan([case("a")], repetitions=1)
    results = run_plan(made, runner=lambda *_: answer([1.0] * 30, warm_up_settled=False))
    assert results["cases"][0]["steady"] is False


def test_nothing_is_started_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(case: Case, protocol: Protocol, longest: float) -> dict[str, Any]:
        assert longest > 0.0
        now[0] += 10.0
        return answer([1.0] * 30)

    made = plan([case("a"), case("b")], [case("a")], repetitions=50, budget_seconds=105.0)
    results = run_plan(made, runner=slow)
    assert now[0] <= 105.0
    counts = [len(entry["repetitions"]) for entry in results["cases"]]
    assert 2 <= min(counts) <= max(counts) <= 4
    assert results["searches"][0]["trials"]
    assert not results["searches"][0]["finished"]


def test_the_budget_counts_from_the_beginning_of_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(case: Case, protocol: Protocol, longest: float) -> dict[str, Any]:
        now[0] += 10.0
        return answer([1.0] * 30)

    made = plan([case("a")], repetitions=50, budget_seconds=100.0, began=940.0)
    results = run_plan(made, runner=slow)
    assert now[0] <= 1040.0
    assert len(results["cases"][0]["repetitions"]) == 3
    assert results["seconds"] == 90.0


def test_what_was_cut_short_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(case: Case, protocol: Protocol, longest: float) -> dict[str, Any]:
        now[0] += 10.0
        return answer([1.0] * 30)

    def stuck(case: Case, protocol: Protocol, longest: float) -> dict[str, Any]:
        if case.name == "a":
            return slow(case, protocol, longest)
        now[0] += longest
        raise GivenUpError(f"given up after {longest:.0f} s")

    made = plan([case("a"), case("b"), case("c")], repetitions=2, budget_seconds=45.0)
    results = run_plan(made, runner=slow)
    assert [entry["error"] for entry in results["cases"]] == [
        None,
        "Cut short: there was time for 1 of 2 repetitions.",
        "Cut short: there was time for 1 of 2 repetitions.",
    ]
    assert all("figures" in entry for entry in results["cases"])
    told = doubts(results)
    assert f"{case('b').label}: Cut short: there was time for 1 of 2 repetitions." in told
    assert not any(case("a").label in line for line in told)

    now[0] = 0.0
    results = run_plan(made, runner=stuck)
    assert now[0] == 45.0
    assert [entry["error"] for entry in results["cases"]] == [
        "Cut short: there was time for 1 of 2 repetitions.",
        "given up after 35 s",
        "There was no time left for it.",
    ]


def test_a_trial_cut_off_by_the_budget_is_no_failure() -> None:
    def cut(case: Case, protocol: Protocol, longest: float) -> dict[str, Any]:
        if case.streams > 2:
            raise GivenUpError("too long")
        return answer([1.0] * 30)

    made = plan([], [case("a")], budget_seconds=100.0)
    (search,) = run_plan(made, runner=cut)["searches"]
    assert (search["streams"], search["fails_at"], search["finished"]) == (2, None, False)
    (search,) = run_plan(plan([], [case("a")]), runner=cut)["searches"]
    assert (search["streams"], search["fails_at"], search["finished"]) == (2, 3, True)


def test_a_clock_without_a_budget_always_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    free, bound = Clock(None), Clock(1e9)
    for clock in (free, bound):
        with clock.watching():
            now[0] += 1e9
    assert free.has_room()
    assert not bound.has_room()


def test_one_repetition_in_this_process(stand_in: Path) -> None:
    one = Case(MODEL, "stand-in", "cpu", "fp32", 2, 3, 1, 20.0, source={"file": str(stand_in)})
    found = measure(one, Protocol(0.02, 0.01, most_steps=50), launched_ns=0)
    assert 1 <= len(found["times_ms"]) <= 50
    assert found["provider"] == "cpu"
    assert found["rss_mb"] > 1.0
    assert found["missed_by_the_clock"] is None
    json.dumps(found, allow_nan=False)


def test_hopeless_trials_are_cut_short() -> None:
    """When every step is over the limit, two of a thousand settle it."""
    protocol = Protocol(5.0, 0.0, limit_ms=0.0, most_steps=1000)
    assert len(measure(reference_case("resampler"), protocol, 0)["times_ms"]) == 2


def test_paced_steps_keep_to_the_clock() -> None:
    protocol = Protocol(5.0, 0.0, most_steps=5)
    found = measure(replace(reference_case("resampler"), paced=True), protocol, 0)
    began, ended = found["timed_between"]
    assert ended - began >= 0.049
    assert len(found["times_ms"]) == 5
    assert 0 <= found["missed_by_the_clock"] <= 5


@pytest.mark.parametrize("kind", ["replicate", "resampler", "soxr"])
def test_floors_can_be_timed(kind: str) -> None:
    if kind == "soxr":
        pytest.importorskip("soxr")
    found = measure(reference_case(kind, hops=2, streams=3), Protocol(0.01, 0.0, most_steps=5), 0)
    assert found["times_ms"]


def test_a_fresh_process_answers(stand_in: Path) -> None:
    one = Case(MODEL, "stand-in", "cpu", "fp32", 1, 1, 1, 10.0, source={"file": str(stand_in)})
    with Workers() as workers:
        found = workers.measure(one, Protocol(0.02, 0.01, most_steps=20))
    assert found["times_ms"]
    assert found["cold_start_ms"] > found["load_ms"] > 0.0
    assert found["gpu_power_w"] is None
    assert found["device_mb"] is None


@pytest.mark.slow
def test_a_fresh_process_fails_in_one_sentence(tmp_path: Path) -> None:
    missing = Case(
        MODEL, "none", "cpu", "fp32", 1, 1, 1, 10.0, source={"file": str(tmp_path / "none.onnx")}
    )
    with Workers() as workers:
        with pytest.raises(RepetitionError, match=r"none\.onnx' does not exist"):
            workers.measure(missing, Protocol(0.02))
        with pytest.raises(GivenUpError, match="given up after 0 s"):
            workers.measure(missing, Protocol(0.02), longest_seconds=0.01)
        with pytest.raises(RepetitionError, match="KeyError: 'nonsense'"):
            workers.measure(reference_case("nonsense"), Protocol(0.02))


@pytest.mark.slow
def test_a_process_that_dies_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not even get through its imports, as with a broken installation."""
    (tmp_path / "json.py").write_text("raise ImportError('it is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        Workers() as workers,
        pytest.raises(RepetitionError, match=r"stopped with code 1 \(ImportError: it is broken\)"),
    ):
        workers.measure(reference_case("resampler"), Protocol(0.02))


def test_energy_is_read_from_packages_only(tmp_path: Path) -> None:
    def zone(name: str, label: str, energy: int) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(f"{label}\n")
        (folder / "energy_uj").write_text(f"{energy}\n")
        (folder / "max_energy_range_uj").write_text("10000000\n")
        return folder

    zone("intel-rapl:0", "package-0", 1_000_000)
    zone("intel-rapl:0:0", "core", 5)
    zone("intel-rapl:1", "package-1", 9_000_000)
    zone("intel-rapl:2", "psys", 77)
    energy = resources.PackageEnergy(tmp_path)
    assert energy.readable
    zone("intel-rapl:0", "package-0", 3_000_000)
    zone("intel-rapl:1", "package-1", 500_000)  # began anew
    assert energy.joules() == pytest.approx(2.0 + 1.5)


def test_power_that_cannot_be_read_is_not_invented(tmp_path: Path) -> None:
    energy = resources.PackageEnergy(tmp_path)
    assert not energy.readable
    assert energy.joules() is None


@pytest.fixture
def fake_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ``nvidia-smi`` with one card."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '  *-lms*) while :; do echo "123.5, [N/A]"; echo "[N/A]"; sleep 0.02; done ;;\n'
        "  *name,driver*) echo 'Some GPU, 999.1, 1000, 300.00, 1500, [N/A]' ;;\n"
        "  *memory.used*) echo 500 ;;\n"
        "  *power.draw*) echo 123.5 ;;\n"
        "esac\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("fake_gpu")
def test_a_gpu_is_described() -> None:
    described = machine.describe_machine()
    assert described["gpus"][0]["name"] == "Some GPU"
    assert described["gpus"][0]["driver_version"] == "999.1"
    assert described["power_counters"]["gpu"] == "nvidia-smi"


def test_a_sessions_gpu_is_the_one_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [resources.gpu_command("name", device=device)[-2:] for device in (0, 1)] == [
        ["-i", "0"],
        ["-i", "1"],
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5")
    assert [resources.gpu_command("name", device=device)[-1] for device in (0, 1)] == ["3", "GPU-5"]


@pytest.mark.usefixtures("fake_gpu")
def test_power_is_sampled_until_it_is_stopped() -> None:
    began, monitor = time.time(), GpuMonitor(0)
    deadline = time.monotonic() + 10.0
    while len(monitor.samples) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    monitor.stop()
    seen = monitor.between(began, time.time())
    assert seen["gpu_power_w"] == 123.5
    assert seen["gpu_memory_mb"] is None


def test_memory_before_a_process_is_asked_for_at_that_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat {said}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for text, megabytes in (("500", pytest.approx(524.288)), ("0", 0.0), ("[N/A]", None)):
        said.write_text(f"{text}\n")
        assert gpu_megabytes(0) == megabytes
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_megabytes(0) is None


def test_a_cards_quality_is_not_taken_for_that_of_products_in_tf32() -> None:
    shipped = find_model("small")
    source = {"file": str(shipped.path)}
    single = replace(case("small"), provider="cuda", precision="fp32", source=source)
    made = plan(with_tf32([single]), repetitions=1)
    assert [one.precision for one in made.cases(STEPS)] == ["fp32", "tf32"]
    results = run_plan(made, runner=Runner())
    assert results["quality"] == {"small fp32": shipped.metadata.card["metrics"]}


def test_the_machine_is_described_without_naming_it() -> None:
    described = json.dumps([machine.describe_machine(), machine.describe_software()])
    assert os.uname().nodename not in described or len(os.uname().nodename) < 4
    assert str(Path.home()) not in described


def test_a_folder_outside_of_a_repository_has_no_revision(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    assert machine.git_revision(tmp_path) is None

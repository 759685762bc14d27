"""``rtsr bench speed --evidence``: as much as a budget of seconds can tell about this machine.

Items are measured in the order of their value, and the results are written after each of them: a
run that is cut off at any moment has left a whole answer to what came before.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rtsr.errors import ArgumentError, RtsrError
from rtsr.runtime.providers import select as providers
from rtsr_bench.files import check_writable, write_json, write_text
from rtsr_bench.machine import describe_machine, describe_software
from rtsr_bench.speed import matrix
from rtsr_bench.speed.evidence.items import SEARCH, STEPS, Item, Network, plan_items, with_tf32
from rtsr_bench.speed.evidence.report import build_page, verdict
from rtsr_bench.speed.gpu_monitor import GpuMonitor, require_free

KIND = "rtsr bench evidence"
FORMAT = 1
LEAST_BUDGET_S = 10.0
MOST_BUDGET_S = 86_400.0
DEFAULT_BUDGET_S = 270.0
#: Seconds of timed steps per item: this part of the budget, within limits.
_PART_PER_ITEM, _LEAST_S, _MOST_S = 1 / 150, 0.05, 2.0
#: What takes so many periods is not tried with more streams.
_HOPELESS_PERIODS = 2.0
_STOP_S = 2.0

Show = Callable[[str, float], None]


@dataclass(frozen=True)
class EvidencePlan:
    """What is measured, and for how long.

    Attributes:
        items: the most valuable first.
        budget_s: from ``began`` on.
        began: a ``time.monotonic()``.
        file: of the results; the report stands beside it as ``.html``.
        command: how it was asked for.
        provider, device: what it runs on.
        facts: what the probe said.
    """

    items: Sequence[Item]
    budget_s: float
    began: float
    file: Path
    command: str
    provider: str
    device: int
    facts: dict[str, Any]

    @property
    def page(self) -> Path:
        """File of the report."""
        return self.file.with_suffix(".html")


def check_evidence(file: Path, budget_s: float) -> None:
    """Raise :class:`ArgumentError` where a run would end in nothing."""
    if file.suffix == ".html":
        raise ArgumentError(f"'{file}' is to hold JSON; the report is written beside it as .html.")
    for one in (file, file.with_suffix(".html")):
        if one.exists():
            raise ArgumentError(f"'{one}' exists; name another file, or move it away.")
    if budget_s < LEAST_BUDGET_S:
        raise ArgumentError(
            f"A budget of {budget_s:g} s is too small for one item; give {LEAST_BUDGET_S:g} s or "
            "more."
        )
    if not budget_s <= MOST_BUDGET_S:
        raise ArgumentError(f"A budget of {budget_s:g} s is more than a day; give less.")


def plan_evidence(
    file: Path,
    budget_s: float,
    axes: matrix.Axes,
    began: float,
    command: str,
) -> EvidencePlan:
    """Find the models, let the provider start once, and put all items into their order.

    Raises:
        RtsrError: what cannot be measured, a GPU that is busy, or a provider that does not start.
    """
    check_evidence(file, budget_s)
    named = list(axes.providers or [providers.AUTO])
    if len(named) > 1:
        raise ArgumentError(
            "Evidence is about one provider; name one, and run it again for another."
        )
    name, options = providers.parse_provider(named[0])
    if name not in (providers.AUTO, providers.CPU):
        matrix.choose_providers(named)
    if name != providers.CPU:
        require_free(options.device)
    found = matrix.model_cases(
        matrix.Axes([providers.CPU], axes.models, axes.precisions, (1,), (1,), axes.threads)
    )
    # Reference costs have no network. The others are compared with single precision.
    cases = [case for case in found if case.kind == matrix.MODEL]
    cases.sort(key=lambda case: matrix.PRECISIONS.index(case.precision))
    if not cases:
        raise ArgumentError("Evidence is about networks; name one with --model.")
    worker = _Worker()
    try:
        job = {"probe": {"provider": named[0], "file": cases[0].source["file"]}}
        facts = worker.ask(job, max(budget_s, 60.0))
    finally:
        worker.stop()
    if "error" in facts:
        raise RtsrError(facts["error"])
    provider = facts["provider"]
    chosen = options.text(provider) if provider != providers.CPU else providers.CPU
    networks = [
        Network(case.name, case.precision, chosen, case.source["file"], axes.threads)
        for case in cases
        if provider == providers.CPU or case.precision != "int8"
    ]
    if not networks:
        raise ArgumentError(f"Models in int8 run on provider 'cpu' only, and this is {provider!r}.")
    matrix.check_axes(axes)
    items = plan_items(with_tf32(networks), axes.hops, axes.streams)
    return EvidencePlan(items, budget_s, began, file, command, provider, options.device, facts)


def run_evidence(plan: EvidencePlan, show: Show) -> dict[str, Any]:
    """Measure until the budget is spent; returns what the file of results holds in the end."""
    deadline = plan.began + plan.budget_s
    results = _empty(plan)
    monitor = GpuMonitor(plan.device)
    worker = _Worker()
    longest_opening = 0.0
    try:
        for item in plan.items:
            left = deadline - time.monotonic()
            if left <= longest_opening + _LEAST_S:
                break
            show(item.label, plan.budget_s - left)
            entry = {**item.identity(), **_why_left_out(item, results["items"])}
            if "left_out" not in entry:
                began = time.monotonic()
                entry.update(_measure(worker, item, plan.budget_s, left, results["items"]))
                if "between" in entry:
                    entry.update(monitor.between(*entry.get("timed_between", entry["between"])))
                longest_opening = max(longest_opening, entry.get("open_s", 0.0))
                entry["took_s"] = round(time.monotonic() - began, 2)
            results["items"].append(entry)
            _write(plan, results)
        else:
            results["finished"] = True
    finally:
        worker.stop()
        monitor.stop()
        _write(plan, results)
    return results


def _measure(
    worker: _Worker, item: Item, budget_s: float, left: float, done: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    seconds = min(max(_PART_PER_ITEM * budget_s, _LEAST_S), _MOST_S)
    job = {
        "item": asdict(item),
        "seconds": seconds * (2.0 if item.paced else 1.0),
        "seconds_left": left - _LEAST_S,
        "first": _most_that_fit(item, done),
    }
    return worker.ask(job, left)


def _alike(item: Item, done: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return times of the same network and way with any number of streams, back to back."""
    wanted = item.identity()
    same = ("name", "precision", "provider", "hops", "whole")
    return [
        entry
        for entry in done
        if entry["kind"] == STEPS
        and "figures" in entry
        and not entry["paced"]
        and all(entry[key] == wanted[key] for key in same)
    ]


def _most_that_fit(item: Item, done: Sequence[dict[str, Any]]) -> int:
    return max(
        (
            entry["streams"]
            for entry in _alike(item, done)
            if entry["figures"]["p99_ms"] <= item.period_ms
        ),
        default=1,
    )


def _why_left_out(item: Item, done: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Why an item is not worth its time, after what is known."""
    if item.kind == SEARCH:
        return {}
    for entry in _alike(item, done):
        p50 = entry["figures"]["p50_ms"]
        fewer = entry["streams"] < item.streams or (item.paced and entry["streams"] == item.streams)
        if item.kind == STEPS and fewer and p50 > _HOPELESS_PERIODS * item.period_ms:
            return {
                "left_out": f"{matrix.counted(entry['streams'], 'stream')} took {p50:.0f} ms, "
                f"far above {item.period_ms:g}"
            }
    return {}


def _empty(plan: EvidencePlan) -> dict[str, Any]:
    return {
        "kind": KIND,
        "format": FORMAT,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": plan.command,
        "budget_s": plan.budget_s,
        "elapsed_s": 0.0,
        "finished": False,
        "planned": len(plan.items),
        "provider": plan.provider,
        "gpu": plan.facts.get("gpu"),
        "notes": plan.facts.get("notes", []),
        "machine": describe_machine(),
        "software": describe_software(),
        "verdict": {},
        "items": [],
    }


def _write(plan: EvidencePlan, results: dict[str, Any]) -> None:
    results["elapsed_s"] = round(time.monotonic() - plan.began, 1)
    results["verdict"] = verdict(results)
    write_json(plan.file, results)
    write_text(plan.page, build_page(results))


class _Worker:
    """The process that measures; a fresh one after one that broke."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def ask(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer to a job, or why there is none within that time."""
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            self.stop()
            return {"error": "The budget was spent before it was done.", "cut_off": True}
        except OSError:
            line = ""
        if not line:
            code = self._process.wait()
            self.stop()
            return {"error": f"The measuring process died (code {code})."}
        answer: dict[str, Any] = json.loads(line)
        if answer.pop("broken", False):
            self.stop()
        return answer

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with_error = process.poll() is not None
        if not with_error:
            process.stdin.close()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self) -> None:
        answers: queue.Queue[str] = queue.Queue()
        process = subprocess.Popen(
            [sys.executable, "-m", "rtsr_bench.speed.evidence.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                answers.put(line)
            answers.put("")

        threading.Thread(target=read, daemon=True).start()
        self._process, self._answers = process, answers


def gather_evidence(
    file: Path,
    budget: float | None,
    axes: matrix.Axes,
    began: float,
    command: str,
    console: Console,
) -> None:
    """Plan, measure with a progress bar on stderr, and print the verdict.

    Raises:
        RtsrError: nothing could be measured.
    """
    seconds = DEFAULT_BUDGET_S if budget is None else budget
    check_writable(file)
    check_evidence(file, seconds)
    plan = plan_evidence(file, seconds, axes, began, command)
    columns = (BarColumn(20), TextColumn("{task.completed:.0f} of {task.total:.0f} s"))
    with Progress(
        *columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("", total=seconds)
        results = run_evidence(
            plan, lambda what, spent: bar.update(task, completed=spent, description=what)
        )
    verdict = results["verdict"]
    console.print(verdict["headline"], highlight=False)
    for claim in verdict["claims"]:
        found = claim["found"] or "-"
        console.print(f"{claim['state']}: {claim['what']}: {found} ({claim['wanted']})")
    done = f"{len(results['items'])} of {results['planned']} items"
    console.print(f"{done} are in {file.name}, the report is {plan.page.name}.")
    if not any("figures" in entry for entry in results["items"]):
        raise RtsrError(
            results["items"][0].get("error", "Nothing was measured.")
            if results["items"]
            else "The budget was spent before the first item; give a larger one."
        )

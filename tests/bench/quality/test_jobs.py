"""Jobs: nothing is done twice, nothing stale is believed, and what fails says why."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsr.errors import MissingDependencyError, RtsrError
from rtsr_bench.processes import environment, thread_limits
from rtsr_bench.quality import jobs as runs
from rtsr_bench.quality.systems import BASELINE, INPUT, MODEL, System


@dataclass(frozen=True)
class Note:
    """Leaves a line in a file whenever it is run."""

    name: str
    log: Path
    fails: Exception | None = None

    def key(self) -> str:
        return self.name

    def run(self) -> dict[str, float]:
        if self.fails:
            raise self.fails
        with self.log.open("a") as file:
            file.write(f"{self.name}\n")
        return {"length": float(len(self.name)), "nothing": math.nan}


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines()


def test_results_come_in_order_and_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [Note("aa", log), Note("b", log)]
    seen: list[int] = []
    rows = runs.run_all(jobs, tmp_path / "results", 1, seen.append)
    assert [row["length"] for row in rows] == [2.0, 1.0]
    assert seen == [0, 1, 2]
    again = runs.run_all([*reversed(jobs), Note("ccc", log)], tmp_path / "results", 1)
    assert [row["length"] for row in again] == [1.0, 2.0, 3.0]
    assert all(math.isnan(row["nothing"]) for row in again)
    assert lines(log) == ["aa", "b", "ccc"]


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    log, results = tmp_path / "log", tmp_path / "results"
    runs.run_all([Note("a", log)], results, 1)
    (results / "a.json").write_text('{"length": 1')
    assert runs.run_all([Note("a", log)], results, 1)[0]["length"] == 1.0
    assert len(lines(log)) == 2


def test_a_failure_stops_nothing_else_and_is_tried_again(tmp_path: Path) -> None:
    log, results = tmp_path / "log", tmp_path / "results"
    jobs = [
        Note("a", log),
        Note("bad", log, fails=MissingDependencyError("This test", "eval")),
        Note("odd", log, fails=ZeroDivisionError("nobody thought of it")),
        Note("b", log),
    ]
    rows = runs.run_all(jobs, results, 1)
    assert isinstance(rows[1], runs.Failed)
    assert rows[1].reason.startswith("This test needs a package")
    assert rows[2] == runs.Failed("ZeroDivisionError: nobody thought of it")
    assert lines(log) == ["a", "b"]
    again = runs.run_all([replace(job, fails=None) for job in jobs], results, 1)
    assert not any(isinstance(row, runs.Failed) for row in again)
    assert lines(log) == ["a", "b", "bad", "odd"]
    assert not list(results.glob("*.partial"))


def test_where_everything_fails_the_reason_is_told(tmp_path: Path) -> None:
    failing = Note("bad", tmp_path / "log", fails=MissingDependencyError("This test", "eval"))
    with pytest.raises(RtsrError, match="This test needs a package"):
        runs.run_all([failing], tmp_path / "results", 1)


@pytest.fixture
def job(tmp_path: Path) -> runs.ClipJob:
    for name in ("reference.wav", "source.wav"):
        noise = np.random.default_rng(len(name)).normal(size=24000) * 0.1
        soundfile.write(tmp_path / name, noise, 48000, subtype="PCM_16")
    return runs.ClipJob(
        System("input", INPUT),
        "speech/a",
        tmp_path / "reference.wav",
        tmp_path / "source.wav",
        4000.0,
        ("lsd", "lf_gain_db"),
    )


def test_a_result_belongs_to_all_that_it_depends_on(
    job: runs.ClipJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    louder = tmp_path / "louder.wav"
    soundfile.write(louder, soundfile.read(job.source)[0] * 0.5, 48000, subtype="PCM_16")
    keys = {
        job.key(),
        replace(job, system=System("a", MODEL, "a", "1")).key(),
        replace(job, system=System("a", MODEL, "a", "2")).key(),
        replace(job, source=louder).key(),
        replace(job, reference=louder).key(),
        replace(job, cutoff_hz=8000.0).key(),
        replace(job, metrics=("lsd",)).key(),
        runs.ArtefactJob(job.system, job.reference, job.source, 4000.0).key(),
    }
    assert len(keys) == 8
    assert replace(job, clip="speech/b").key() == job.key()
    monkeypatch.setattr(runs, "source_digest", lambda kind: f"another source of {kind}")
    assert job.key() not in keys


def test_only_models_depend_on_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digests = {kind: runs.source_digest(kind) for kind in (INPUT, MODEL, BASELINE)}
    assert len(set(digests.values())) == 3
    kernels = tmp_path / "rtsr_kernels"
    kernels.mkdir()
    (kernels / "__init__.py").write_text("# another engine")
    monkeypatch.setattr(runs.rtsr_kernels, "__file__", str(kernels / "__init__.py"))
    runs.source_digest.cache_clear()
    changed = [kind for kind in digests if runs.source_digest(kind) != digests[kind]]
    runs.source_digest.cache_clear()
    assert changed == [MODEL]


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("rtsr/spectra/stft.py", [INPUT, MODEL, BASELINE]),
        ("rtsr/audio/reader.py", [INPUT, MODEL, BASELINE]),
        ("rtsr/quality/artefacts/silence.py", [INPUT, MODEL, BASELINE]),
        ("rtsr/train/replicate.py", [BASELINE]),
        ("rtsr_bench/corpus.py", [BASELINE]),
        ("rtsr/cli/eval.py", []),
    ],
)
def test_a_result_depends_on_what_a_sound_passes_through(
    monkeypatch: pytest.MonkeyPatch, file: str, kinds: list[str]
) -> None:
    before = {kind: runs.source_digest(kind) for kind in (INPUT, MODEL, BASELINE)}
    real = Path.read_bytes

    def changed(path: Path) -> bytes:
        return b"# changed" if path.as_posix().endswith(f"/{file}") else real(path)

    monkeypatch.setattr(Path, "read_bytes", changed)
    runs.source_digest.cache_clear()
    after = {kind: runs.source_digest(kind) for kind in before}
    runs.source_digest.cache_clear()
    assert [kind for kind in before if before[kind] != after[kind]] == kinds


def test_the_input_is_judged_as_it_is(job: runs.ClipJob) -> None:
    unharmed = replace(job, source=job.reference).run()
    assert unharmed == {"lsd": 0.0, "lf_gain_db": 0.0}
    assert job.run()["lsd"] > 0.5


def test_a_model_is_run_on_the_input(job: runs.ClipJob, tmp_path: Path) -> None:
    pytest.importorskip("soxr")
    narrow = tmp_path / "narrow.wav"
    soundfile.write(narrow, soundfile.read(job.source)[0][::6], 8000, subtype="PCM_16")
    bare = replace(job, source=narrow)
    scored = replace(bare, system=System("replicate", MODEL, "replicate", "x")).run()
    assert set(scored) == {"lsd", "lf_gain_db"}
    # white noise against nothing at all above 4 kHz
    assert scored["lsd"] < bare.run()["lsd"] - 1.0


@pytest.mark.slow
def test_processes_give_what_one_process_gives(job: runs.ClipJob, tmp_path: Path) -> None:
    jobs = [job, replace(job, cutoff_hz=8000.0), replace(job, source=job.reference)]
    apart = runs.run_all(jobs, tmp_path / "apart", 2)
    together = runs.run_all(jobs, tmp_path / "together", 1)
    # The processes compute with one thread, and sums in another order end in another last digit.
    assert apart == [pytest.approx(result, rel=1e-9) for result in together]
    failed = runs.run_all([*jobs, replace(job, metrics=("loudness",))], tmp_path / "apart", 2)[-1]
    assert isinstance(failed, runs.Failed)
    assert "no metric named 'loudness'" in failed.reason


def test_processes_are_started_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    with environment(thread_limits(1)):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["NUMBA_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "NUMBA_NUM_THREADS" not in os.environ


INTERRUPTED = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from rtsr_bench.quality.jobs import run_all

@dataclass(frozen=True)
class Sleep:
    name: str
    def key(self):
        return self.name
    def run(self):
        Path(self.name).touch()
        time.sleep(2.0)
        return {}

if __name__ == "__main__":
    try:
        run_all([Sleep(name) for name in "abcd"], Path("results"), 2)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
def test_an_interrupted_run_ends_without_a_word_of_its_processes(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, "interrupted.py"],
        cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        ends = time.monotonic() + 60.0
        while time.monotonic() < ends and not (tmp_path / "a").exists():
            time.sleep(0.05)
        # As a terminal does it: to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30.0)
    finally:
        process.kill()
    assert (process.returncode, said) == (130, "")
    assert not (tmp_path / "d").exists()

"""Run systems over clips, in parallel, and remember every result: a report may be interrupted.

A result is kept under a digest of everything it depends on: the weights, the input and reference
files, the metrics asked for, and the source of the metrics and of what was run.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import math
import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import rtsr
import rtsr_kernels
from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.ending import held_back
from rtsr.errors import RtsrError
from rtsr.quality.compare import compare_files
from rtsr.train.replicate import frame_matrix
from rtsr_bench.corpus import read_first_channel
from rtsr_bench.files import write_text
from rtsr_bench.processes import environment, thread_limits
from rtsr_bench.quality.artefacts import find_in_clip
from rtsr_bench.quality.baseline import RidgeBaseline
from rtsr_bench.quality.systems import BASELINE, MODEL, System, digest_of

Values = dict[str, float]

#: rooms of rtsr that an output and its reference pass through when they are compared
_OF_METRICS = ("audio", "quality", "spectra")
#: rooms of rtsr that no sample of a file passes through
_NOT_IN_A_FILES_WAY = frozenset({"call", "cli", "live", "model", "train"})


@dataclass(frozen=True)
class Failed:
    """In place of values: a sentence of what stopped a job."""

    reason: str


@dataclass(frozen=True)
class ArtefactJob:
    """Look for artefacts in what a system makes of one input."""

    system: System
    reference: Path
    source: Path
    cutoff_hz: float

    def key(self) -> str:
        """Return a digest of everything that the result depends on."""
        files = (digest_of(self.reference), digest_of(self.source))
        return _key(self.system.kind, "artefacts", self.system.digest, *files, self.cutoff_hz)

    def run(self) -> Values:
        """Return the artefacts of one clip, by name."""

        def enhance(file: Path, folder: Path) -> Path:
            return self.system.enhance(file, folder, self.cutoff_hz)

        with tempfile.TemporaryDirectory() as folder:
            return find_in_clip(enhance, self.reference, self.source, self.cutoff_hz, Path(folder))


@dataclass(frozen=True)
class ClipJob:
    """Enhance one input and score what comes out."""

    system: System
    clip: str
    reference: Path
    source: Path
    cutoff_hz: float
    metrics: tuple[str, ...]

    def key(self) -> str:
        """Return a digest of everything that the result depends on."""
        files = (digest_of(self.reference), digest_of(self.source))
        return _key(self.system.kind, "clip", self.system.digest, *files, self.cutoff_hz,
                    self.metrics)  # fmt: skip

    def run(self) -> Values:
        """Return the metrics of one clip, by name."""
        with tempfile.TemporaryDirectory() as folder:
            output = self.system.enhance(self.source, Path(folder), self.cutoff_hz)
            return compare_files(self.reference, output, self.cutoff_hz, self.metrics).metrics


#: one piece of work whose result is a row of numbers
Job = ClipJob | ArtefactJob


def run_all(
    jobs: Sequence[Job],
    results: Path,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> list[Values | Failed]:
    """Return the results of all jobs, in their order; one that fails does not stop the others.

    Args:
        jobs: what to do.
        results: folder of the results so far; each new one is added as soon as it is there. What
            failed is not kept: the next call tries it again.
        workers: processes, each with one thread; 1 works in this process.
        progress: called with the number of jobs that are over, whenever it grows.

    Raises:
        RtsrError: a process died, or jobs failed and none has a result.
    """
    results.mkdir(parents=True, exist_ok=True)
    files = [results / f"{job.key()}.json" for job in jobs]
    found = {place: _load(file) for place, file in enumerate(files) if file.is_file()}
    rows: dict[int, Values | Failed] = {p: row for p, row in found.items() if row is not None}
    waiting = [place for place in range(len(jobs)) if place not in rows]
    if progress:
        progress(len(rows))
    done = (
        ((place, _run(jobs[place])) for place in waiting)
        if workers == 1
        else _run_in_processes(jobs, waiting, workers)
    )
    for place, answer in done:
        if not isinstance(answer, Failed):
            _store(files[place], answer)
        rows[place] = answer
        if progress:
            progress(len(rows))
    failed = [row for row in rows.values() if isinstance(row, Failed)]
    if failed and len(failed) == len(jobs):
        raise RtsrError(failed[0].reason)
    return [rows[place] for place in range(len(jobs))]


def _run_in_processes(
    jobs: Sequence[Job], waiting: Sequence[int], workers: int
) -> Iterator[tuple[int, Values | Failed]]:
    if not waiting:
        return
    # Spawned, because a fork of a process that has run ONNX Runtime's threads may hang.
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        # A process that is ended leaves its files behind: they lie where they go with this.
        environment({**thread_limits(1), "TMPDIR": folder}),
        ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        try:
            # A terminal sends Ctrl-C to all processes, and each of these would print where it was.
            with held_back([signal.SIGINT]):
                futures = {pool.submit(_run, jobs[place]): place for place in waiting}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise RtsrError(
                "A process of the report died, probably out of memory; run the command again with "
                "--jobs 1: it goes on where it stopped."
            ) from None
        except BaseException:
            # Ctrl-C must not wait for the jobs that run, nor for those that are queued.
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run(job: Job) -> Values | Failed:
    """Return a job's result, or what stopped it: not every error can be sent home."""
    # ViSQOL says for every clip which of its patches it left out.
    logging.getLogger("visqol").setLevel(logging.ERROR)
    try:
        return job.run()
    except RtsrError as error:
        return Failed(str(error))
    # Whatever a clip brings to light, hours of other clips are not to be lost for it.
    except Exception as error:
        return Failed(f"{type(error).__name__}: {error}")


def _load(file: Path) -> Values | None:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {name: math.nan if value is None else value for name, value in stored.items()}
    except (OSError, ValueError, AttributeError):
        return None


def _store(file: Path, values: Values) -> None:
    plain = {name: None if math.isnan(value) else value for name, value in values.items()}
    write_text(file, json.dumps(plain))


def _key(kind: str, *parts: object) -> str:
    text = json.dumps([source_digest(kind), kind, *parts])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.lru_cache(maxsize=8)
def source_digest(kind: str) -> str:
    """Digest of the source that results of a kind of system depend on.

    All depend on that of the metrics and of what reads files for them; those of models also on the
    engine's, and those of baselines on the baseline's.
    """
    package, kernels = Path(rtsr.__file__).parent, Path(rtsr_kernels.__file__).parent
    files = {_source_of(measure_cutoff)}
    for room in _OF_METRICS:
        files |= {*(package / room).rglob("*.py")}
    if kind == MODEL:
        files |= {*kernels.glob("*.py"), _source_of(find_in_clip)}
        files |= {
            file
            for file in package.rglob("*.py")
            if file.relative_to(package).parts[0] not in _NOT_IN_A_FILES_WAY
        }
    if kind == BASELINE:
        files |= {_source_of(one) for one in (RidgeBaseline, frame_matrix, read_first_channel)}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _source_of(thing: object) -> Path:
    return Path(inspect.getfile(thing))  # type: ignore[arg-type]

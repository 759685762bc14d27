"""Everything that a quality report has measured, as one queue of jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtsr_bench.corpus import prepare_references
from rtsr_bench.quality import conditions
from rtsr_bench.quality.corpora import Corpus, Show
from rtsr_bench.quality.jobs import ClipJob, Failed, Job, ProbeJob, Values, run_all
from rtsr_bench.quality.results import CONDITION_METRICS, ClipRow, ProbeRow, known
from rtsr_bench.quality.systems import MODEL, System, at_full_precision

#: Reference and input of every clip, by condition and clip.
Degraded = Mapping[str, Mapping[str, tuple[Path, Path]]]


@dataclass(frozen=True)
class Scored:
    """What was measured.

    Attributes:
        clips: rows by cutoff, for each corpus by its name.
        probes: rows by cutoff.
        conditions: rows by condition.
        failed: a sentence for each job that has no result.
    """

    clips: dict[str, list[ClipRow]]
    probes: list[ProbeRow]
    conditions: list[ClipRow]
    failed: list[str]


_CLIPS, _PROBES, _CONDITIONS = "clips", "probes", "conditions"


@dataclass(frozen=True)
class _Entry:
    """A job and where its result belongs; ``place`` is a cutoff in Hz or a condition."""

    part: str
    job: Job
    corpus: str
    system: str
    place: str
    clip: str = ""

    def failure(self, reason: str) -> str:
        what = f"`{self.clip}` of {self.corpus}" if self.clip else "the probes"
        return f"`{self.system}` at {self.place}, {what}: {reason}"


def score_everything(
    systems: Sequence[System],
    corpora: Sequence[Corpus],
    metrics: tuple[str, ...],
    results: Path,
    processes: int,
    show: Show,
    *,
    degraded: Degraded | None = None,
    is_probed: bool = True,
) -> Scored:
    """Run all systems over all inputs.

    Args:
        systems: what to score.
        corpora: what to score them on.
        metrics: of the inputs by cutoff.
        results: folder of the results so far.
        processes: to work in.
        show: told of the progress.
        degraded: from :func:`degrade`; its clips belong to the first corpus.
        is_probed: also probe the models, on inputs of the first corpus.

    Raises:
        RtsrError: nothing could be scored, or a process died.
    """
    queue = [
        *_of_clips(systems, corpora, metrics),
        *(_of_probes(systems, corpora[0]) if is_probed else ()),
        *_of_conditions(systems, corpora[0].name, degraded or {}, metrics),
    ]
    answers = run_all(
        [entry.job for entry in queue],
        results,
        processes,
        lambda done: show("scoring", done, len(queue)),
    )
    found: list[tuple[_Entry, Values]] = []
    failed = []
    for entry, answer in zip(queue, answers, strict=True):
        if isinstance(answer, Failed):
            failed.append(entry.failure(answer.reason))
        else:
            found.append((entry, answer))

    def rows(part: str, corpus: str) -> list[ClipRow]:
        return [
            (entry.system, entry.place, entry.clip, values)
            for entry, values in found
            if (entry.part, entry.corpus) == (part, corpus)
        ]

    return Scored(
        clips={corpus.name: rows(_CLIPS, corpus.name) for corpus in corpora},
        probes=[(entry.system, entry.place, v) for entry, v in found if entry.part == _PROBES],
        conditions=rows(_CONDITIONS, corpora[0].name),
        failed=failed,
    )


def _of_clips(
    systems: Sequence[System], corpora: Sequence[Corpus], metrics: tuple[str, ...]
) -> Iterator[_Entry]:
    for corpus in corpora:
        for hz, files in corpus.inputs.items():
            for system in systems:
                for clip, source in files.items():
                    job = ClipJob(system, clip, corpus.references[clip], source, hz, metrics)
                    yield _Entry(_CLIPS, job, corpus.name, system.name, f"{hz:g}", clip)


def _of_probes(systems: Sequence[System], corpus: Corpus) -> Iterator[_Entry]:
    for hz, files in corpus.inputs.items():
        for system in systems:
            if system.kind == MODEL:
                job = ProbeJob(system, _one_of_each_domain(files))
                yield _Entry(_PROBES, job, corpus.name, system.name, f"{hz:g}")


def _of_conditions(
    systems: Sequence[System], corpus: str, degraded: Degraded, metrics: tuple[str, ...]
) -> Iterator[_Entry]:
    hz, few = conditions.CUTOFF_HZ, known(CONDITION_METRICS, metrics)
    for system in at_full_precision(systems):
        for key, pairs in degraded.items():
            for clip, (reference, source) in pairs.items():
                job = ClipJob(system, clip, reference, source, hz, few)
                yield _Entry(_CONDITIONS, job, corpus, system.name, key, clip)


def _one_of_each_domain(files: Mapping[str, Path]) -> tuple[Path, ...]:
    return tuple({name.split("/")[0]: files[name] for name in reversed(list(files))}.values())


def degrade(corpus: Corpus, seconds: float, show: Show) -> dict[str, dict[str, tuple[Path, Path]]]:
    """Make the inputs of all conditions of a corpus's clips, of their loudest ``seconds``."""
    references = prepare_references(
        corpus.clips, corpus.folder / f"references-{seconds:g}s", seconds
    )
    degraded = {}
    for done, condition in enumerate(conditions.CONDITIONS):
        show("coding", done, len(conditions.CONDITIONS))
        target = corpus.folder / f"conditions-{seconds:g}s" / condition.key
        files = conditions.prepare_condition(condition, references, target)
        degraded[condition.key] = {name: (references[name], files[name]) for name in files}
    return degraded

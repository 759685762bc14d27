"""Everything that a quality report has measured, as one queue of jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtsr_bench.corpus import prepare_references
from rtsr_bench.progress import Show
from rtsr_bench.quality import conditions
from rtsr_bench.quality.corpora import Corpus
from rtsr_bench.quality.jobs import ArtefactJob, ClipJob, Failed, Job, run_all
from rtsr_bench.quality.results import CONDITION_METRICS, known, nest
from rtsr_bench.quality.systems import MODEL, System, at_full_precision

#: Reference and input of every clip, by condition and clip.
Degraded = Mapping[str, Mapping[str, tuple[Path, Path]]]

CLIPS, CONDITIONS, ARTEFACTS = "clips", "conditions", "artefacts"


@dataclass(frozen=True)
class _Entry:
    """A job, where its result belongs, and what it is called where it has none."""

    job: Job
    place: tuple[str, ...]
    name: str


def score_everything(
    systems: Sequence[System],
    corpora: Sequence[Corpus],
    metrics: tuple[str, ...],
    results: Path,
    processes: int,
    show: Show,
    *,
    degraded: Degraded | None = None,
    with_artefacts: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Run all systems over all inputs.

    Args:
        systems: what to score.
        corpora: what to score them on.
        metrics: of the inputs by cutoff.
        results: folder of the results so far.
        processes: to work in.
        show: told of the progress.
        degraded: from :func:`degrade`; its clips belong to the first corpus.
        with_artefacts: also look for artefacts of the models.

    Returns:
        what was measured: ``CLIPS`` and ``ARTEFACTS`` by corpus, cutoff in Hz, system and clip,
        ``CONDITIONS`` by system, condition and clip; and a sentence for each job that has no
        result.

    Raises:
        RtsrError: nothing could be scored, or a process died.
    """
    queue = [
        *_of_clips(systems, corpora, metrics),
        *(_of_artefacts(systems, corpora) if with_artefacts else ()),
        *_of_conditions(systems, corpora[0].name, degraded or {}, metrics),
    ]
    answers = run_all(
        [entry.job for entry in queue],
        results,
        processes,
        lambda done: show("scoring", done, len(queue)),
    )
    pairs = list(zip(queue, answers, strict=True))
    found = nest((entry.place, one) for entry, one in pairs if not isinstance(one, Failed))
    return found, [f"{entry.name}: {one.reason}" for entry, one in pairs if isinstance(one, Failed)]


def _of_clips(
    systems: Sequence[System], corpora: Sequence[Corpus], metrics: tuple[str, ...]
) -> Iterator[_Entry]:
    for corpus in corpora:
        for hz, files in corpus.inputs.items():
            for system in systems:
                for clip, source in files.items():
                    job = ClipJob(system, clip, corpus.references[clip], source, hz, metrics)
                    name = f"`{system.name}` at {hz:g}, `{clip}` of {corpus.name}"
                    yield _Entry(job, (CLIPS, corpus.name, f"{hz:g}", system.name, clip), name)


def _of_artefacts(systems: Sequence[System], corpora: Sequence[Corpus]) -> Iterator[_Entry]:
    for corpus in corpora:
        for hz, files in corpus.inputs.items():
            for system in systems:
                if system.kind != MODEL:
                    continue
                for clip, source in files.items():
                    job = ArtefactJob(system, corpus.references[clip], source, hz)
                    name = f"artefacts of `{system.name}` at {hz:g}, `{clip}` of {corpus.name}"
                    yield _Entry(job, (ARTEFACTS, corpus.name, f"{hz:g}", system.name, clip), name)


def _of_conditions(
    systems: Sequence[System], corpus: str, degraded: Degraded, metrics: tuple[str, ...]
) -> Iterator[_Entry]:
    hz, few = conditions.CUTOFF_HZ, known(CONDITION_METRICS, metrics)
    for system in at_full_precision(systems):
        for key, pairs in degraded.items():
            for clip, (reference, source) in pairs.items():
                job = ClipJob(system, clip, reference, source, hz, few)
                name = f"`{system.name}` at {key}, `{clip}` of {corpus}"
                yield _Entry(job, (CONDITIONS, system.name, key, clip), name)


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

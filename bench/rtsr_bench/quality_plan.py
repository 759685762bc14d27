"""Everything that a quality report has measured, as one queue of jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rtsr_bench import quality_conditions
from rtsr_bench.quality_results import CONDITION_METRICS, ClipRow, ProbeRow, known
from rtsr_bench.quality_runs import ClipJob, Job, ProbeJob, run_all
from rtsr_bench.quality_systems import MODEL, System, at_full_precision
from rtsr_bench.validation import Clip, prepare_references

#: Tells the progress bar what is being done, how much of it is done, and how much there is.
Show = Callable[[str, int, int], None]


def judge_everything(
    systems: Sequence[System],
    references: Mapping[str, Path],
    inputs: Mapping[float, Mapping[str, Path]],
    delivered: Mapping[str, Mapping[str, tuple[Path, Path]]],
    metrics: tuple[str, ...],
    results: Path,
    processes: int,
    show: Show,
) -> tuple[list[ClipRow], list[ProbeRow], list[ClipRow]]:
    """Run all systems over all inputs, and probe the models.

    Args:
        systems: what to judge.
        references: full-band file of each clip.
        inputs: input files of each clip by cutoff in Hz.
        delivered: from :func:`deliver`.
        metrics: of the inputs by cutoff.
        results: folder of the results so far.
        processes: to work in.
        show: told of the progress.

    Returns:
        rows of clips by cutoff, of probes by cutoff, and of clips by condition.
    """
    table = [
        (system.name, f"{hz:g}", ClipJob(system, name, references[name], source, hz, metrics))
        for hz, files in inputs.items()
        for system in systems
        for name, source in files.items()
    ]
    probes = [
        (system.name, f"{hz:g}", ProbeJob(system, _one_of_each_domain(files)))
        for hz, files in inputs.items()
        for system in systems
        if system.kind == MODEL
    ]
    hz, few = quality_conditions.CUTOFF_HZ, known(CONDITION_METRICS, metrics)
    others = [
        (system.name, key, ClipJob(system, name, reference, source, hz, few))
        for system in at_full_precision(systems)
        for key, pairs in delivered.items()
        for name, (reference, source) in pairs.items()
    ]
    queue: list[Job] = [*(row[2] for row in table), *(row[2] for row in probes)]
    queue += [row[2] for row in others]
    values = iter(run_all(queue, results, processes, lambda n: show("judging", n, len(queue))))
    return (
        [(system, place, job.clip, next(values)) for system, place, job in table],
        [(system, place, next(values)) for system, place, _ in probes],
        [(system, key, job.clip, next(values)) for system, key, job in others],
    )


def _one_of_each_domain(files: Mapping[str, Path]) -> tuple[Path, ...]:
    return tuple({name.split("/")[0]: files[name] for name in reversed(list(files))}.values())


def deliver(
    clips: Sequence[Clip], folder: Path, seconds: float, show: Show
) -> dict[str, dict[str, tuple[Path, Path]]]:
    """Make the inputs of all conditions.

    Returns:
        reference and input of every clip, by condition and clip.
    """
    references = prepare_references(clips, folder / f"references-{seconds:g}s", seconds)
    delivered = {}
    for done, condition in enumerate(quality_conditions.CONDITIONS):
        show("coding", done, len(quality_conditions.CONDITIONS))
        target = folder / f"conditions-{seconds:g}s" / condition.key
        files = quality_conditions.prepare_condition(condition, references, target)
        delivered[condition.key] = {name: (references[name], files[name]) for name in files}
    return delivered

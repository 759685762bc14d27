"""The quality report: prepare, run and score everything, then write tables and pictures.

Results are kept in the work folder as they come, so that a report which was interrupted goes on
where it stopped, and a later one with one more model computes only what is new. Of several corpora
all get tables; speed, streaming, conditions and spectrograms are of the first.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rtsr.errors import ArgumentError, RtsrError, warn
from rtsr.quality.evaluation import check_cutoff, check_metrics
from rtsr_bench.corpus import MAX_SECONDS, count_by_domain
from rtsr_bench.files import write_json, write_text
from rtsr_bench.machine import describe_machine, describe_software
from rtsr_bench.progress import Show, shown_progress
from rtsr_bench.quality import conditions, pictures, report
from rtsr_bench.quality.baseline import BASELINES, baseline_path
from rtsr_bench.quality.corpora import Corpus, check_names, prepare_corpus
from rtsr_bench.quality.plan import ARTEFACTS, CLIPS, CONDITIONS, degrade, score_everything
from rtsr_bench.quality.results import conditions_part, cutoffs_part, plain
from rtsr_bench.quality.systems import (
    MODEL,
    System,
    SystemFacts,
    choose_systems,
    describe_system,
    stream_part,
)
from rtsr_kernels.resample import SUPPORTED_RATES

FORMAT = 4
CUTOFFS = (4000.0, 8000.0, 12000.0)
CONDITION_SECONDS = 3.0


@dataclass(frozen=True)
class Request:
    """What is asked for: the options of ``rtsr bench quality``, and how they were written."""

    data: Sequence[Path]
    out: Path
    cutoffs: Sequence[float] = CUTOFFS
    models: Sequence[str] | None = None
    baselines: Path | None = None
    metrics: str | None = None
    domains: Sequence[str] = ()
    limit: int | None = None
    seconds: float = MAX_SECONDS
    conditions: bool = False
    artefacts: bool = False
    tables_only: bool = False
    jobs: int = 1
    work: Path = Path("validation")
    command: str = ""


def make_report(asked: Request) -> tuple[dict[str, Any], str]:
    """Score everything and write the report; returns it as an object and as Markdown.

    Raises:
        ArgumentError: options that cannot be, or contradict each other.
        RtsrError: a corpus, model or baseline that is not there, or nothing that can be scored.
    """
    cutoffs = _check_cutoffs(asked.cutoffs)
    given = asked.metrics
    names = check_metrics(None if given is None else [m.strip() for m in given.split(",")])
    check_names(asked.data)
    needed = [*cutoffs, conditions.CUTOFF_HZ] if asked.conditions else cutoffs
    needed = list(dict.fromkeys(needed))
    systems = choose_systems(asked.models, asked.baselines or _usual_baselines(needed), needed)
    if not asked.tables_only:
        pictures.check_drawing()
    _make_folder(asked.out)
    with shown_progress() as show:
        corpora = [
            prepare_corpus(
                source, cutoffs, asked.work, asked.seconds, asked.domains, asked.limit, show
            )
            for source in asked.data
        ]
        first, lowest = corpora[0], min(cutoffs)
        content = _score(asked, systems, corpora, names, show)
        # From here on the report's files are replaced one by one; it is whole when this is back.
        (asked.out / "quality.md").unlink(missing_ok=True)
        if not asked.tables_only:
            content["pictures"] = pictures.save_spectrograms_of_clips(
                asked.out, systems, first.references, first.inputs[lowest], lowest, show
            )
    page = report.markdown(content)
    write_json(asked.out / "quality.json", content)
    write_text(asked.out / "quality.md", page)
    return content, page


def _score(
    asked: Request,
    systems: Sequence[System],
    corpora: Sequence[Corpus],
    names: tuple[str, ...],
    show: Show,
) -> dict[str, Any]:
    """Measure everything, and return it as the report's object without pictures."""
    facts = _describe(systems, corpora[0], show, is_timed=not asked.tables_only)
    part = min(asked.seconds, CONDITION_SECONDS)
    found, failed = score_everything(
        systems,
        corpora,
        names,
        asked.work / "quality-results",
        asked.jobs,
        show,
        degraded=degrade(corpora[0], part, show) if asked.conditions else None,
        with_artefacts=asked.artefacts,
    )
    content: dict[str, Any] = plain(
        {
            "format": FORMAT,
            "date": datetime.date.today().isoformat(),
            "command": asked.command,
            "machine": describe_machine(),
            "software": describe_software(),
            "seconds": asked.seconds,
            "metrics": names,
            "systems": {name: asdict(one) for name, one in facts.items()},
            "corpora": [
                {
                    "name": corpus.name,
                    "clips": count_by_domain(corpus.clips),
                    "left_out": corpus.left_out,
                    "cutoffs": cutoffs_part(found.get(CLIPS, {}).get(corpus.name, {})),
                }
                for corpus in corpora
            ],
            "failed": failed,
            "artefacts": found.get(ARTEFACTS, {}),
            "conditions": conditions_part(found.get(CONDITIONS, {}), names, part),
            "pictures": [],
        }
    )
    return content


def _usual_baselines(cutoffs: Sequence[float]) -> Path | None:
    """Return the usual folder if it has all that is needed; else say how to come by it."""
    missing = [hz for hz in cutoffs if not baseline_path(BASELINES, hz).is_file()]
    if not missing:
        return BASELINES
    options = " ".join(f"--cutoff {hz:g}" for hz in missing)
    warn(f"The baseline is left out; a minute with 'rtsr bench baseline CORPUS {options}' adds it.")
    return None


def _check_cutoffs(cutoffs: Sequence[float]) -> list[float]:
    for hz in cutoffs:
        if round(2.0 * check_cutoff(hz)) not in SUPPORTED_RATES:
            accepted = ", ".join(f"{rate / 2:g}" for rate in SUPPORTED_RATES[:-1])
            raise ArgumentError(
                f"Inputs are files at twice the cutoff, and rtsr takes none of {2.0 * hz:g} Hz; "
                f"--cutoff is one of {accepted}."
            )
    return list(dict.fromkeys(cutoffs))


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RtsrError(
            f"The folder {out} for the report cannot be made ({error.strerror}); "
            "give one that can be written to."
        ) from None


def _describe(
    systems: Sequence[System], corpus: Corpus, show: Show, *, is_timed: bool
) -> dict[str, SystemFacts]:
    """Describe every system; speed is measured before the machine gets busy with scoring."""
    facts = {}
    for done, system in enumerate(systems):
        show("timing" if is_timed else "describing", done, len(systems))
        described = describe_system(system, list(corpus.inputs))
        if is_timed and system.kind == MODEL:
            found = {
                round(2.0 * hz): stream_part(system.source, next(iter(files.values())))
                for hz, files in corpus.inputs.items()
            }
            described = replace(
                described,
                real_time={rate: speed for rate, (speed, _) in found.items()},
                streaming={rate: difference for rate, (_, difference) in found.items()},
            )
        facts[system.name] = described
    return facts

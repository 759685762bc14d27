"""``python -m rtsr_bench.replicate_fit``: fit the ``replicate`` rung and write its file."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from rtsr.runtime import replicate_file
from rtsr.train.data import DEMO_SOURCES
from rtsr_bench.program import run_program
from rtsr_bench.replicate_fit import fit, load_passages
from rtsr_bench.validation import Clip, count_by_domain, list_clips

#: Of the first copy's power. By the metrics any share is as good; harmonics are continued by a copy
#: and breath by noise, and voices hold more of the former.
REPLICA_SHARE = 0.7
PENALTY = 1e-3


def _is_demo(clip: Clip, data: Path) -> bool:
    """Whether the demo clips are from it: the demo shows nothing that was learned by heart."""
    path = clip.path.relative_to(data).as_posix()
    return any(fnmatchcase(path, pattern) for pattern in DEMO_SOURCES)


def fit_command(
    data: Annotated[Path, typer.Argument(help="The corpus: the folder of manifest.csv.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("replicate.npz"),
    seconds_per_file: Annotated[
        float, typer.Option(min=1.0, help="Loudest seconds used of a file.")
    ] = 6.0,
    every: Annotated[int, typer.Option(min=1, help="Use every n-th file only.")] = 1,
) -> None:
    """Fit the regression on the corpus's train split (two minutes on one core)."""
    clips = [clip for clip in list_clips(data, "train") if not _is_demo(clip, data)][::every]
    start = time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        loading = bar.add_task("loading", total=len(clips))
        solving = bar.add_task("solving", total=None)
        passages = load_passages(
            clips, seconds_per_file, lambda done, _: bar.update(loading, completed=done)
        )
        regression = fit(
            passages, PENALTY, lambda done, total: bar.update(solving, completed=done, total=total)
        )
    files = count_by_domain(clips)
    card = {
        "method": "spectral band replication with noise; a ridge regression of log band energies "
        "predicts the envelope; no network",
        "training_files": files,
        "training_minutes": round(sum(len(p.heard) for p in passages) / 6000.0, 1),
        "seconds_per_file": seconds_per_file,
        "penalty": PENALTY,
    }
    replicate_file.write(out, replicate_file.ReplicateWeights(regression, REPLICA_SHARE), card)
    facts = replicate_file.read_facts(out)
    typer.echo(
        f"{facts.parameters} numbers from {len(passages)} files "
        f"in {time.perf_counter() - start:.0f} s -> {out}"
    )


def main() -> None:
    """Run the command."""
    run_program(lambda: typer.run(fit_command))

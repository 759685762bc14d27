"""``python -m rtsr.train.fit_replicate CORPUS``: fit the band replication and write its file."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from rtsr.runtime import replicate_file
from rtsr.terminal import plain_console
from rtsr.train.data import DEMO_SOURCES
from rtsr.train.listing import list_recordings
from rtsr.train.replicate import fit, load_passages
from rtsr.train.standalone import run
from rtsr.whole_file import check_writable

#: Of the first copy's power. By the metrics any share is as good; harmonics are continued by a copy
#: and breath by noise, and voices hold more of the former.
REPLICA_SHARE = 0.7
PENALTY = 1e-3


def fit_command(
    data: Annotated[Path, typer.Argument(help="The corpus: the folder of manifest.csv.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("replicate.npz"),
    seconds_per_file: Annotated[
        float, typer.Option(min=1.0, help="Loudest seconds used of a file.")
    ] = 6.0,
    every: Annotated[int, typer.Option(min=1, help="Use every n-th file only.")] = 1,
) -> None:
    """Fit the regression on the corpus's train split (two minutes on one core)."""
    check_writable(out)
    recordings = list_recordings(data, "train", exclude=DEMO_SOURCES)[::every]
    start = time.perf_counter()
    with Progress(console=plain_console(stderr=True), transient=True) as bar:
        loading = bar.add_task("loading", total=len(recordings))
        solving = bar.add_task("solving", total=None)
        loaded = load_passages(
            data, recordings, seconds_per_file, lambda done, _: bar.update(loading, completed=done)
        )
        passages = loaded.passages
        regression = fit(
            passages, PENALTY, lambda done, total: bar.update(solving, completed=done, total=total)
        )
    for path, why in loaded.left_out.items():
        typer.echo(f"left out {path}: {why}", err=True)
    files = dict(Counter(one.domain for one in loaded.recordings))
    card = {
        "method": "spectral band replication with noise; a ridge regression of log band energies "
        "predicts the envelope; no network",
        "training_files": files,
        "training_minutes": round(sum(len(p.densities) for p in passages) / 6000.0, 1),
        "seconds_per_file": seconds_per_file,
        "penalty": PENALTY,
    }
    replicate_file.write(out, replicate_file.ReplicateWeights(regression, REPLICA_SHARE), card)
    facts = replicate_file.read_facts(out)
    typer.echo(
        f"{facts.parameters} numbers from {len(passages)} files "
        f"in {time.perf_counter() - start:.0f} s -> {out}"
    )


if __name__ == "__main__":
    run(fit_command)

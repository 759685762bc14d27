"""``python -m rtsr.train.fit_band_regression CHECKPOINT CORPUS``: add a band regression."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import Progress

from rtsr.errors import ArgumentError
from rtsr.model.band_regression import BandRegression
from rtsr.model.config import ModelConfig
from rtsr.terminal import plain_console
from rtsr.train.band_domain import BandDomain
from rtsr.train.band_regression import AS_RECORDED, BATCH, FRAMES, collect
from rtsr.train.checkpoint import load_checkpoint, load_generator, save_checkpoint, slim
from rtsr.train.data import load_corpus
from rtsr.train.levels import LevelLoss
from rtsr.train.standalone import run
from rtsr.whole_file import check_writable

#: shares in which the domains are drawn
SHARES = {"music": 0.5, "effects": 0.5}


def fit_command(
    checkpoint: Annotated[Path, typer.Argument(help="Of a trained model: last.pt or slim.pt.")],
    data: Annotated[Path, typer.Argument(help="The corpus: the folder of manifest.csv.")],
    out: Annotated[Path, typer.Option("--out", help="The checkpoint to write.")] = Path(
        "fitted.pt"
    ),
    rank: Annotated[int, typer.Option(min=1, help="Of the regression.")] = 12,
    batches: Annotated[int, typer.Option(min=1, help="Of 64 s each.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 1,
    share: Annotated[
        float | None, typer.Option(help="Weight of the regression beside the model's own levels.")
    ] = None,
    trust: Annotated[
        float | None,
        typer.Option(help="Share of the way that gains of other sound move to the mean of both."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="An .npz file to keep the decoded sound in.")
    ] = None,
) -> None:
    """Fit the band regression for sound other than speech, and put it beside what is trained."""
    check_writable(out)
    content = slim(load_checkpoint(checkpoint))
    given = {
        "predictor_rank": rank,
        "predictor_regression_share": share,
        "predictor_other_trust": trust,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    # Refuses what is no model of this version before anything takes long.
    load_generator(checkpoint)
    try:
        config = ModelConfig.from_dict({**content["model_config"], **changes})
    except ValueError as error:
        raise ArgumentError(f"{checkpoint} cannot have a band regression: {error}.") from error
    start = time.perf_counter()
    domain = BandDomain(
        LevelLoss(config.gain_bands), config.gain_bands, AS_RECORDED, torch.device("cpu")
    )
    console = plain_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        reading = bar.add_task("reading", total=None)
        drawing = bar.add_task("batches", total=batches)
        corpus = load_corpus(
            data,
            "train",
            cache=cache,
            progress=lambda done, total: bar.update(reading, completed=done, total=total),
        )
        found = collect(
            BandRegression(config),
            domain,
            corpus,
            batches,
            seed,
            SHARES,
            lambda done, _: bar.update(drawing, completed=done),
        )
    maps, basis = found.solve()
    weights = content["ema"]["values"]
    weights["band_predictor.regression.maps"] = maps
    weights["band_predictor.regression.basis"] = basis
    content["model_config"] = config.to_dict()
    content["facts"]["band_regression"] = {
        "rank": rank,
        "batches": batches,
        "minutes": round(batches * BATCH * FRAMES / 6000.0, 1),
        "seed": seed,
        "corpus": corpus.describe(),
    }
    save_checkpoint(out, content)
    typer.echo(
        f"{maps.numel() + basis.numel()} numbers from {found.frames / 6000.0:.0f} minutes "
        f"in {time.perf_counter() - start:.0f} s -> {out}"
    )


if __name__ == "__main__":
    run(fit_command)

"""``rtsr train``: four stages from a folder of recordings to a checkpoint."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsr.ending import handled
from rtsr.errors import ArgumentError, MissingDependencyError, RtsrError

if TYPE_CHECKING:
    from rtsr.train.corpus import Corpus
    from rtsr.train.trainer import Trainer

MOST_WORKERS = 256


def train_command(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder with manifest.csv, or any folder of wav, flac, ogg, opus, mp3 or aiff."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the run: checkpoint and log; resumed if there.")
    ] = Path("runs/small"),
    minutes: Annotated[
        float,
        typer.Option(
            "--minutes",
            help="Age at which the run ends, resumptions counted in, also one of counted steps.",
        ),
    ] = 240.0,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with training settings.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model configuration: small or base.")
    ] = None,
    octave_khz: Annotated[
        int | None,
        typer.Option(
            "--stage",
            metavar="96|192",
            help="Train an octave beyond 48 kHz, up to this rate: recordings of higher rates are "
            "played slower.",
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of weights and data.")] = None,
    grow_from: Annotated[
        Path | None,
        typer.Option(
            "--grow-from",
            help="Begin with the weights of this checkpoint, of the same or a narrower model.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Threads that decode and code; as many as there are CPUs."),
    ] = None,
    slim: Annotated[
        bool,
        typer.Option(
            "--slim", help="Also write slim.pt: averaged weights and facts, enough to export."
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", help="Store the decoded audio beside this name, one .npz file per split."
        ),
    ] = None,
) -> None:
    """Train a model, or continue a run that was stopped.

    The four stages (autoencoder, flow, levels, one-step refinement) share the minutes as the
    settings say; a grown model begins with the third. Ctrl-C and SIGTERM save a checkpoint
    after the present step (the second time they end at once); the same command continues from it.
    Then: rtsr export RUN/last.pt MODEL.onnx
    """
    if not 0.0 < minutes < math.inf:
        raise ArgumentError(f"--minutes is {minutes:g}; it must be a number above zero.")
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise ArgumentError(f"--workers is {workers}; it must be 1 to {MOST_WORKERS}.")
    workers = min(os.cpu_count() or 2, MOST_WORKERS) if workers is None else workers
    if out.exists() and not out.is_dir():
        raise RtsrError(f"{out} is a file; --out names the folder of the run.")
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("Training", "train") from error
    from rtsr.cli.progress import counting
    from rtsr.timing import SAMPLE_RATE
    from rtsr.train.begin import check_run
    from rtsr.train.data import list_split, load_corpus, never_drawn
    from rtsr.train.listing import SPLITS
    from rtsr.train.lock import locked
    from rtsr.train.octave import octave_rate_of, octave_settings
    from rtsr.train.settings import TrainSettings, load_values
    from rtsr.train.trainer import CHECKPOINT, Trainer

    values = load_values(config) if config else {}
    settings = TrainSettings.from_dict(values)
    if model is not None:
        settings = replace(settings, model=model)
    if seed is not None:
        settings = replace(settings, seed=seed)
    elif "seed" in values:
        seed = settings.seed

    octave_rate = SAMPLE_RATE
    if octave_khz is not None:
        octave_rate = octave_rate_of(octave_khz)
        settings = octave_settings(settings)
    check_run(
        out / CHECKPOINT,
        settings,
        device=device,
        octave_rate=octave_rate,
        grow_from=grow_from,
        seed=seed,
    )

    def read(split: str, codec: bool = False) -> Corpus:
        with counting(f"reading {split}") as show:
            corpus = load_corpus(
                data,
                split,
                workers=workers,
                cache=cache.with_name(f"{cache.stem}-{split}.npz") if cache else None,
                codec=codec,
                octave_rate=octave_rate,
                progress=show,
            )
        typer.echo(f"{split}: {corpus.describe()}")
        return corpus

    # Of both before one is decoded, which may take hours.
    drawn = [domain for domain, share in settings.domains.items() if share > 0.0]
    for split in SPLITS:
        left = never_drawn(list_split(data, split), settings.domains)
        if left:
            typer.echo(
                f"{split}: {sum(left.values())} recordings are never drawn, because 'domains' of "
                f"the settings gives {', '.join(map(repr, left))} no share; it gives "
                f"{', '.join(map(repr, drawn))} one.",
                err=True,
            )
    with locked(out):
        # First, since there is less of it, and it may hold nothing that can be used.
        valid_corpus = read("valid")
        train_corpus = read("train", codec=settings.degrade.codec_share > 0.0)
        if train_corpus.is_all_lossy:
            typer.echo(
                f"{data} has no lossless recording (wav, flac, aiff): what coders left out teaches "
                "nothing, so noise floors and quiet top bands will not be learnt.",
                err=True,
            )
        trainer = Trainer(
            settings,
            train_corpus,
            valid_corpus,
            out,
            device,
            keep_slim=slim,
            octave_rate=octave_rate,
        )
        if trainer.resume():
            typer.echo(f"Continuing {out / CHECKPOINT} at {trainer.elapsed:.1f} minutes.")
        elif grow_from is not None:
            trainer.grow_from(grow_from)
            typer.echo(f"{settings.model} begins with {grow_from}, and with the stage of levels.")
            if (trainer.grown_from or {}).get("free_bins_left_out"):
                typer.echo(
                    "The free bins of that decoder are left out; what they carried is to be learnt "
                    "again. [model_changes] decoder_free_bins = true keeps them."
                )
        run_until_stopped(trainer, minutes)
    if trainer.left_out:
        typer.echo(
            f"{trainer.left_out} of {sum(trainer.steps)} steps were left out, because their "
            "gradients were not finite.",
            err=True,
        )
    if trainer.lacks_steps:
        typer.echo(
            f"The run is {trainer.elapsed:.1f} minutes old and ends in {_position(trainer)}, "
            f"before it has taken the steps of its settings, {list(settings.steps or ())}; the "
            "same command with more --minutes goes on.",
            err=True,
        )
    typer.echo(f"Saved {out / CHECKPOINT}; make it a model: rtsr export {out / CHECKPOINT} X.onnx")


def run_until_stopped(trainer: Trainer, minutes: float) -> None:
    """Train with a bar on the terminal; whoever stops it finds what was trained so far.

    A run that is stopped goes on as if it had not been: it ends between two steps.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from rtsr.terminal import plain_console
    from rtsr.train.trainer import CHECKPOINT

    console = plain_console()
    shown: dict[str, float] = {}
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %", markup=False),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    with bar, _first_signal_kept() as kept:
        task = bar.add_task("starting", total=1.0)
        bar.update(task, completed=trainer.share_done(minutes))

        def show(trainer: Trainer, terms: dict[str, float]) -> None:
            values = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
            nonlocal shown
            if terms and terms is not shown and not console.is_terminal:
                # A file or a pipe holds what was logged, and grows no faster.
                try:
                    typer.echo(f"{trainer.elapsed:.1f} min  {_position(trainer)}  {values}")
                except OSError:
                    # Whoever read it has gone, as `head` does; that ends a run as Ctrl-C does.
                    trainer.save_before_end()
                    raise
            shown = terms
            description = f"{_position(trainer)}  {values}"
            bar.update(task, completed=trainer.share_done(minutes), description=description)
            if kept:
                trainer.save_before_end()
                typer.echo(
                    f"Saved {trainer.folder / CHECKPOINT} at {_position(trainer)}; "
                    "the same command goes on."
                )
                signal.raise_signal(kept[0])

        trainer.run(minutes, show)


def _position(trainer: Trainer) -> str:
    from rtsr.train.schedule import STAGES

    return f"{STAGES[trainer.stage]}, step {trainer.steps[trainer.stage]}"


@contextmanager
def _first_signal_kept() -> Iterator[list[int]]:
    """Note the first signal that would end the program, in what is yielded; the next one ends it.

    Raised again it does what it would have done.
    """
    kept: list[int] = []
    with ExitStack() as handlers:

        def keep(number: int, frame: Any) -> None:
            kept.append(number)
            handlers.close()

        handlers.enter_context(handled(keep))
        yield kept

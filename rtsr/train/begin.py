"""What can be said of a run before its recordings are decoded, which may take hours."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rtsr.errors import ArgumentError, RtsrError
from rtsr.model.generator import Generator
from rtsr.train.checkpoint import load_checkpoint
from rtsr.train.device import choose_device, choose_precision
from rtsr.train.discriminators import Discriminators
from rtsr.train.grow import load_start
from rtsr.train.resume import check_is_of_this_run
from rtsr.train.settings import TrainSettings

#: Copies of every weight in a checkpoint: it, its average, both moments of its optimiser, its
#: teacher's; and of one of the discriminators, which have neither average nor teacher.
GENERATORS_KEPT, DISCRIMINATORS_KEPT = 5, 3
FLOAT_BYTES = 4


def check_run(
    checkpoint: Path,
    settings: TrainSettings,
    *,
    device: str = "auto",
    octave_rate: int,
    grow_from: Path | None = None,
    seed: int | None = None,
) -> None:
    """Refuse a run that could not begin, go on, or keep what it learns.

    Args:
        checkpoint: of the run, there or to be.
        settings: of the run.
        device: as for :class:`~rtsr.train.trainer.Trainer`.
        octave_rate: as for :class:`~rtsr.train.trainer.Trainer`.
        grow_from: the checkpoint that a new run begins with.
        seed: as it was asked for, by option or settings; of a run that goes on it cannot be another
            than before.

    Raises:
        RtsrError: with what is to be changed.
    """
    choose_precision(settings.precision, choose_device(device))
    if checkpoint.exists():
        _check_goes_on(checkpoint, settings, octave_rate, grow_from, seed)
    elif grow_from is not None:
        load_start(grow_from, settings.model_config(), settings.seed)
    elif settings.other_sound_alone:
        raise ArgumentError(
            "'other_sound_alone' teaches a part of a model that is trained; name its checkpoint "
            "with --grow-from."
        )
    _check_can_be_written(checkpoint, settings)


def _check_goes_on(
    checkpoint: Path,
    settings: TrainSettings,
    octave_rate: int,
    grow_from: Path | None,
    seed: int | None,
) -> None:
    content = load_checkpoint(checkpoint)
    check_is_of_this_run(content, checkpoint, settings, octave_rate)
    if grow_from is not None and not content["facts"].get("grown_from"):
        raise RtsrError(
            f"{checkpoint} is a run that did not begin with --grow-from; choose another --out "
            "folder, or leave --grow-from out to go on."
        )
    before = content["settings"]["seed"]
    if seed is not None and seed != before:
        raise RtsrError(
            f"{checkpoint} is a run that began with seed {before}, not {seed}; leave --seed and "
            f"'seed' out or name {before} to go on, or choose another --out folder."
        )


def _check_can_be_written(checkpoint: Path, settings: TrainSettings) -> None:
    folder = checkpoint.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        # Nothing is left of it, and no folder is made for a run that then cannot begin.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RtsrError(
            f"Nothing can be written to {folder} ({error.strerror}); choose another --out folder."
        ) from error
    # A new one is written beside that which is there.
    is_there = checkpoint.exists()
    needed = checkpoint.stat().st_size if is_there else 2 * checkpoint_bytes(settings)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RtsrError(
            f"{folder} has {free / 1e6:.0f} MB free, and checkpoints need {needed / 1e6:.0f}; make "
            "room, or choose another --out folder."
        )


def checkpoint_bytes(settings: TrainSettings) -> int:
    """Return about how many bytes a checkpoint of such a run takes once it has a teacher."""
    parts = (
        (Generator(settings.model_config()), GENERATORS_KEPT),
        (Discriminators(), DISCRIMINATORS_KEPT),
    )
    return FLOAT_BYTES * sum(
        copies * sum(value.numel() for value in part.parameters()) for part, copies in parts
    )

"""Which files ``rtsr enhance`` reads, and where it writes the result of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtsr.audio.suffixes import READ_ONLY, SUFFIXES
from rtsr.errors import ArgumentError, AudioFormatError, RtsrError


@dataclass(frozen=True)
class Job:
    """One file to enhance."""

    source: Path
    target: Path


def plan_jobs(paths: Sequence[Path], folder: Path | None) -> list[Job]:
    """Return what to read and where to write it.

    Two paths are a file and the file to write, or a folder and the folder to write into. With
    ``folder`` all paths are read, and every result is written into it under the input's name (as
    ``.flac`` what cannot be written in the input's format). A folder is read with its sub-folders,
    which the output repeats.

    Args:
        paths: the command's arguments.
        folder: of ``--out-dir``, if it is given.

    Raises:
        ArgumentError: the paths do not say where to write, a new folder would be called as a
            sound file is, a folder would be written into itself, a result would replace another's
            source, or two results would have one name.
        AudioFormatError: a folder holds no sound file.
    """
    if folder is None:
        if len(paths) != 2:
            raise ArgumentError(
                "Give IN and OUT, a folder and a folder to write into, or several files with "
                "--out-dir DIR; see `rtsr enhance --help`."
            )
        source, target = paths
        if not source.is_dir():
            if target.is_dir():
                raise ArgumentError(f"'{target}' is a folder; --out-dir '{target}' writes into it.")
            return [Job(source, target)]
        if target.exists() and not target.is_dir():
            raise ArgumentError(f"'{source}' is a folder and '{target}' is not; give two folders.")
        return _jobs_of([source], target)
    return _jobs_of(paths, folder)


def _jobs_of(sources: Sequence[Path], folder: Path) -> list[Job]:
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"'{folder}' is not a folder; --out-dir names one to write into.")
    if folder.suffix.lower() in SUFFIXES and not folder.exists():
        raise ArgumentError(
            f"'{folder}' would be a folder with the name of a sound file; to enhance a folder or "
            "several files, name a folder to write into."
        )
    named = [each for source in sources for each in _named(source, folder)]
    kept = {name for _, name in named}
    jobs: dict[Path, Job] = {}
    for path, name in named:
        if name.suffix.lower() in READ_ONLY:
            flac = name.with_suffix(".flac")
            # Beside a.flac, a.m4a becomes a.m4a.flac.
            name = flac if flac not in kept else name.with_name(f"{name.name}.flac")
        target = folder / name
        if target in jobs:
            raise ArgumentError(
                f"'{jobs[target].source}' and '{path}' would both be written to '{target}'; "
                "enhance them into different folders."
            )
        jobs[target] = Job(path, target)
    _check_sources_stay(list(jobs.values()))
    return list(jobs.values())


def _check_sources_stay(jobs: Sequence[Job]) -> None:
    """Refuse results that would replace the source of another; their own is refused later."""
    sources = {os.path.realpath(job.source): job.source for job in jobs}
    for job in jobs:
        replaced = sources.get(os.path.realpath(job.target), job.source)
        if replaced != job.source:
            raise ArgumentError(
                f"The result of '{job.source}' would replace '{replaced}', which is to be enhanced "
                "too; name another folder to write into."
            )


def _named(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Return the files of a source, each with its name in the output folder."""
    if not source.is_dir():
        return [(source, Path(source.name))]
    read, written = os.path.realpath(source) + os.sep, os.path.realpath(output) + os.sep
    if read == written:
        raise ArgumentError(
            f"'{source}' would be written into itself; name another folder to write into."
        )
    # An output folder inside the input folder must not be read by the next run.
    is_inside = written.startswith(read)
    found = [
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        # A link to nowhere is a file that will be said to be missing.
        and (path.is_file() or (path.is_symlink() and not path.exists()))
        and not path.name.startswith(".")
        and not (is_inside and os.path.realpath(path).startswith(written))
    ]
    if not found:
        raise AudioFormatError(
            f"Folder '{source}' holds no sound file; accepted: {', '.join(sorted(SUFFIXES))}."
        )
    return [(path, path.relative_to(source)) for path in found]


def make_folder(folder: Path) -> None:
    """Make the folder of a result, with its parents.

    Raises:
        RtsrError: the system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RtsrError(f"Folder '{folder}' cannot be made: {error.strerror or error}.") from None


def check_is_new(job: Job) -> None:
    """Refuse to replace a file, which may be a second recording to enhance.

    Raises:
        ArgumentError: the result's file exists.
    """
    source, target = job.source, job.target
    # A source that is missing, or the target itself, is refused with a sentence of its own.
    if target.is_file() and source.exists() and not os.path.samefile(source, target):
        raise ArgumentError(
            f"'{target}' exists already; --overwrite replaces it, and --out-dir DIR enhances "
            "both files into a folder."
        )

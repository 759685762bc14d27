"""Compare files with files, and folders with folders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rtsr.audio.suffixes import SUFFIXES
from rtsr.errors import ArgumentError, MissingDependencyError, RtsrError
from rtsr.quality.artefacts import find_artefacts
from rtsr.quality.audio import read_audio
from rtsr.quality.evaluation import check_cutoff, check_metrics, evaluate
from rtsr.quality.mismatch import find_mismatches
from rtsr.timing import SAMPLE_RATE


@dataclass(frozen=True)
class Comparison:
    """One estimate evaluated against its reference.

    Attributes:
        artefacts: empty if they were not asked for.
        mismatches: why the two may not belong together, see
            :func:`rtsr.quality.mismatch.find_mismatches`.
    """

    name: str
    reference: Path
    estimate: Path
    cutoff_hz: float
    metrics: dict[str, float]
    artefacts: dict[str, float] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FolderComparison:
    """All pairs of two folders that could be compared.

    Attributes:
        unmatched: names without a partner.
        failed: of each pair that cannot be compared, its name and why.
    """

    files: list[Comparison]
    unmatched: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def median(self) -> dict[str, float]:
        """Median of every metric over the files."""
        return medians(comparison.metrics for comparison in self.files)

    @property
    def artefact_median(self) -> dict[str, float]:
        """Median of every artefact over the files."""
        return medians(comparison.artefacts for comparison in self.files)


def compare_files(
    reference: str | Path,
    estimate: str | Path,
    cutoff_hz: float,
    metrics: Sequence[str] | None = None,
    *,
    artefacts: bool = False,
) -> Comparison:
    """Evaluate one file against another; both are brought to 48 kHz first.

    Args:
        reference: the original, any rate and format that `rtsr enhance` reads.
        estimate: the processed file; the same number of channels.
        cutoff_hz: where the content of the processed system's input ended, in Hz.
        metrics: as for :func:`rtsr.quality.evaluate`.
        artefacts: also measure all of :data:`rtsr.quality.ARTEFACTS`.

    Raises:
        RtsrError: a file cannot be read, or the two cannot be compared.
        MissingDependencyError: ``visqol`` was asked for and its package is not installed.
    """
    reference_audio, estimate_audio = read_audio(reference), read_audio(estimate)
    counts = reference_audio.shape[1], estimate_audio.shape[1]
    if counts[0] != counts[1]:
        raise ArgumentError(
            f"'{reference}' has {counts[0]} channel(s) and '{estimate}' {counts[1]}; they must "
            "have the same number."
        )
    values = evaluate(reference_audio, estimate_audio, cutoff_hz, metrics, SAMPLE_RATE)
    found = find_artefacts(reference_audio, estimate_audio, cutoff_hz) if artefacts else {}
    return Comparison(
        Path(estimate).stem,
        Path(reference),
        Path(estimate),
        cutoff_hz,
        values,
        found,
        find_mismatches(reference_audio, estimate_audio, cutoff_hz),
    )


def compare_folders(
    references: str | Path,
    estimates: str | Path,
    cutoff_hz: float,
    metrics: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    artefacts: bool = False,
) -> FolderComparison:
    """Evaluate every file of a folder against the file with the same stem in another folder.

    Sub-folders count: ``speech/a.wav`` is paired with ``speech/a.flac``. A pair that cannot be
    compared is left out, and said.

    Args:
        references: folder of the originals.
        estimates: folder of the files to evaluate.
        cutoff_hz: as for :func:`compare_files`.
        metrics: likewise.
        artefacts: likewise.
        progress: called with (pairs done, pairs in all) before the first pair and after each.

    Raises:
        RtsrError: no two files have the same stem, a stem is not unique, or no pair can be
            compared.
        MissingDependencyError: ``visqol`` was asked for and its package is not installed.
    """
    check_metrics(metrics)
    check_cutoff(cutoff_hz)
    reference_paths, estimate_paths = audio_by_stem(references), audio_by_stem(estimates)
    names = sorted(reference_paths.keys() & estimate_paths.keys())
    if not names:
        raise RtsrError(
            f"No audio file in {references} has a partner of the same name in {estimates}; "
            "pairs are made by name without the suffix."
        )
    files, failed = [], {}
    for done, name in enumerate(names):
        if progress:
            progress(done, len(names))
        reference, estimate = reference_paths[name], estimate_paths[name]
        try:
            pair = compare_files(reference, estimate, cutoff_hz, metrics, artefacts=artefacts)
            files.append(replace(pair, name=name))
        except MissingDependencyError:
            raise
        except RtsrError as error:
            failed[name] = str(error)
    if progress:
        progress(len(names), len(names))
    if not files:
        name, why = next(iter(failed.items()))
        raise RtsrError(f"None of the {len(names)} pairs can be compared; '{name}': {why}")
    return FolderComparison(files, sorted(reference_paths.keys() ^ estimate_paths.keys()), failed)


def audio_by_stem(folder: str | Path) -> dict[str, Path]:
    """Every audio file below a folder, by its path inside it without the suffix.

    Raises:
        RtsrError: the folder is missing, or two files differ in nothing but the suffix.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RtsrError(f"There is no folder {folder}; give two files or two folders.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise RtsrError(
                f"{found[name]} and {path} have the same name but for the suffix, so it is not "
                "clear which one is meant; keep one of them."
            )
        found[name] = path
    return found


def medians(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Median of each metric over several results, leaving NaN out; NaN where nothing is left."""
    table = list(rows)
    names = list(dict.fromkeys(name for row in table for name in row))
    result = {}
    for name in names:
        known = [row[name] for row in table if name in row and not math.isnan(row[name])]
        result[name] = float(np.median(known)) if known else math.nan
    return result

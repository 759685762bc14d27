"""Which recordings of a folder belong to a split."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtsr.errors import ArgumentError, RtsrError

MANIFEST = "manifest.csv"
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"})
SPLITS = ("train", "valid")
VALID_PER_MILLE = 50


@dataclass(frozen=True)
class Listed:
    """One recording as it is listed, before anything was decoded.

    Attributes:
        path: relative to the source folder, with forward slashes.
        cutoff_hz: from a manifest, or None.
    """

    path: str
    domain: str
    group: str
    cutoff_hz: float | None


def list_recordings(
    source: Path, split: str, *, exclude: Sequence[str] = (), limit: int | None = None
) -> list[Listed]:
    """List the recordings of `split` below `source`, sorted by path.

    Args:
        source: a folder, with or without a manifest.
        split: ``train`` or ``valid``.
        exclude: relative paths.
        limit: largest number of files, taken evenly from the list.

    Raises:
        RtsrError: there is no such folder, its manifest is not usable, or nothing is left.
    """
    if split not in SPLITS:
        raise ArgumentError(f"There is no split '{split}'; take 'train' or 'valid'.")
    if not source.is_dir():
        raise RtsrError(
            f"{source} is not a folder; give a folder of wav, flac, ogg or mp3 recordings."
        )
    manifest = source / MANIFEST
    listed = _from_manifest(manifest, split) if manifest.is_file() else _from_folder(source, split)
    listed = [entry for entry in listed if entry.path not in exclude]
    if not listed:
        raise RtsrError(
            f"{source} has no recordings for the split '{split}'; "
            "give a folder with at least two wav, flac, ogg or mp3 recordings."
        )
    listed.sort(key=lambda entry: entry.path)
    if limit is not None and 0 < limit < len(listed):
        picks = np.linspace(0, len(listed) - 1, limit).round().astype(int)
        listed = [listed[int(pick)] for pick in picks]
    return listed


def _from_manifest(manifest: Path, split: str) -> list[Listed]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"path", "split"} - set(reader.fieldnames or ())
            if missing:
                raise RtsrError(
                    f"{manifest} has no column {' and '.join(sorted(missing))}; "
                    "a manifest needs at least the columns path and split."
                )
            return [
                Listed(
                    path=row["path"],
                    domain=row.get("domain") or "unknown",
                    group=row.get("speaker_or_group") or str(Path(row["path"]).parent),
                    cutoff_hz=_positive(row.get("measured_cutoff_hz")),
                )
                for row in reader
                if row["split"] == split and row["path"]
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RtsrError(
            f"{manifest} cannot be read as a comma-separated table ({error}); "
            "correct it or remove it to use every recording in the folder."
        ) from error


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value > 0 else None


def _from_folder(source: Path, split: str) -> list[Listed]:
    found = sorted(
        path.relative_to(source)
        for path in source.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    ranked = sorted(found, key=_rank)
    valid = {path for path in ranked if _rank(path) < VALID_PER_MILLE}
    # A handful of recordings may all hash into one split, and training needs both.
    if len(ranked) >= 2 and not valid:
        valid = {ranked[0]}
    elif len(ranked) >= 2 and len(valid) == len(ranked):
        valid = set(ranked[:1])
    return [
        Listed(path=path.as_posix(), domain="unknown", group=path.parent.as_posix(), cutoff_hz=None)
        for path in found
        if (path in valid) == (split == "valid")
    ]


def _rank(path: Path) -> float:
    """Return a number in [0, 1000) that depends on the folder's and the file's name only."""
    digest = hashlib.sha256(f"{path.parent.name}/{path.name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 1000

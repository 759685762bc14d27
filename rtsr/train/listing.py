"""Which recordings of a folder belong to a split."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtsr.errors import ArgumentError, RtsrError, warn

MANIFEST = "manifest.csv"
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"})
#: Sound that libsndfile does not decode.
OTHER_AUDIO = frozenset({".aac", ".ac3", ".amr", ".ape", ".m4a", ".mka", ".mp4", ".wma", ".wv"})
SPLITS = ("train", "valid")
VALID_PER_MILLE = 50


@dataclass(frozen=True)
class Listed:
    """One recording as it is listed, before anything was decoded.

    Attributes:
        path: relative to the source folder, with forward slashes.
        group: as a manifest says, else the folder that it lies in.
        cutoff_hz: from a manifest, or None.
        has_group: whether a manifest says it.
    """

    path: str
    domain: str
    group: str
    cutoff_hz: float | None
    has_group: bool = False


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


@dataclass(frozen=True)
class _Row:
    """One row of a manifest that belongs to a split, and the line that it ends in."""

    line: int
    split: str
    listed: Listed


def _from_manifest(manifest: Path, split: str) -> list[Listed]:
    rows = _read(manifest)
    _check_each_is_listed_once(manifest, rows)
    taken = [row.listed for row in rows if row.split == split]
    if not taken:
        splits = sorted({row.split for row in rows})
        raise RtsrError(
            f"{manifest} has no recordings for the split '{split}', but for "
            f"{', '.join(map(repr, splits)) or 'none'}; a split is 'train' or 'valid'."
        )
    if split == "train":
        _tell_of_shared_groups(manifest, rows)
    return taken


def _read(manifest: Path) -> list[_Row]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"path", "split"} - set(reader.fieldnames or ())
            if missing:
                raise RtsrError(
                    f"{manifest} has no column {' and '.join(sorted(missing))}; "
                    "a manifest needs at least the columns path and split."
                )
            return [_row(row, manifest, reader.line_num) for row in reader if row["path"]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RtsrError(
            f"{manifest} cannot be read as a comma-separated table ({error}); "
            "correct it or remove it to use every recording in the folder."
        ) from error


def _row(row: dict[str, str], manifest: Path, line: int) -> _Row:
    split = row["split"] or ""
    cutoff_hz = None
    # What is not used may hold anything there.
    if split in SPLITS:
        cutoff_hz = _cutoff(row.get("measured_cutoff_hz"), manifest, line)
    group = row.get("speaker_or_group")
    return _Row(
        line,
        split,
        Listed(
            path=row["path"],
            domain=row.get("domain") or "unknown",
            group=group or str(Path(row["path"]).parent),
            cutoff_hz=cutoff_hz,
            has_group=bool(group),
        ),
    )


def _cutoff(text: str | None, manifest: Path, line: int) -> float | None:
    if not text or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise RtsrError(
            f"{manifest} has the measured_cutoff_hz {text!r} in line {line}; it must be a number "
            "of Hz above zero, or empty."
        )
    return value


def _check_each_is_listed_once(manifest: Path, rows: list[_Row]) -> None:
    """Refuse a recording that is in two splits, or would be drawn twice as often."""
    before: dict[str, _Row] = {}
    for row in rows:
        if row.split not in SPLITS:
            continue
        other = before.setdefault(posixpath.normpath(row.listed.path), row)
        if other is not row:
            splits = " and ".join(dict.fromkeys((other.split, row.split)))
            raise RtsrError(
                f"{manifest} lists {row.listed.path} twice, in lines {other.line} and {row.line} "
                f"({splits}); leave one of them out."
            )


def _tell_of_shared_groups(manifest: Path, rows: list[_Row]) -> None:
    groups = [
        {row.listed.group for row in rows if row.split == split and row.listed.has_group}
        for split in SPLITS
    ]
    if shared := sorted(groups[0] & groups[1]):
        more = ", ..." if len(shared) > 3 else ""
        warn(
            f"{manifest} has recordings of the same speaker_or_group in both splits "
            f"({', '.join(shared[:3])}{more}), so validation tells less of sound that is new."
        )


def _from_folder(source: Path, split: str) -> list[Listed]:
    files = sorted(path.relative_to(source) for path in _files_below(source))
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    if split == "train":
        _tell_of_passed_over(source, files)
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


def _files_below(source: Path) -> Iterator[Path]:
    """Give all files at any depth once, also of folders that are links out of the source.

    Links to what is walked anyway, and links in circles, are not followed.
    """
    root = source.resolve()
    walked = [root]
    entered: set[Path] = set()
    for folder, folders, names in os.walk(source, followlinks=True):
        # A link may lead to a folder around one that another link has led to.
        own = Path(folder).resolve()
        if own in entered:
            folders.clear()
            continue
        entered.add(own)
        folders.sort()
        for name in list(folders):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                target = Path(path).resolve()
                if root.is_relative_to(target) or any(map(target.is_relative_to, walked)):
                    folders.remove(name)
                else:
                    walked.append(target)
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield Path(path)


def _tell_of_passed_over(source: Path, files: list[Path]) -> None:
    passed = Counter(path.suffix.lower() for path in files)
    if counts := [f"{passed[each]} {each}" for each in sorted(OTHER_AUDIO) if passed[each]]:
        warn(
            f"Files in {source} that cannot be decoded are passed over ({', '.join(counts)}); "
            f"accepted are {', '.join(sorted(SUFFIXES))}."
        )


def _rank(path: Path) -> float:
    """Return a number in [0, 1000) that depends on the folder's and the file's name only."""
    digest = hashlib.sha256(os.fsencode(f"{path.parent.name}/{path.name}")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 1000

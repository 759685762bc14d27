"""The list of a corpus: as a table, its splits, joined to another; for the scripts beside."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rtsr.errors import RtsrError
from rtsr.train.listing import MANIFEST

COLUMNS = (
    "path",
    "split",
    "domain",
    "source",
    "licence",
    "speaker_or_group",
    "sample_rate",
    "seconds",
    "measured_cutoff_hz",
)


def read_rows(corpus: Path, needed: Sequence[str] = ("path", "split")) -> list[dict[str, str]]:
    """Every recording that the manifest lists; raises RtsrError where it cannot be read.

    Args:
        needed: columns that it must have.
    """
    try:
        # As `rtsr train` reads it: programs for tables put a byte order mark in front.
        with (corpus / MANIFEST).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise RtsrError(
                    f"{corpus / MANIFEST} has no column {missing[0]}; it is needed here."
                )
            return [row for row in reader if row["path"]]
    except FileNotFoundError as error:
        raise RtsrError(f"{corpus} has no {MANIFEST}; give the folder of a corpus.") from error
    except OSError as error:
        raise RtsrError(f"Cannot read {corpus / MANIFEST}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RtsrError(f"{corpus / MANIFEST} is no comma-separated table ({error}).") from error


def read_listed(corpus: Path, needed: Sequence[str] = ("path", "split")) -> list[dict[str, str]]:
    """Read rows as :func:`read_rows` does, of which there must be some."""
    rows = read_rows(corpus, needed)
    if not rows:
        raise RtsrError(f"{corpus / MANIFEST} lists no recording.")
    return rows


def write_rows(corpus: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    """Write the manifest beside the old one and rename it; other columns of rows are left out."""
    beside = corpus / f".{MANIFEST}.part"
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(beside, corpus / MANIFEST)


def top_folders(rows: Iterable[dict[str, str]]) -> set[str]:
    """Names of the folders of a corpus in which its recordings lie."""
    return {Path(row["path"]).parts[0] for row in rows}


def link_sounds(corpus: Path, folder: Path, rows: Iterable[dict[str, str]]) -> None:
    """Link to the folders of `corpus` from `folder`, so that the paths of its rows hold there."""
    for top in top_folders(rows):
        link = folder / top
        if not link.exists():
            link.symlink_to((corpus / top).resolve())


def join(folder: Path, other: Path, needed: set[str]) -> list[dict[str, str]]:
    """Return the other corpus's rows and link to its folders, so that its paths hold here too.

    Args:
        needed: names of folders that the new corpus makes itself.
    """
    rows = read_listed(other)
    taken = top_folders(rows) & (needed | {"copyright"})
    if taken:
        raise RtsrError(
            f"{other} has a folder {min(taken)}, which the new corpus needs; rename it."
        )
    link_sounds(other, folder, rows)
    return rows


def write_beside(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text)
    os.replace(beside, path)


def rank(source: str) -> float:
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "big") / 2**64


def write_splits(
    folder: Path,
    built: Sequence[dict[str, Any]],
    valid_share: float,
    joined: Sequence[dict[str, str]],
) -> None:
    """List what was built (each has ``source``, ``title``, ``rows``); a source is in one split."""
    sources = sorted({entry["source"] for entry in built if entry["rows"]}, key=rank)
    valid = {source for source in sources if rank(source) < valid_share}
    if not joined and valid_share > 0 and not valid and len(sources) > 1:
        valid = {sources[0]}
    rows = list(joined)
    for entry in built:
        split = "valid" if entry["source"] in valid and not joined else "train"
        for row in entry["rows"]:
            rows.append({**row, "split": split, "source": entry["title"]})
    write_rows(folder, COLUMNS, rows)


def describe(folder: Path) -> str:
    totals: dict[tuple[str, str], float] = {}
    for row in read_rows(folder):
        key = (row["split"], row["domain"])
        totals[key] = totals.get(key, 0.0) + float(row["seconds"] or 0.0)
    return ", ".join(
        f"{' '.join(key)} {total / 3600:.2f} h" for key, total in sorted(totals.items())
    )

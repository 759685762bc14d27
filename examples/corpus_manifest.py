"""The list of a corpus as a table, and links to the sounds of another; for the scripts beside."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rtsr.errors import RtsrError
from rtsr.train.listing import MANIFEST


def read_rows(corpus: Path) -> list[dict[str, str]]:
    """Every recording that the manifest lists; raises RtsrError where there is none to be read."""
    try:
        with (corpus / MANIFEST).open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if row.get("path")]
    except FileNotFoundError as error:
        raise RtsrError(f"{corpus} has no {MANIFEST}; give the folder of a corpus.") from error
    except OSError as error:
        raise RtsrError(f"Cannot read {corpus / MANIFEST}: {error.strerror}.") from error


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

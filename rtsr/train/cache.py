"""A decoded corpus kept on disk, so that a restart does not decode for minutes again."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rtsr.train.listing import Listed

if TYPE_CHECKING:
    from rtsr.train.data import Corpus

#: Counted up when decoding or measuring changes, so that an old cache is not believed.
VERSION = 1
ARRAYS = ("samples", "starts", "lengths", "cutoffs_hz", "domain_codes")
LISTS = ("domains", "names", "groups", "skipped")


def key_of(source: Path, listed: list[Listed]) -> str:
    """A hash of everything the decoded corpus depends on: the list and the files' sizes."""
    rows: list[list[Any]] = [[VERSION]]
    for entry in listed:
        path = source / entry.path
        size = path.stat().st_size if path.is_file() else -1
        rows.append([entry.path, entry.domain, entry.group, entry.cutoff_hz, size])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read(path: Path, key: str) -> dict[str, Any] | None:
    """The fields of the corpus kept under `key`, or None if there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            described = json.loads(str(kept["described"]))
            if described["key"] != key:
                return None
            fields: dict[str, Any] = {name: kept[name] for name in ARRAYS}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    fields.update({name: described[name] for name in LISTS})
    fields["skipped"] = [(name, reason) for name, reason in described["skipped"]]
    return fields


def write(path: Path, key: str, corpus: Corpus) -> None:
    """Keep `corpus`; a cache that cannot be written (a full disk) is only a slower restart."""
    described = json.dumps({"key": key, **{name: getattr(corpus, name) for name in LISTS}})
    arrays = {name: getattr(corpus, name) for name in ARRAYS}
    beside = path.with_name(path.name + f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            np.savez(file, described=np.array(described), **arrays)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)

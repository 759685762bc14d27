"""Cache of decoded and codec-degraded audio on disk, so that a restart takes no minutes again."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rtsr.errors import warn
from rtsr.timing import SAMPLE_RATE
from rtsr.train.listing import Listed

#: Counted up when decoding or measuring changes, so that an old cache is not believed.
VERSION = 2
#: The stored fields of a corpus, and of its codec-degraded versions: arrays, and plain values.
CORPUS = (
    ("samples", "starts", "lengths", "cutoffs_hz", "domain_codes"),
    ("domains", "names", "groups", "skipped"),
)
CODEC = (
    ("samples", "starts", "lengths", "clips", "offsets", "cutoffs_hz"),
    ("settings", "rejected"),
)
StoredFields = tuple[tuple[str, ...], tuple[str, ...]]


def key_of(source: Path, listed: list[Listed], octave_rate: int = SAMPLE_RATE) -> str:
    """Return a hash of everything the decoded corpus depends on.

    That is the list, the files' sizes and times of change, and the octave, if it is for one. Times
    count in whole seconds, which is what archives and most copies keep of them.
    """
    rows: list[list[Any]] = [[VERSION]]
    if octave_rate != SAMPLE_RATE:
        rows.append([octave_rate])
    for entry in listed:
        path = source / entry.path
        state = [-1, -1]
        if path.is_file():
            found = path.stat()
            state = [found.st_size, int(found.st_mtime)]
        rows.append([entry.path, entry.domain, entry.group, entry.cutoff_hz, *state])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def codec_path(path: Path) -> Path:
    """Return the path of the codec-degraded versions of a corpus that is stored at `path`."""
    return path.with_name(f"{path.stem}-coded{path.suffix}")


def read(path: Path, key: str, stored: StoredFields = CORPUS) -> dict[str, Any] | None:
    """Return the fields that are stored under `key`, or None if there are none or are damaged."""
    arrays, values = stored
    try:
        with np.load(path, allow_pickle=False) as content:
            described = json.loads(str(content["described"]))
            if described["key"] != key:
                warn(
                    f"{path} is of other recordings, settings or version, or of before a change, "
                    "and is made anew; each folder of recordings takes a --cache of its own."
                )
                return None
            fields: dict[str, Any] = {name: content[name] for name in arrays}
            fields.update({name: described[name] for name in values})
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    except (AttributeError, TypeError):
        # A plain array, which is no archive.
        return None
    return fields


def write(path: Path, key: str, content: Any, stored: StoredFields = CORPUS) -> None:
    """Store `content`; a cache that cannot be written (a full disk) is only a slower restart.

    Then a warning says so.
    """
    described = json.dumps({"key": key, **{name: getattr(content, name) for name in stored[1]}})
    arrays = {name: getattr(content, name) for name in stored[0]}
    beside = path.with_name(path.name + f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            np.savez(file, described=np.array(described), **arrays)
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        warn(
            f"The cache {path} cannot be written ({error.strerror or error}), so the next start "
            "decodes everything again."
        )

"""Title, artist and the like, which an output takes over from its input."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

#: The tags that libsndfile writes, by its names. What wrote the input did not write the output.
_KEPT = (
    "title",
    "artist",
    "album",
    "date",
    "tracknumber",
    "genre",
    "comment",
    "copyright",
    "license",
)
# FFmpeg calls it otherwise.
_NUMBER = "track"
# What is longer, as a cue sheet or a picture in a comment, some formats have no room for, and
# libsndfile fails at the first sound.
_MOST_BYTES = 2000
# A text in an unknown code holds these once it is decoded.
_UNDECODABLE = "\ufffd"


def tags_of(file: Any) -> dict[str, str]:
    """Return the tags of a file that libsndfile has opened."""
    return _usable(file.copy_metadata())


def tags_of_container(*levels: Mapping[str, str]) -> dict[str, str]:
    """Return the tags among what PyAV tells of a container and of its stream."""
    found = {name.lower(): text for level in levels for name, text in level.items()}
    if _NUMBER in found:
        found["tracknumber"] = found[_NUMBER]
    return _usable(found)


def write_tags(file: Any, tags: Mapping[str, str]) -> None:
    """Give a file that libsndfile has opened its tags, before the sound; some formats have none."""
    import soundfile

    for name, text in tags.items():
        # LAME takes one byte for each letter.
        if file.format == "MP3" and not text.isascii():
            continue
        with contextlib.suppress(soundfile.LibsndfileError):
            setattr(file, name, text)


def _usable(found: Mapping[str, str]) -> dict[str, str]:
    return {name: found[name] for name in _KEPT if _is_usable(found.get(name, ""))}


def _is_usable(text: str) -> bool:
    return 0 < len(text.encode(errors="replace")) <= _MOST_BYTES and _UNDECODABLE not in text

"""Which loudspeaker each channel is for, and in which order a format stores them.

Everywhere in rtsr channels stand in the order of WAV files. Speakers are given as a mask: one bit
for each, 0 if unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

# One bit for each, from the lowest (WAVEFORMATEXTENSIBLE); by FFmpeg's names.
_NAMES = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")
# By the number of channels, as FLAC and Vorbis define them.
_USUAL = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
# Where a WAV file's channels stand in Vorbis and Opus, which libsndfile leaves as they are.
_IN_OGG = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
# Of the mappings of Opus (RFC 7845, 5.1.1) two name speakers; the others are discrete or ambisonic.
_NOT_SPEAKERS = re.compile(r"Channel Mapping\s*: (?![01]\b)\d")
_MASK = re.compile(r"Channel Mask\s*: 0x([0-9A-Fa-f]+)")
_EXTENSIBLE = b"\xfe\xff"
# The mask's place in a chunk "fmt ", whose beginning lies within this of a file that we wrote.
_MASK_OFFSET = 28
_HEADER_BYTES = 256


def order_in(file_format: str, subtype: str, log: str, channels: int) -> list[int] | None:
    """Return where each channel stands in a file, ``None`` where that is the order of WAV files.

    Args:
        file_format: as libsndfile names it.
        subtype: likewise.
        log: what libsndfile says of the file; empty for one to write.
        channels: their number.
    """
    if file_format != "OGG" or subtype not in ("VORBIS", "OPUS") or _NOT_SPEAKERS.search(log):
        return None
    return list(_IN_OGG[channels]) if channels in _IN_OGG else None


def speakers_of(file_format: str, log: str, channels: int) -> int:
    """Return the mask of a file that libsndfile has opened."""
    if file_format in ("FLAC", "OGG"):
        return 0 if _NOT_SPEAKERS.search(log) else _USUAL.get(channels, 0)
    found = _MASK.search(log)
    return _checked(int(found[1], 16), channels) if found else 0


def speakers_of_names(names: Sequence[str]) -> int:
    """Return the mask of speakers by FFmpeg's names, 0 where one of them has no bit."""
    known = [_NAMES.index(name) for name in names if name in _NAMES]
    if len(known) != len(names) or known != sorted(known):
        return 0
    return _checked(sum(1 << place for place in known), len(names))


def write_speakers(path: Path, mask: int) -> None:
    """Put a mask into a WAV file whose header has a place for one."""
    with path.open("rb+") as file:
        head = file.read(_HEADER_BYTES)
        place = head.find(b"fmt ")
        if place >= 0 and head[place + 8 : place + 10] == _EXTENSIBLE:
            file.seek(place + _MASK_OFFSET, os.SEEK_SET)
            file.write(mask.to_bytes(4, "little"))


def _checked(mask: int, channels: int) -> int:
    return mask if mask.bit_count() == channels else 0

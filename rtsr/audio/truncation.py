"""Whether a file was cut off, or holds another behind it: libsndfile says nothing."""

from __future__ import annotations

from pathlib import Path

# An Ogg page is at most 65307 bytes long, so that the last one begins within this.
_OGG_TAIL_BYTES = 1 << 16
_OGG_HEADER_BYTES = 27
_OGG_BEGIN_OF_STREAM = 2
_OGG_END_OF_STREAM = 4
_MPEG_HEAD_BYTES = 1 << 16
_XING_FRAMES = 1
_XING_BYTES = 2
# A frame is 1441 bytes long at most; encoders differ in whether the one that counts is counted.
_MPEG_LONGEST_FRAMES = 2 * 1441
# Only the first frame can be the one that counts the others; its tag stands at these places.
_XING_LONGEST_OFFSET = 4 + 2 + 32


def ogg_ends_early(path: Path) -> bool:
    """Whether the last Ogg page lacks the end-of-stream flag, or is not whole (RFC 3533)."""
    _, tail = _ends_of_ogg(path)
    place = tail.rfind(b"OggS\0")
    if place < 0 or place + _OGG_HEADER_BYTES > len(tail):
        return True
    segments = tail[place + 26]
    body = place + _OGG_HEADER_BYTES + segments
    lengths = tail[place + _OGG_HEADER_BYTES : body]
    if len(lengths) < segments or body + sum(lengths) > len(tail):
        return True
    return not tail[place + 5] & _OGG_END_OF_STREAM


def ogg_goes_on(path: Path) -> bool:
    """Whether a stream follows behind those that a file begins with, which alone are decoded."""
    head, tail = _ends_of_ogg(path)
    first = set()
    place = 0
    # Streams that lie beside each other, as of a film, all begin before any of them goes on.
    while head[place : place + 5] == b"OggS\0" and head[place + 5] & _OGG_BEGIN_OF_STREAM:
        first.add(head[place + 14 : place + 18])
        segments = head[place + 26 : place + 27]
        body = place + _OGG_HEADER_BYTES + (segments[0] if segments else 0)
        place = body + sum(head[place + _OGG_HEADER_BYTES : body])
    last = tail.rfind(b"OggS\0")
    return bool(first) and last >= 0 and tail[last + 14 : last + 18] not in first


def _ends_of_ogg(path: Path) -> tuple[bytes, bytes]:
    """Return the first and the last bytes of a file, enough for a page."""
    with path.open("rb") as file:
        head = file.read(_OGG_TAIL_BYTES)
        file.seek(max(0, file.seek(0, 2) - _OGG_TAIL_BYTES))
        return head, file.read()


def counted_mp3_samples(path: Path) -> int | None:
    """Count samples per channel by a Xing or Info tag's frame count; ``None`` without a tag.

    The encoder's delay and padding are taken off where a LAME tag follows that names them.
    """
    found = _find_xing(path)
    if found is None:
        return None
    head, _, sync, tag = found
    if len(head) < tag + 12 or not head[tag + 7] & _XING_FRAMES:
        return None
    is_mpeg_1 = head[sync + 1] & 0x18 == 0x18
    samples = int.from_bytes(head[tag + 8 : tag + 12], "big") * (1152 if is_mpeg_1 else 576)
    flags = head[tag + 7]
    lame = tag + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1)
    lame += 4 * (flags >> 3 & 1)
    if head[lame : lame + 4] in (b"LAME", b"Lavf", b"Lavc") and len(head) >= lame + 24:
        padding = int.from_bytes(head[lame + 21 : lame + 24], "big")
        samples -= (padding >> 12) + (padding & 0xFFF)
    return samples


def mp3_goes_on(path: Path) -> bool:
    """Whether another file was joined to one whose tag counts its bytes, and is not decoded."""
    found = _find_xing(path)
    if found is None:
        return False
    head, offset, sync, tag = found
    flags = head[tag + 7]
    counted = tag + 8 + 4 * (flags & _XING_FRAMES)
    if not flags & _XING_BYTES or len(head) < counted + 4:
        return False
    length = int.from_bytes(head[counted : counted + 4], "big")
    if not length:
        return False
    with path.open("rb") as file:
        left = file.seek(0, 2) - file.seek(offset + sync + length)
        behind = file.read(4)
    # The bits of a frame's header that do not change from frame to frame of a file.
    is_frame = behind[:1] == b"\xff" and behind[1:2] == head[sync + 1 : sync + 2]
    return behind[:3] == b"ID3" or (is_frame and left > _MPEG_LONGEST_FRAMES)


def _find_xing(path: Path) -> tuple[bytes, int, int, int] | None:
    """Find the frame that counts the others, and its tag.

    Returns:
        a part of the file, its offset, and the places of the frame and of the tag in it.
    """
    with path.open("rb") as file:
        start = file.read(10)
        offset = 0
        if start[:3] == b"ID3" and len(start) == 10:
            offset = 10 + (start[6] << 21 | start[7] << 14 | start[8] << 7 | start[9])
        file.seek(offset)
        head = file.read(_MPEG_HEAD_BYTES)
    sync = head.find(b"\xff")
    while 0 <= sync < len(head) - 3 and head[sync + 1] & 0xE6 != 0xE2:
        sync = head.find(b"\xff", sync + 1)
    if sync < 0:
        return None
    window = head[sync : sync + _XING_LONGEST_OFFSET + 4]
    tag = sync + max(window.find(b"Xing"), window.find(b"Info"))
    return None if tag < sync or len(head) < tag + 8 else (head, offset, sync, tag)


def wav_is_whole(path: Path) -> bool:
    """Whether a WAV file is as long as its header says, as one that a recorder has finished."""
    with path.open("rb") as file:
        head = file.read(8)
        size = file.seek(0, 2)
    return head[:4] == b"RIFF" and int.from_bytes(head[4:8], "little") == size - 8

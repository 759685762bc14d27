"""Reading a sound file as a stream of blocks, with errors a user can act on."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rtsr.audio.container import ContainerFile, UnknownFormatError
from rtsr.audio.speakers import order_in, speakers_of
from rtsr.audio.tags import tags_of
from rtsr.audio.truncation import (
    counted_mp3_samples,
    mp3_goes_on,
    ogg_ends_early,
    ogg_goes_on,
    wav_is_whole,
)
from rtsr.closing import Closing
from rtsr.errors import AudioFormatError, RtsrError

Audio = NDArray[np.float32]

# Small enough that little is lost where a damaged file stops decoding.
BLOCK_FRAMES = 4096

# libsndfile corrects a header that promises more than the file holds, and says so in its log.
_CORRECTED_LENGTH = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
# Headers with 64-bit sizes: RF64 by frames, W64 by the bytes of the whole file.
_CORRECTED_FRAMES = re.compile(r"does not match value from 'ds64' chunk of (\d+)")
_CORRECTED_W64 = re.compile(r"riff : (\d+) \(should be (\d+)\)")
_BLOCK_ALIGN = re.compile(r"Block Align\s*: (\d+)")
# A program that writes into a pipe cannot know the length and fills in the largest number, of 31,
# 32 or 63 bits, or one near it.
_UNKNOWN_LENGTHS = ((0x7FFFF000, 0x80001000), (0xFFFF0000, 0x1_0000_1000), (1 << 60, 1 << 64))
# What libsndfile says of a FLAC file that does not tell its length.
_UNKNOWN_FRAMES = 1 << 60
# What its log says of an Ogg page that it had to leave out.
_LOST_PAGE = re.compile(r"Corrupted bitstream|reports a hole")
# Decoders of MP3 count whole frames and drop the encoder's padding: this much is no damage.
_PADDING_FRAMES = 4 * 1152
# Some encoders count the frame that holds the count.
_MISCOUNTED_FRAMES = 1152
# A first MPEG frame further behind the tags than this is nothing that players find either.
_MPEG_SEARCH_BYTES = 1 << 16

# A thread that finds stderr silenced by another would leave it so.
_STDERR = threading.Lock()

# What libsndfile opens from a pipe, and then reads without its first samples, or not at all.
_NOT_FROM_PIPES = ("CAF", "RF64")

_NOT_A_SOUND_FILE = (
    "Input file '{path}' is not a sound file that can be read; "
    "accepted: WAV, FLAC, Ogg, Opus, MP3, AIFF and what else libsndfile reads, and with PyAV "
    "(`pip install av`) M4A, WebM, AMR and films; others go through "
    "`ffmpeg -i IN -f s16le -ac 1 -ar 16000 - | rtsr pipe --rate 16000`."
)


class UnreadableFileError(AudioFormatError):
    """A file in a format that libsndfile knows holds nothing that it can read."""


class _EmptyFileError(UnreadableFileError):
    """Its header says that it holds nothing."""


#: What `open_input` gives; both kinds have the same attributes and methods.
SoundInput: TypeAlias = "InputFile | ContainerFile"


def open_input(path: Path) -> SoundInput:
    """Open a sound file with libsndfile, or with PyAV where libsndfile does not read it.

    Raises:
        AudioFormatError: the file is not there, empty, or not sound that either of them reads.
        RtsrError: it holds no samples.
    """
    try:
        return InputFile(path)
    except (UnknownFormatError, UnreadableFileError) as error:
        if not path.is_file():  # what was read from a pipe is gone
            raise
        if isinstance(error, _EmptyFileError) and wav_is_whole(path):
            # FFmpeg would take what stands behind an empty sound for the sound.
            raise
        try:
            return ContainerFile(path)
        except ImportError:
            raise error from None
        except RtsrError as other:
            # What libsndfile knows it has the better words for.
            if isinstance(error, UnreadableFileError):
                raise error from None
            if not isinstance(other, UnknownFormatError):
                raise
            raise AudioFormatError(
                f"Input file '{path}' is not a sound file that can be read, or its beginning is "
                "damaged: neither libsndfile nor FFmpeg (through PyAV) knows its format."
            ) from None


class InputFile(Closing):
    """A sound file opened for reading with libsndfile.

    Attributes:
        frames: length that the file promises, or an estimate where it does not say.
        length_is_stated: whether it promises one.
        speakers: mask of the speakers that the channels are for, 0 if unknown.
        tags: title, artist and the like, by libsndfile's names.
        missing_frames: frames that it promised and that could not be read, known at the end.
        truncated: whether a part of its stream is missing, also where nothing says how much;
            known at the end.

    Raises:
        AudioFormatError: the file is not there, empty, or not audio that libsndfile reads; an
            `UnreadableFileError` where another library may do better.
    """

    def __init__(self, path: Path) -> None:
        import soundfile

        from rtsr.audio.streamed_file import StreamedFile

        _check_readable(path)
        self.path = path
        self._decoding_error = soundfile.LibsndfileError
        self._is_mpeg = _looks_like_mpeg(path)
        try:
            with _quiet_decoder(self._is_mpeg):
                self._file: Any = StreamedFile(native_name(path))
        except (soundfile.LibsndfileError, TypeError) as error:
            raise _refusal(path, error) from None
        if self._file.format in _NOT_FROM_PIPES and not path.is_file():
            self.close()
            raise AudioFormatError(
                f"Input '{path}' is a pipe or a device, and {self._file.format} cannot be read "
                "from one; save it as a file first."
            )
        self.rate = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        self.frames = int(self._file.frames)
        self.subtype = str(self._file.subtype)
        kind, log = self._file.format, self._file.extra_info
        self.speakers = speakers_of(kind, log, self.channels)
        self.tags = tags_of(self._file)
        self._order = order_in(kind, self.subtype, log, self.channels)
        self.length_is_stated = self.frames < _UNKNOWN_FRAMES
        if not self.length_is_stated:
            # FLAC needs about a byte for each sample of 16 bits.
            self.frames = max(1, path.stat().st_size // self.channels)
        self.missing_frames = self._cut_off_frames()
        self.truncated = self.missing_frames > 0
        self._spare_frames = 0
        if self._file.format == "MP3":
            counted = counted_mp3_samples(path) if path.is_file() else None
            self._spare_frames = _PADDING_FRAMES if counted is None else _MISCOUNTED_FRAMES
            self.frames = counted if counted and counted > 0 else self.frames
            self.truncated = path.is_file() and mp3_goes_on(path)
        elif self._file.format == "OGG" and path.is_file():
            self.truncated = ogg_ends_early(path) or ogg_goes_on(path)
        if self.frames <= 0 and self.truncated:
            self.close()
            raise UnreadableFileError(
                f"Input file '{path}' ends before its stream does, and no sample of it is whole."
            )
        if self.frames <= 0:
            self.close()
            raise _EmptyFileError(
                f"Input file '{path}' holds no samples; give one with some sound in it."
            )

    def blocks(self) -> Iterator[Audio]:
        """Yield float32 ``(frames, channels)`` until the end, or until nothing can be decoded."""
        done = 0
        failed = False
        while not failed:
            # Decoders give what they have before they fail, but not how much that is.
            block = np.full((BLOCK_FRAMES, self.channels), np.nan, np.float32)
            try:
                with _quiet_decoder(self._is_mpeg):
                    block = self._file.read(dtype="float32", out=block)
            except self._decoding_error:
                failed = True
                block = _filled(block)
            if not len(block):
                break
            done += len(block)
            yield block if self._order is None else block[:, self._order]
        if self.length_is_stated and self.frames - done > self._spare_frames:
            self.missing_frames += self.frames - done
        lost_page = self._file.format == "OGG" and _LOST_PAGE.search(self._file.extra_info)
        if failed or self.missing_frames or lost_page:
            self.truncated = True

    def close(self) -> None:
        """Close the file."""
        with _quiet_decoder(self._is_mpeg):
            self._file.close()

    def _cut_off_frames(self) -> int:
        log = self._file.extra_info
        for match in _CORRECTED_LENGTH.finditer(log):
            promised, present = int(match[1]), int(match[2])
            if 0 < present < promised and not _is_unknown(promised):
                return round(self.frames * (promised - present) / present)
        if frames := _CORRECTED_FRAMES.search(log):
            promised = int(frames[1])
            return 0 if _is_unknown(promised) else max(0, promised - self.frames)
        size, frame_bytes = _CORRECTED_W64.search(log), _BLOCK_ALIGN.search(log)
        if size and frame_bytes:
            promised, present = int(size[1]), int(size[2])
            if present < promised and not _is_unknown(promised):
                return (promised - present) // max(1, int(frame_bytes[1]))
        return 0


def _filled(block: Audio) -> Audio:
    """Return the samples before the first that is not a number."""
    empty = np.isnan(block[:, -1])
    return block[: int(empty.argmax())] if empty.any() else block


def _is_unknown(length: int) -> bool:
    return any(first <= length < end for first, end in _UNKNOWN_LENGTHS)


def native_name(path: Path) -> str | bytes:
    """Return a path as libsndfile takes it, also where it is not UTF-8."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def is_stream(path: Path) -> bool:
    """Return whether a path leads to what is read only once: a pipe or a device.

    Raises:
        AudioFormatError: the system refuses to look, as where a name is too long.
    """
    try:
        return path.exists() and not (path.is_file() or path.is_dir())
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None


def _check_readable(path: Path) -> None:
    streams = is_stream(path)
    if not path.exists():
        raise AudioFormatError(f"Input file '{path}' does not exist.")
    if path.is_dir():
        raise AudioFormatError(f"Input '{path}' is a folder; give one sound file.")
    if streams:
        # A pipe that is opened and closed loses its writer, so that libsndfile alone opens it.
        if not os.access(path, os.R_OK):
            raise _unreadable(path, os.strerror(errno.EACCES))
        return
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    if empty:
        raise AudioFormatError(f"Input file '{path}' is empty (0 bytes).")
    # libsndfile's MP3 decoder believes the extension and complains on stderr by itself.
    if path.suffix.lower() == ".mp3" and not _holds_mpeg_header(path):
        raise UnknownFormatError(_NOT_A_SOUND_FILE.format(path=path))


def _unreadable(path: Path, reason: str) -> AudioFormatError:
    return AudioFormatError(f"Input file '{path}' cannot be read: {reason}.")


def _refusal(path: Path, error: Exception) -> AudioFormatError:
    if isinstance(error, TypeError):
        return AudioFormatError(
            f"Input file '{path}' is raw PCM without a header; "
            "send it through `rtsr pipe`, which is told its rate and format."
        )
    reason = str(error).split(": ", 1)[-1].rstrip(".")
    if "not recognised" in reason:
        return UnknownFormatError(_NOT_A_SOUND_FILE.format(path=path))
    if "System error" in reason and not path.is_file():  # as of a socket
        return _unreadable(path, "the system does not open it")
    if not path.is_file():  # FLAC, for one, has libsndfile seek, and then say that it is damaged
        return AudioFormatError(
            f"Input '{path}' cannot be read from a pipe or a device: its format needs a file, or "
            "it is damaged; save it as a file first."
        )
    if "does not exist" in reason:  # what libsndfile says of any MP3 that it cannot decode
        return UnreadableFileError(f"Input file '{path}' is damaged and cannot be read.")
    if "malformed" in reason and _is_cut_off_ogg(path):
        return UnreadableFileError(
            f"Input file '{path}' ends before its stream does, and no sample of it is whole."
        )
    return UnreadableFileError(f"Input file '{path}' is damaged and cannot be read ({reason}).")


@contextlib.contextmanager
def _quiet_decoder(is_mpeg: bool) -> Iterator[None]:
    """Keep libmpg123, which comments on damage by itself, from writing to stderr."""
    if not is_mpeg:
        yield
        return
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _looks_like_mpeg(path: Path) -> bool:
    if path.suffix.lower() == ".mp3":
        return True
    if not path.is_file():  # what is read from a pipe here would be missing later
        return False
    with path.open("rb") as file:
        start = file.read(3)
    return start == b"ID3" or (start[:1] == b"\xff" and start[1:2] >= b"\xe0")


def _is_cut_off_ogg(path: Path) -> bool:
    with path.open("rb") as file:
        is_ogg = file.read(4) == b"OggS"
    return is_ogg and ogg_ends_early(path)


def _holds_mpeg_header(path: Path) -> bool:
    """Whether an MPEG audio frame, or another container, begins where it should."""
    with path.open("rb") as file:
        start = file.read(10)
        if start[:3] == b"ID3" and len(start) == 10:
            file.seek(10 + (start[6] << 21 | start[7] << 14 | start[8] << 7 | start[9]))
        elif start[:4] in (b"RIFF", b"OggS", b"fLaC", b"FORM"):
            return True
        else:
            file.seek(0)
        data = file.read(_MPEG_SEARCH_BYTES)
    place = data.find(b"\xff")
    while 0 <= place < len(data) - 2:
        version_and_layer, rates = data[place + 1], data[place + 2]
        if (
            version_and_layer & 0xE0 == 0xE0
            and version_and_layer & 0x18 != 0x08
            and version_and_layer & 0x06
            and rates & 0xF0 != 0xF0
            and rates & 0x0C != 0x0C
        ):
            return True
        place = data.find(b"\xff", place + 1)
    return False

"""Reading sound that libsndfile does not know, such as M4A, WebM and AMR, through PyAV."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.audio.speakers import speakers_of_names
from rtsr.audio.tags import tags_of_container
from rtsr.closing import Closing
from rtsr.errors import AudioFormatError, RtsrError

# FFmpeg's names. Playlists are not among them: they could make it open other files and addresses.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,amr,amrnb,amrwb,aac,ac3,eac3,asf,avi,flv,mpegts,mpeg,"
    "ape,wv,tta,ogg,caf,wav,w64"
)
# Containers whose header states the length; elsewhere FFmpeg estimates it from the bit rate.
_LENGTH_IS_STATED = {"mov", "matroska"}
# Coders without loss, by FFmpeg's names; others have no sample format of their own.
_LOSSLESS = ("alac", "ape", "flac", "pcm_", "tta", "wavpack", "wmalossless")
_SUBTYPES = {"s32": "PCM_24", "flt": "FLOAT", "dbl": "DOUBLE"}
# Headers count whole frames of the coder, and those of WebM whole milliseconds.
_MISCOUNTED_SECONDS = 0.1


class UnknownFormatError(AudioFormatError):
    """A file is in no format that the library at hand knows."""


class _Bytes(io.FileIO):
    """The bytes of a file for PyAV, which writes what a seek raises to stderr."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go there, or to the end where a damaged header points to no place of any file."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return super().seek(0, os.SEEK_END)


class ContainerFile(Closing):
    """A sound file, or the first sound of a film, opened for reading through PyAV.

    Attributes:
        path: of the file.
        rate: samples per second.
        channels: number of channels.
        subtype: sample format for an output of the same kind; lossy coders have none of their own.
        speakers: mask of the speakers that the channels are for, 0 if unknown.
        tags: title, artist and the like, by libsndfile's names.
        frames: length that the file promises, or an estimate.
        length_is_stated: whether it promises one.
        missing_frames: frames that it promised and that could not be read, known at the end.
        truncated: whether a part of its stream is missing, known at the end.

    Raises:
        ImportError: PyAV is not installed.
        UnknownFormatError: PyAV does not read the file either.
        AudioFormatError: it holds no sound.
        RtsrError: it holds no samples.
    """

    def __init__(self, path: Path) -> None:
        import av

        self.path = path
        self._av = av
        self._failures = (av.FFmpegError, OSError, ValueError)
        # Opened here and handed over, so that no name is taken for an address.
        self._bytes = _Bytes(os.fspath(path))
        self._container: Any = None
        try:
            self._container = av.open(
                self._bytes, options={"format_whitelist": _CONTAINERS}, metadata_errors="replace"
            )
            streams = self._container.streams.audio
            if not streams:
                raise AudioFormatError(f"Input file '{path}' holds no sound, only other streams.")
            self.truncated = False
            self._decoded = self._frames(streams[0])
            first: Any = next(self._decoded, None)
        except self._failures as error:
            self.close()
            raise UnknownFormatError(f"Input file '{path}' cannot be decoded ({error}).") from None
        except BaseException:
            self.close()
            raise
        if first is None and self.truncated:
            self.close()
            raise UnknownFormatError(f"Input file '{path}' cannot be decoded.")
        if first is None:
            self.close()
            raise RtsrError(
                f"Input file '{path}' holds no samples; give one with some sound in it."
            )
        self._first = first
        self.rate = int(first.sample_rate)
        self.channels = int(first.layout.nb_channels)
        self.subtype = _subtype(streams[0].codec_context.name, first.format.name)
        self.speakers = speakers_of_names([channel.name for channel in first.layout.channels])
        self.tags = tags_of_container(self._container.metadata, streams[0].metadata)
        self.frames = round(_seconds(self._container, streams[0]) * self.rate)
        self.length_is_stated = self.frames > 0
        self.missing_frames = 0

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 ``(frames, channels)`` of what can be decoded, until the end."""
        done = 0
        to_float = self._av.AudioResampler("flt", self._first.layout, self.rate)
        try:
            for frame in itertools.chain([self._first], self._decoded, [None]):
                for part in to_float.resample(frame):
                    block = np.asarray(part.to_ndarray(), np.float32).reshape(-1, self.channels)
                    done += len(block)
                    yield block
        except self._failures:
            self.truncated = True
        missing = self.frames - done
        stated = _LENGTH_IS_STATED & set(self._container.format.name.split(","))
        if stated and missing > _MISCOUNTED_SECONDS * self.rate:
            self.missing_frames = missing
            self.truncated = True

    def _frames(self, stream: Any) -> Iterator[Any]:
        """Decode packet by packet; one that is damaged does not cost those behind it."""
        for packet in self._container.demux(stream):
            try:
                yield from packet.decode()
            except self._failures:
                self.truncated = True

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
        self._bytes.close()


def _subtype(coder: str, sample_format: str) -> str:
    if not coder.startswith(_LOSSLESS):
        return "PCM_16"
    if coder.startswith("pcm_s32"):
        return "PCM_32"
    return _SUBTYPES.get(sample_format.removesuffix("p"), "PCM_16")


def _seconds(container: Any, stream: Any) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6

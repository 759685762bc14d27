"""Writing a sound file that lies under its final name only when it is whole."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.audio.reader import native_name
from rtsr.audio.speakers import order_in, write_speakers
from rtsr.audio.tags import write_tags
from rtsr.errors import AudioFormatError, RtsrError
from rtsr.whole_file import missing_folder, name_beside

Audio = NDArray[np.float32]

_FORMAT_OF_EXTENSION = {
    "aif": "AIFF",
    "aifc": "AIFF",
    "oga": "OGG",
    "opus": "OGG",
    "snd": "AU",
    "wave": "WAV",
}
# Without a header, or with one in a file of its own, which a rename would leave behind.
_UNWRITTEN = ("RAW", "SD2")
# Sample formats that libsndfile writes and does not read.
_UNREADABLE = "DWVW"
_SUGGESTED = "wav, flac, ogg, opus, mp3, aiff, caf, au, w64"

# Bit depths that hold what rtsr adds; 8 bits and telephone codes would bury it in their noise.
_KEPT_SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
_FINE_SUBTYPES = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")
_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_INTEGER_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
# G.721 and G.723 predict, and where that overshoots full scale their decoders wrap round: 1 dB is
# left for it.
_LARGEST_PREDICTED = 10.0 ** (-1.0 / 20.0)
# What a format's rounding of a rate may be: half a cent.
_RATE_TOLERANCE = 3e-4
# What a WAV header can hold together with the speakers.
_EXTENSIBLE_SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# WAV and AIFF files count their bytes in 32 bits; some room is left for their headers.
LARGEST = 2**32 - 2**16
# The length that a decoder reports may differ by what its encoder pads.
_LOSSY_SUBTYPES = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")


class OutputFile:
    """A sound file that is written beside its final place, and renamed by :meth:`commit`.

    Leaving the ``with`` block without a commit removes what was written.

    Args:
        frames: expected length; decides whether a WAV file needs 64-bit sizes (RF64).
        input_subtype: sample format of the input, kept where the output can hold it and it is
            fine enough.
        subtype: sample format to use instead, as libsndfile names it.
        speakers: mask of the speakers that the channels are for, 0 if unknown; a WAV file of more
            than two channels tells them.
        tags: title, artist and the like, written where the format has them.
        length_is_stated: whether ``frames`` is more than a guess.

    Attributes:
        clipped_samples: samples beyond the largest that the sample format holds, and held there.
            FLOAT, DOUBLE, Vorbis, Opus and MP3 hold all.

    Raises:
        AudioFormatError: extension, sample format, rate or channels do not go together.
        RtsrError: the place cannot be written.
    """

    def __init__(
        self,
        path: Path,
        rate: int,
        channels: int,
        frames: int,
        input_subtype: str = "PCM_16",
        subtype: str | None = None,
        speakers: int = 0,
        tags: Mapping[str, str] | None = None,
        length_is_stated: bool = True,
    ) -> None:
        import soundfile

        self.path = path
        self.format = _choose_format(soundfile, path)
        self.subtype = _choose_subtype(soundfile, path, self.format, input_subtype, subtype)
        size = frames * channels * _BYTES.get(self.subtype, 1)
        if self.format == "WAV" and size > LARGEST:
            self.format = "RF64"
        elif self.format == "AIFF" and size > LARGEST and length_is_stated:
            raise self._too_large()
        self._speakers = speakers if channels > 2 and self.format in ("WAV", "RF64") else 0
        if self._speakers and self.format == "WAV" and self.subtype in _EXTENSIBLE_SUBTYPES:
            self.format = "WAVEX"
        self._order = order_in(self.format, self.subtype, "", channels)
        self.clipped_samples = 0
        self.frames = 0
        self._soundfile = soundfile
        self._final = _writable_place(path)
        self._beside = name_beside(self._final)
        self._file: Any = None
        self._create()
        layout = {
            "samplerate": rate,
            "channels": channels,
            "format": self.format,
            "subtype": self.subtype,
        }
        try:
            if abs(_rate_told(soundfile, layout) - rate) > _RATE_TOLERANCE * rate:
                raise self._no_such_layout(rate, channels)
            self._file = soundfile.SoundFile(native_name(self._beside), "w", **layout)
            write_tags(self._file, tags or {})
        except soundfile.LibsndfileError:
            self.discard()
            if _disk_is_full(self._beside.parent):
                raise RtsrError(
                    f"Output '{path}' could not be written: the disk is full."
                ) from None
            raise self._no_such_layout(rate, channels) from None
        except BaseException:
            self.discard()
            raise

    def write(self, block: Audio) -> None:
        """Append float32 ``(frames, channels)`` in [-1, 1].

        Raises:
            AudioFormatError: the file would be larger than its format allows.
            RtsrError: the disk is full or the file cannot be written for another reason.
        """
        if self._order is not None:
            stored = np.empty_like(block)
            stored[:, self._order] = block
            block = stored
        samples = self._as_stored(block)
        held = (self.frames + len(block)) * block.shape[1] * _BYTES.get(self.subtype, 1)
        if self.format in ("WAV", "WAVEX", "AIFF") and held > LARGEST:
            raise self._too_large()
        try:
            self._file.write(samples)
        except (self._soundfile.LibsndfileError, AssertionError, OSError) as error:
            raise self._write_error(error) from None
        self.frames += len(block)

    def commit(self) -> None:
        """Close the file, check that it is whole, and give it its final name.

        Raises:
            RtsrError: it is not whole, for example because the disk is full.
        """
        try:
            self._file.close()
            if self._speakers:
                write_speakers(self._beside, self._speakers)
            with self._beside.open("rb+") as file:
                os.fsync(file.fileno())
            held = int(self._soundfile.info(native_name(self._beside)).frames)
        except (self._soundfile.LibsndfileError, OSError) as error:
            raise self._write_error(error) from None
        tolerance = 4800 if self.subtype in _LOSSY_SUBTYPES else 0
        if held < self.frames - tolerance:
            raise self._write_error(None)
        try:
            if self._final.exists():
                # What is private stays so.
                shutil.copymode(self._final, self._beside)
            os.replace(self._beside, self._final)
        except OSError as error:
            raise self._write_error(error) from None

    def discard(self) -> None:
        """Remove what was written; does nothing after a commit."""
        if self._file is not None and not self._file.closed:
            # It often cannot be written to its end, and is removed now.
            with contextlib.suppress(self._soundfile.LibsndfileError):
                self._file.close()
        self._beside.unlink(missing_ok=True)

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def _create(self) -> None:
        try:
            # Created here rather than by libsndfile, whose errors do not say what is wrong.
            with self._beside.open("xb"):
                pass
        except OSError as error:
            raise RtsrError(
                f"Output '{self.path}' cannot be written: {error.strerror or error}."
            ) from None

    def _as_stored(self, block: Audio) -> NDArray[Any]:
        bits = _INTEGER_BITS.get(self.subtype)
        if bits is None:
            held = np.clip(block, *_range(self.subtype))
            self.clipped_samples += int(np.count_nonzero(held != block))
            return held
        # libsndfile would cut the fraction off; rounded, what was read is written back bit for bit.
        full_scale = 2.0 ** (bits - 1)
        scaled = np.rint(
            block * full_scale if bits <= 16 else block.astype(np.float64) * full_scale
        )
        self.clipped_samples += int(
            np.count_nonzero((scaled < -full_scale) | (scaled >= full_scale))
        )
        np.clip(scaled, -full_scale, full_scale - 1, out=scaled)
        if bits <= 16:
            return scaled.astype(np.int16) << (16 - bits)
        return scaled.astype(np.int32) << (32 - bits)

    def _no_such_layout(self, rate: int, channels: int) -> AudioFormatError:
        return AudioFormatError(
            f"Output '{self.path}' ({self.format}, {self.subtype}) cannot hold {channels} "
            f"channel(s) at {rate} Hz; write wav or flac instead."
        )

    def _too_large(self) -> AudioFormatError:
        return AudioFormatError(
            f"Output '{self.path}' would be larger than 4 GiB, which such a file cannot hold; "
            "write flac, w64 or caf instead."
        )

    def _write_error(self, error: Exception | None) -> RtsrError:
        if _disk_is_full(self._beside.parent):
            reason = "the disk is full"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            reason = "the system refused to write; the disk or a quota may be full"
        return RtsrError(f"Output '{self.path}' could not be written: {reason}.")


def _disk_is_full(folder: Path) -> bool:
    try:
        status = os.statvfs(folder)
    except (OSError, AttributeError):  # not on Windows
        return False
    return status.f_bavail * status.f_frsize < 1 << 16


def _choose_format(soundfile: Any, path: Path) -> str:
    extension = path.suffix.lstrip(".").lower()
    name = _FORMAT_OF_EXTENSION.get(extension, extension.upper())
    if name in _UNWRITTEN or name not in soundfile.available_formats():
        found = f"'.{extension}'" if extension else "no extension"
        raise AudioFormatError(
            f"Output '{path}' has {found}, which names no format that can be written; "
            f"use one of {_SUGGESTED}."
        )
    return name


def _choose_subtype(
    soundfile: Any, path: Path, file_format: str, input_subtype: str, wanted: str | None
) -> str:
    if wanted is not None:
        known = [
            each
            for each in soundfile.available_subtypes(file_format)
            if not each.startswith(_UNREADABLE)
        ]
        if not isinstance(wanted, str) or wanted.upper() not in known:
            raise AudioFormatError(
                f"Sample format {wanted!r} does not exist in {file_format} files; "
                f"use one of {', '.join(known)}."
            )
        return wanted.upper()
    if path.suffix.lower() == ".opus":
        return "OPUS"
    candidates = [input_subtype] if input_subtype in _KEPT_SUBTYPES else []
    if input_subtype in _FINE_SUBTYPES:
        candidates.append("PCM_24")
    candidates.append("PCM_16")
    for name in candidates:
        if soundfile.check_format(file_format, name):
            return name
    return str(soundfile.default_subtype(file_format))


def _rate_told(soundfile: Any, layout: Mapping[str, Any]) -> int:
    """Return the rate that a file of this layout will say it has: some have room for few."""
    with io.BytesIO() as memory:
        with soundfile.SoundFile(memory, "w", **layout) as file:
            file.write(np.zeros((64, layout["channels"]), np.float32))
        memory.seek(0)
        return int(soundfile.info(memory).samplerate)


def _range(subtype: str) -> tuple[np.float32, np.float32]:
    """Return the lowest and highest sample of a format that is not PCM.

    What is beyond, libsndfile lets wrap round in telephone codes and ADPCM, or looks it up behind
    the end of a table.
    """
    if subtype in ("FLOAT", "DOUBLE", *_LOSSY_SUBTYPES):
        return np.float32(-np.inf), np.float32(np.inf)
    if subtype.startswith("G72"):
        return np.float32(-_LARGEST_PREDICTED), np.float32(_LARGEST_PREDICTED)
    bits = int(subtype[5:]) if subtype.startswith("ALAC_") else 16
    return np.float32(-1.0), np.float32(1.0 - 2.0 ** -min(bits - 1, 24))


def _writable_place(path: Path) -> Path:
    """Where the file will really lie: a link is followed, not replaced."""
    final = Path(os.path.realpath(path))
    if final.is_dir():
        raise RtsrError(f"Output '{path}' is a folder; give the name of a file.")
    if final.exists() and not final.is_file():
        raise RtsrError(f"Output '{path}' is a device or a pipe; write a file, or use `rtsr pipe`.")
    if not final.parent.is_dir():
        folder = missing_folder(path, final)
        raise RtsrError(f"Output '{path}' cannot be written: there is no folder '{folder}'.")
    if final.exists() and not os.access(final, os.W_OK):
        raise RtsrError(f"Output '{path}' cannot be written: the file is write-protected.")
    return final

"""Raw PCM in, raw PCM out, through file descriptors: for ``ffmpeg``, ``sox`` and the like."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.errors import ArgumentError, AudioFormatError, RtsrError
from rtsr.upsampler import Upsampler

#: sample formats by the names that sox and ffmpeg users know: always little-endian
FORMATS: dict[str, np.dtype[Any]] = {"s16": np.dtype("<i2"), "f32": np.dtype("<f4")}

# A pipe holds this much on most systems: a busy sender is read in few calls, a slow one at once.
_READ_BYTES = 1 << 16
_FULL_SCALE = 32768.0
# How files of samples with a header begin: WAV, FLAC, Ogg, AIFF and MP3 with tags.
_HEADERS = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3")


@dataclass
class PipeReport:
    """What went through a pipe.

    Attributes:
        received: samples per channel read.
        sent: samples per channel written.
        left_over_bytes: bytes at the end that made no whole sample of all channels.
        clipped_samples: output samples held at full scale.
        cutoff_hz: where the content of the input's end ends, as given or as measured; 0 where there
            was no input.
    """

    received: int = 0
    sent: int = 0
    left_over_bytes: int = 0
    clipped_samples: int = 0
    cutoff_hz: float = 0.0


def run_pipe(
    upsampler: Upsampler,
    source: int,
    sink: int,
    *,
    input_format: str = "s16",
    output_format: str | None = None,
    drop_latency: bool = False,
) -> PipeReport:
    """Enhance interleaved PCM from one file descriptor to another until the end of the input.

    Whatever has arrived is processed and written at once: nothing waits for a buffer to fill.

    Args:
        upsampler: of the rates and channels of the two; it is used up.
        source: descriptor to read, for example 0.
        sink: descriptor to write, for example 1.
        input_format: ``s16`` or ``f32``.
        output_format: the same choice; that of the input if ``None``.
        drop_latency: leave out the first ``algorithmic_samples``, so that the output is aligned
            with the input and ``round(n * output_rate / input_rate)`` long.

    Raises:
        AudioFormatError: the input begins with the header of a sound file.
        BrokenPipeError: the reader of the output went away.
        RtsrError: the system refused to read or to write, as on a full disk.
    """
    reading = check_format(input_format)
    writing = check_format(output_format or input_format)
    frame_bytes = reading.itemsize * upsampler.channels
    report = PipeReport()
    early = upsampler.latency.algorithmic_samples if drop_latency else 0
    rest = b""
    data = _beginning(source)
    if data.startswith(_HEADERS):
        raise AudioFormatError(
            "The input is a sound file with a header, and a pipe takes raw samples only; use "
            "`rtsr enhance IN OUT`, or convert it with `ffmpeg -i IN -f s16le -`."
        )
    while data:
        data = rest + data
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        samples = np.frombuffer(data, reading, count=whole // reading.itemsize)
        block = _to_float(samples).reshape(-1, upsampler.channels)
        report.received += len(block)
        wide = upsampler.process(block)
        _send(sink, wide[early:], writing, report)
        early = max(0, early - len(wide))
        data = _read(source)
    report.left_over_bytes = len(rest)
    if report.received:
        report.cutoff_hz = upsampler.cutoff_hz
        tail = upsampler.flush().reshape(-1, upsampler.channels)
        _send(sink, tail[early:], writing, report)
    return report


def check_format(name: str) -> np.dtype[Any]:
    """Return the numpy type of a format's name; raise :class:`ArgumentError` for others."""
    if name not in FORMATS:
        raise ArgumentError(f"Sample format {name!r} is unknown; use one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _beginning(source: int) -> bytes:
    """Read what there is, and further while it may become the header of a file."""
    data = b""
    while any(len(data) < len(header) and header.startswith(data) for header in _HEADERS):
        more = _read(source)
        if not more:
            break
        data += more
    return data


def _read(source: int) -> bytes:
    """Read what there is, or wait for it, also where another program has said not to wait.

    A descriptor that one program has made non-blocking is that for all who share it, as a terminal.
    """
    while True:
        try:
            return os.read(source, _READ_BYTES)
        except BlockingIOError:
            select.select([source], [], [])
        except OSError as error:
            raise RtsrError(
                f"The input of the pipe cannot be read: {error.strerror or error}."
            ) from None


def _to_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(_FULL_SCALE)
    return samples.astype(np.float32, copy=False)


def _send(sink: int, block: NDArray[np.float32], dtype: np.dtype[Any], report: PipeReport) -> None:
    if not len(block):
        return
    if dtype.kind == "i":
        scaled = np.rint(block * np.float32(_FULL_SCALE))
        report.clipped_samples += int(np.count_nonzero(np.abs(scaled + 0.5) > _FULL_SCALE))
        block = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1)
    remaining = memoryview(block.astype(dtype).tobytes())
    while remaining:
        try:
            remaining = remaining[os.write(sink, remaining) :]
        except BlockingIOError:
            select.select([], [sink], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            left = len(remaining) // (dtype.itemsize * block.shape[1])
            raise RtsrError(
                f"The output of the pipe could not be written beyond its first "
                f"{report.sent + len(block) - left} samples: {error.strerror or error}."
            ) from None
    report.sent += len(block)

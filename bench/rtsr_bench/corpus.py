"""The recordings that everything is measured on, and their narrow-band versions.

Inputs are 16-bit files: a network that reads the last traces which a float resampler leaves above
the cutoff looks good on floats and fails on real files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.errors import RtsrError
from rtsr.quality.audio import read_native
from rtsr.spectra.stft import Signal
from rtsr.train.excerpt import loudest_part
from rtsr.train.listing import list_recordings

#: ViSQOL costs about 0.1 s per second of audio, so a report scores this much of each clip
MAX_SECONDS = 6.0
DOMAINS = ("speech", "effects", "music", "unknown")


class WorkFolderError(RtsrError):
    """What is made of clips cannot be written; no clip is to blame."""


@dataclass(frozen=True)
class Clip:
    """One recording to score by.

    Attributes:
        name: ``domain/stem``, with the folders in it where a stem alone would be ambiguous.
        path: of the file.
        domain: one of ``DOMAINS``.
        listed_cutoff_hz: where its content ends, if a manifest says so.
    """

    name: str
    path: Path
    domain: str
    listed_cutoff_hz: float | None = None

    @cached_property
    def measured_cutoff_hz(self) -> float:
        """Where its content ends: as listed, else measured."""
        if self.listed_cutoff_hz is not None:
            return self.listed_cutoff_hz
        samples, rate = read_first_channel(self.path)
        return measure_cutoff(samples.astype(np.float32), rate, speech=self.domain == "speech")


def list_clips(data_folder: str | Path, split: str = "valid") -> list[Clip]:
    """Return the recordings of one split, sorted by path.

    Args:
        data_folder: a corpus as :func:`rtsr.train.listing.list_recordings` takes it: with a
            ``manifest.csv``, or any folder of recordings.
        split: ``"train"`` or ``"valid"``.

    Raises:
        RtsrError: there is no such folder, its manifest is not usable, or nothing is in the split.
    """
    folder = Path(data_folder)
    listed = list_recordings(folder, split)
    domains = [one.domain if one.domain in DOMAINS else DOMAINS[-1] for one in listed]
    short = [f"{domain}/{Path(one.path).stem}" for domain, one in zip(domains, listed, strict=True)]
    times = Counter(short)
    clips: dict[str, Clip] = {}
    for one, domain, name in zip(listed, domains, short, strict=True):
        if times[name] > 1:
            # Stems of a corpus may all be alike, as in one folder of stems for each song.
            name = f"{domain}/{'-'.join(Path(one.path).parts)}"
        while name in clips:
            # x/a-b and x-a/b are not one.
            name += "-other"
        clips[name] = Clip(name, folder / one.path, domain, one.cutoff_hz)
    return list(clips.values())


def count_by_domain(clips: Sequence[Clip]) -> dict[str, int]:
    """How many clips there are of each domain that has any."""
    return {
        domain: count
        for domain in DOMAINS
        if (count := sum(clip.domain == domain for clip in clips))
    }


def folder_for(clips: Sequence[Clip], work: str | Path) -> Path:
    """Name the folder of what is made of these clips, and of this state of them."""
    states = [(clip, clip.path.stat()) for clip in clips if clip.path.is_file()]
    lines = [f"{one.name} {one.path} {now.st_size} {now.st_mtime_ns}" for one, now in states]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return Path(work) / f"clips-{digest[:12]}"


def read_first_channel(path: str | Path) -> tuple[Signal, int]:
    """Read a recording's first channel ``(samples,)``, and its rate in Hz.

    Raises:
        AudioFormatError: it is no sound file, or has no sound that numbers can hold.
    """
    samples, rate = read_native(path)
    return samples[:, 0], rate


def read_loudest(path: str | Path, seconds: float) -> tuple[Signal, int]:
    """Read the part of a recording's first channel that has most energy, and its rate in Hz.

    Raises:
        AudioFormatError: as `read_first_channel`.
    """
    samples, rate = read_first_channel(path)
    return loudest_part(samples, round(seconds * rate)), rate


def fit_length(samples: Signal, length: int) -> Signal:
    """Return ``samples`` cut, or filled up with zeros, to ``length``."""
    return np.pad(samples[:length], (0, max(0, length - samples.size)))


def resampled(samples: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    """Return samples at another rate, in line; the very same where the rates are."""
    if rate == new_rate:
        return samples
    return np.asarray(soxr.resample(samples, rate, new_rate, quality="HQ"))


def quantized(samples: np.ndarray, bits: int = 16) -> np.ndarray:
    """Return samples in [-1, 1] as a file of so many bits keeps them."""
    steps = float(1 << (bits - 1))
    return np.clip(np.rint(samples * steps), -steps, steps - 1.0) / steps


def narrow_band(samples: np.ndarray, sample_rate: int, cutoff_hz: float) -> np.ndarray:
    """Return ``samples``, one channel or a column each, at the rate 2 x cutoff, in 16 bits."""
    return quantized(resampled(samples, sample_rate, 2.0 * cutoff_hz))


def prepare_references(
    clips: Sequence[Clip], folder: str | Path, max_seconds: float = MAX_SECONDS
) -> dict[str, Path]:
    """Write the loudest part of each clip as 16-bit FLAC at its own rate, see `prepare`."""
    sources = {clip.name: clip.path for clip in clips}
    return prepare(sources, folder, ".flac", partial(read_loudest, seconds=max_seconds))


def prepare_inputs(
    references: Mapping[str, Path], folder: str | Path, cutoff_hz: float
) -> dict[str, Path]:
    """Write the 16-bit narrow-band version of each reference, see `prepare`."""

    def narrowed(reference: Path) -> tuple[Signal, int]:
        return narrow_band(*read_first_channel(reference), cutoff_hz), round(2.0 * cutoff_hz)

    return prepare(references, folder, ".wav", narrowed)


def prepare(
    sources: Mapping[str, Path],
    folder: str | Path,
    suffix: str,
    make: Callable[[Path], tuple[Any, ...]],
) -> dict[str, Path]:
    """Write what ``make`` gives of each source, as `write_whole` takes it; keep existing files.

    Returns:
        the written file of each source, by the source's name.
    """
    written = {name: Path(folder) / f"{name}{suffix}" for name in sources}
    for name, path in written.items():
        if not path.exists():
            write_whole(path, *make(sources[name]))
    return written


def write_whole(path: Path, samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> None:
    """Write a sound file that appears under its name only when it is whole.

    Raises:
        WorkFolderError: it cannot be written.
    """
    beside = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(beside, samples, rate, subtype=subtype)
        beside.replace(path)
    # The second is what soundfile raises where a disk is full.
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            beside.unlink()
        reason = getattr(error, "strerror", None) or "the disk may be full"
        raise WorkFolderError(f"'{path}' cannot be written: {reason}.") from None


def first_clips(clips: Sequence[Clip], most: int | None) -> list[Clip]:
    """Return the first ``most`` clips of each domain; all of them for ``None``."""
    return [
        clip
        for domain in DOMAINS
        for clip in [clip for clip in clips if clip.domain == domain][:most]
    ]

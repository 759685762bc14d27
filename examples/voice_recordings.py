"""The recordings of one voice: which to take, how long, and joined to files worth training on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from package_recordings import LOWEST_RATE, SHORTEST_SECONDS, Recording, read_channel

from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.errors import RtsrError
from rtsr.train.corpus import JOIN_FADE, LOSSY
from rtsr.train.decode import to_int16

FILE_SECONDS = 30.0
#: libsndfile's Vorbis coder takes 1 less its quality; this is q9, which adds nothing that is heard.
VORBIS_COMPRESSION = 0.1
#: The coder's stack does not hold a long recording in one piece.
VORBIS_BLOCK = 4096
HIGHEST_PEAK = 0.9999
#: Zeros for longer than this are no room's silence: somebody cut or gated there.
LONGEST_ZEROS_SECONDS = 0.03


@dataclass(frozen=True)
class Limits:
    """Seconds per voice and per source at most, and the lowest cutoff in Hz that is kept."""

    voice_seconds: float
    source_seconds: float
    lowest_cutoff_hz: float


@dataclass
class Clip:
    """One channel of one file, ``(samples,)`` int16, and where all of its content ends."""

    samples: np.ndarray
    rate: int
    lossy: bool
    cutoff_hz: float


def shares(lengths: Sequence[float], limits: Limits) -> list[float]:
    """Seconds to take of each voice, given what each has: what one lacks, others may use."""
    left = limits.source_seconds
    given = [0.0] * len(lengths)
    by_length = sorted(range(len(lengths)), key=lambda index: lengths[index])
    for done, index in enumerate(by_length):
        given[index] = min(lengths[index], limits.voice_seconds, left / (len(lengths) - done))
        left -= given[index]
    return given


def keep_voices(
    voices: dict[str, list[Path]], out: Path, name: str, limits: Limits, *, lossy: bool = False
) -> list[Recording]:
    """Write the voices of one source to ``out/NAME-VOICE_00.flac`` and so on.

    What was lossless stays so, as FLAC; what was not becomes Vorbis, so that the suffix tells.

    Args:
        voices: files of each voice.
        lossy: treat files that are lossless by their suffix as lossy, because they were not always.
    """
    found = {voice: [path for path in paths if _usable(path)] for voice, paths in voices.items()}
    lengths = [sum(soundfile.info(path).duration for path in paths) for paths in found.values()]
    kept: list[Recording] = []
    for (voice, paths), seconds in zip(found.items(), shares(lengths, limits), strict=True):
        clips = list(_take(paths, seconds, limits.lowest_cutoff_hz, lossy))
        for number, clip in enumerate(joined(clips)):
            cutoff = measure_cutoff(clip.samples, clip.rate, speech=True)
            if cutoff < limits.lowest_cutoff_hz or len(clip.samples) < clip.rate:
                continue
            suffix = ".ogg" if clip.lossy else ".flac"
            label = f"{name}-{voice}" if voice else name
            target = out / f"{label}_{number:02d}{suffix}"
            _write(target, clip)
            length = len(clip.samples) / clip.rate
            group = f"{name}/{voice or name}"
            kept.append(Recording(target, "", "speech", group, clip.rate, length, cutoff))
    return kept


def _usable(path: Path) -> bool:
    try:
        facts = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError):
        return False
    return facts.samplerate >= LOWEST_RATE and facts.duration >= SHORTEST_SECONDS


def _take(
    paths: Sequence[Path], seconds: float, lowest_cutoff_hz: float, lossy: bool
) -> Iterator[Clip]:
    """Clips from files in a fixed random order, until there are enough seconds."""
    for path in sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest()):
        length = soundfile.info(path).duration
        wanted = min(length, seconds)
        sound, rate = read_channel(path, 0.5 * (length - wanted), wanted)
        if sound is None:
            continue
        # What a lossy coder returns may pass full scale; clipping it would fill the band above
        # where the coder ended.
        sound = sound * min(1.0, HIGHEST_PEAK / float(np.abs(sound).max()))
        samples = without_zeros(to_int16(sound), rate)
        # Every clip, because one that a coder cut must not be joined to one that it did not.
        cutoff = measure_cutoff(samples, rate) if len(samples) else 0.0
        if cutoff < lowest_cutoff_hz:
            continue
        yield Clip(samples, rate, lossy or path.suffix.lower() in LOSSY, cutoff)
        seconds -= len(samples) / rate
        if seconds < SHORTEST_SECONDS:
            return


def without_zeros(samples: np.ndarray, rate: int) -> np.ndarray:
    """Leave out stretches of zeros that no microphone gives."""
    silent = np.concatenate([[False], samples == 0, [False]])
    edges = np.flatnonzero(silent[1:] != silent[:-1]).reshape(-1, 2)
    drop = np.zeros(len(samples), bool)
    for begin, end in edges[np.diff(edges)[:, 0] > LONGEST_ZEROS_SECONDS * rate]:
        drop[begin:end] = True
    return samples[~drop]


def joined(clips: Sequence[Clip]) -> Iterator[Clip]:
    """Clips of like kind one after the other, in pieces of at most `FILE_SECONDS`."""
    alike = sorted(clips, key=lambda clip: (clip.lossy, clip.rate, clip.cutoff_hz))
    parts: list[Clip] = []
    for clip in alike:
        pieces = -(-len(clip.samples) // int(FILE_SECONDS * clip.rate))
        for samples in np.array_split(clip.samples, pieces):
            length = sum(len(part.samples) for part in parts) + len(samples)
            other_kind = parts and (parts[0].lossy, parts[0].rate) != (clip.lossy, clip.rate)
            if parts and (other_kind or length > FILE_SECONDS * clip.rate):
                yield _one(parts)
                parts = []
            parts.append(Clip(samples, clip.rate, clip.lossy, clip.cutoff_hz))
    if parts:
        yield _one(parts)


def _one(parts: Sequence[Clip]) -> Clip:
    first = parts[0]
    if len(parts) == 1:
        return first
    faded = [_faded(part.samples) for part in parts]
    return Clip(np.concatenate(faded), first.rate, first.lossy, first.cutoff_hz)


def _faded(samples: np.ndarray) -> np.ndarray:
    """With faded ends: a join must not be a click, whose spectrum is full band."""
    fade = np.linspace(0.0, 1.0, min(JOIN_FADE, len(samples) // 2), dtype=np.float32)
    result = samples.astype(np.float32)
    result[: len(fade)] *= fade
    result[len(result) - len(fade) :] *= fade[::-1]
    return np.rint(result).astype(np.int16)


def _write(target: Path, clip: Clip) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.part")
    if clip.lossy:
        settings = {"format": "OGG", "subtype": "VORBIS", "compression_level": VORBIS_COMPRESSION}
        try:
            file = soundfile.SoundFile(beside, "w", clip.rate, 1, **settings)
        except TypeError as error:
            raise RtsrError("Writing Vorbis needs soundfile 0.13 or newer; update it.") from error
        with file:
            for begin in range(0, len(clip.samples), VORBIS_BLOCK):
                file.write(clip.samples[begin : begin + VORBIS_BLOCK])
    else:
        soundfile.write(beside, clip.samples, clip.rate, format="FLAC", subtype="PCM_16")
    beside.replace(target)

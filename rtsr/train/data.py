"""Recordings in memory: decoding a folder once, and drawing random crops from it.

A corpus is either the project's own, a folder with a ``manifest.csv``, or any folder of a user's
recordings. All of it is decoded to 48 kHz and kept as one int16 array, so that training never
waits for a disk; degrading, filtering and everything else is done on the training device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rtsr.errors import RtsrError
from rtsr.train.decode import SAMPLE_RATE, DecodedClip, UnusableFile, decode_all
from rtsr.train.listing import Listed, list_recordings

__all__ = ["DEMO_SOURCES", "DOMAIN_WEIGHTS", "SAMPLE_RATE", "Corpus", "load_corpus"]

#: The recordings, or the collections, that the demo clips are from: never trained on, so that the
#: demo is honest.
DEMO_SOURCES: tuple[str, ...] = (
    "train/speech/nabucasa-pt_BR-cadu_48k_00.ogg",
    "train/effects/sonicpi-oneshots_44k_00.ogg",
    "train/effects/sonicpi-oneshots_44k_01.ogg",
)

#: How often each domain is drawn; a domain that is not there leaves its share to the others.
DOMAIN_WEIGHTS: Mapping[str, float] = {"speech": 0.4, "music": 0.3, "effects": 0.3}

#: A 10 ms stretch whose peak is below -60 dBFS counts as silent.
SILENT_PEAK = 33
MOSTLY_SILENT = 0.7
QUIET_CROPS_KEPT = 0.05
TRIES = 12
GROWTH = 1 << 25
JOIN_FADE = 240  # 5 ms: a join must not be a click, whose spectrum is full band


@dataclass
class Corpus:
    """Decoded recordings, one after the other in one array.

    Attributes:
        samples: ``(total,)`` int16 at 48 kHz.
        starts, lengths: ``(clips,)`` int64, where each clip lies in `samples`.
        cutoffs_hz: ``(clips,)`` float32, where each clip's own content ends, measured.
        domains: the names of the domains; ``domain_codes`` ``(clips,)`` indexes them.
        names: path of each clip relative to the source folder.
        groups: speaker, track or folder of each clip.
        skipped: (name, reason) of every file that could not be used.
    """

    samples: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    cutoffs_hz: np.ndarray
    domains: list[str]
    domain_codes: np.ndarray
    names: list[str]
    groups: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def seconds(self) -> float:
        return float(self.lengths.sum()) / SAMPLE_RATE

    def clip(self, index: int) -> np.ndarray:
        """The samples of one clip, ``(samples,)`` int16, a view."""
        start = int(self.starts[index])
        return self.samples[start : start + int(self.lengths[index])]

    def describe(self) -> str:
        """One line: clips and minutes per domain, and what was skipped."""
        parts = []
        for code, domain in enumerate(self.domains):
            mine = self.domain_codes == code
            minutes = self.lengths[mine].sum() / SAMPLE_RATE / 60
            parts.append(f"{domain} {int(mine.sum())} files, {minutes:.1f} min")
        line = "; ".join(parts)
        if self.skipped:
            line += f"; skipped {len(self.skipped)}: " + ", ".join(
                f"{name} ({reason})" for name, reason in self.skipped[:5]
            )
            line += ", ..." if len(self.skipped) > 5 else ""
        return line

    def sample_batch(
        self,
        rng: np.random.Generator,
        batch: int,
        frames_samples: int,
        domain_weights: Mapping[str, float] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw random crops.

        Within a domain every second of audio is as likely as every other. Mostly silent crops are
        drawn again, except about one in twenty: a model must have heard silence.

        Args:
            rng: the only source of chance, so a seed gives the same batches again.
            batch: how many crops.
            frames_samples: length of a crop in samples.
            domain_weights: share of each domain; `DOMAIN_WEIGHTS` if None.

        Returns:
            ``(batch, frames_samples)`` float32 in [-1, 1), and ``(batch,)`` float32 Hz: above it
            a crop holds no truth (the lowest cutoff of what is in it).

        Raises:
            RtsrError: no domain with a weight above zero is in the corpus.
        """
        shares = self._shares(DOMAIN_WEIGHTS if domain_weights is None else domain_weights)
        audio = np.empty((batch, frames_samples), np.float32)
        cutoffs = np.empty(batch, np.float32)
        for row, code in enumerate(rng.choice(len(self.domains), size=batch, p=shares)):
            for _ in range(TRIES):
                crop, cutoff = self._crop(rng, int(code), frames_samples)
                if not _mostly_silent(crop) or rng.random() < QUIET_CROPS_KEPT:
                    break
            audio[row] = crop
            cutoffs[row] = cutoff
        audio *= 1.0 / 32768.0
        return audio, cutoffs

    def _shares(self, weights: Mapping[str, float]) -> np.ndarray:
        shares = np.array([max(0.0, weights.get(name, 0.0)) for name in self.domains])
        if weights is DOMAIN_WEIGHTS and shares.sum() == 0:
            shares[:] = 1.0
        if shares.sum() == 0:
            raise RtsrError(
                f"None of the domains {sorted(weights)} has a weight above zero and recordings; "
                f"this corpus has {self.domains}."
            )
        return shares / shares.sum()

    def _crop(self, rng: np.random.Generator, code: int, length: int) -> tuple[np.ndarray, float]:
        """One crop, ``(length,)`` int16, and its cutoff in Hz."""
        index = self._draw_clip(rng, code)
        clip, cutoff = self.clip(index), float(self.cutoffs_hz[index])
        if len(clip) >= length:
            start = int(rng.integers(0, len(clip) - length + 1))
            return clip[start : start + length], cutoff
        crop = np.zeros(length, np.int16)
        end = length
        join = rng.random() < 0.5
        while end > 0:
            part = clip[-end:]
            faded = part.astype(np.float32)
            fade = min(JOIN_FADE, len(part) // 2)
            ramp = (np.arange(fade, dtype=np.float32) + 0.5) / max(1, fade)
            faded[:fade] *= ramp
            if end < length:
                faded[len(faded) - fade :] *= ramp[::-1]
            crop[end - len(part) : end] = np.rint(faded)
            end -= len(part)
            if not join or end <= 0:
                break
            index = self._draw_clip(rng, code)
            clip = self.clip(index)
            cutoff = min(cutoff, float(self.cutoffs_hz[index]))
        return crop, cutoff

    def _draw_clip(self, rng: np.random.Generator, code: int) -> int:
        members, ends = self._tables()[code]
        position = rng.random() * ends[-1]
        return int(members[min(int(np.searchsorted(ends, position, side="right")), len(ends) - 1)])

    def _tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per domain: its clips, and the running total of their lengths."""
        cached: list[tuple[np.ndarray, np.ndarray]] | None = self.__dict__.get("_draw_tables")
        if cached is None:
            cached = []
            for code in range(len(self.domains)):
                members = np.flatnonzero(self.domain_codes == code)
                cached.append((members, np.cumsum(self.lengths[members])))
            self.__dict__["_draw_tables"] = cached
        return cached


def _mostly_silent(crop: np.ndarray) -> bool:
    hops = crop[: len(crop) // 480 * 480].reshape(-1, 480)
    if len(hops) == 0:
        return bool(np.max(np.abs(crop.astype(np.int32)), initial=0) < SILENT_PEAK)
    silent = (hops.max(axis=1) < SILENT_PEAK) & (hops.min(axis=1) > -SILENT_PEAK)
    return bool(silent.mean() > MOSTLY_SILENT)


def load_corpus(
    source: Path,
    split: str,
    *,
    workers: int = 2,
    limit: int | None = None,
    exclude: Sequence[str] = (),
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Decode one split of a folder of recordings into memory.

    With a ``manifest.csv`` (columns ``path`` and ``split``, and ``domain``, ``speaker_or_group``,
    ``measured_cutoff_hz`` where known) the manifest says what belongs to the split. Without one,
    every wav, flac, ogg and mp3 below `source` is used, its domain is ``unknown``, and a hash of
    its folder's and its own name puts about one file in twenty into ``valid``, the same one
    every time. The cutoff of every file is measured; a manifest's value can only lower it.

    Args:
        source: the folder.
        split: ``train`` or ``valid``.
        workers: threads that decode.
        limit: at most so many files, taken evenly from the list.
        exclude: paths relative to `source`, or shell patterns of them, to leave out;
            `DEMO_SOURCES` are always left out of ``train``.
        cache: an ``.npz`` file to keep the decoded split in; it is used again as long as the
            files and their sizes are the same, and rewritten otherwise.
        progress: called with (files done, files in total).

    Raises:
        RtsrError: the folder, the manifest or the split holds nothing that can be used.
    """
    from rtsr.train import cache as decoded_cache

    source = Path(source)
    left_out = tuple(exclude) + (DEMO_SOURCES if split == "train" else ())
    listed = list_recordings(source, split, exclude=left_out, limit=limit)
    key = decoded_cache.key_of(source, listed)
    if cache is not None:
        kept = decoded_cache.read(Path(cache), key)
        if kept is not None:
            return Corpus(**kept)
    results = decode_all(source, listed, workers=workers, progress=progress)
    corpus = _assemble(source, split, listed, results)
    if cache is not None:
        decoded_cache.write(Path(cache), key, corpus)
    return corpus


def _assemble(
    source: Path,
    split: str,
    listed: list[Listed],
    results: Iterator[DecodedClip | UnusableFile],
) -> Corpus:
    samples = np.empty(0, np.int16)
    lengths: list[int] = []
    entries: list[Listed] = []
    cutoffs: list[float] = []
    skipped: list[tuple[str, str]] = []
    filled = 0
    for entry, result in zip(listed, results, strict=True):
        if isinstance(result, UnusableFile):
            skipped.append((entry.path, result.reason))
            continue
        end = filled + len(result.samples)
        if end > len(samples):
            # Grown in place, because a list of clips and their concatenation would need twice
            # the memory, which is gigabytes.
            samples.resize(max(end, len(samples) + GROWTH), refcheck=False)
        samples[filled:end] = result.samples
        filled = end
        lengths.append(len(result.samples))
        entries.append(entry)
        cutoffs.append(result.cutoff_hz)
    if not entries:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
        raise RtsrError(
            f"None of the {len(listed)} recordings of the split '{split}' in {source} could be "
            f"used ({reasons}); give a folder of wav, flac, ogg or mp3 recordings."
        )
    samples.resize(filled, refcheck=False)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    domains = sorted({entry.domain for entry in entries})
    return Corpus(
        samples=samples,
        starts=starts,
        lengths=np.array(lengths, np.int64),
        cutoffs_hz=np.array(cutoffs, np.float32),
        domains=domains,
        domain_codes=np.array([domains.index(entry.domain) for entry in entries], np.int64),
        names=[entry.path for entry in entries],
        groups=[entry.group for entry in entries],
        skipped=skipped,
    )

"""Decoded recordings in memory, and random crops of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rtsr.errors import RtsrError
from rtsr.train.coded import CodedRows, CodedVersions
from rtsr.train.decode import SAMPLE_RATE

#: How often each domain is drawn; a domain that is not there leaves its share to the others.
DOMAIN_WEIGHTS: Mapping[str, float] = {"speech": 0.4, "music": 0.3, "effects": 0.3}

#: A 10 ms stretch whose peak is below -60 dBFS counts as silent.
SILENT_PEAK = 33
MOSTLY_SILENT = 0.7
QUIET_CROPS_KEPT = 0.05
TRIES = 12
JOIN_FADE = 240  # 5 ms: a join must not be a click, whose spectrum is full band


@dataclass
class Crops:
    """One drawn batch.

    Attributes:
        audio: ``(batch, samples)`` float32 in [-1, 1): the truth.
        cutoffs_hz: ``(batch,)`` float32: above it a crop holds no truth.
        coded: the rows that have a coded version, or None.
    """

    audio: np.ndarray
    cutoffs_hz: np.ndarray
    coded: CodedRows | None


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
        coded: coded versions of parts of the clips, where they were prepared.
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
    coded: CodedVersions | None = None

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
        if self.coded is not None:
            line += f"; {self.coded.describe()}"
        return line

    def draw(
        self,
        rng: np.random.Generator,
        batch: int,
        samples: int,
        coded_share: float = 0.0,
        domain_weights: Mapping[str, float] | None = None,
    ) -> Crops:
        """Draw random crops as :meth:`sample_batch` does, and a share of them with a coded version.

        Without coded versions, or with a share of zero, `rng` is used exactly as by
        :meth:`sample_batch`.

        Args:
            coded_share: how likely a row is to have one, from 0 to 1.
        """
        audio, cutoffs = self.sample_batch(rng, batch, samples, domain_weights)
        versions = self.coded
        if versions is None or coded_share <= 0.0 or not len(versions):
            return Crops(audio, cutoffs, None)
        rows = np.flatnonzero(rng.random(batch) < coded_share)
        coded = np.empty((len(rows), samples), np.float32)
        chances = versions.chances(
            self, DOMAIN_WEIGHTS if domain_weights is None else domain_weights
        )
        picked = np.empty(len(rows), np.int64)
        for index, row in enumerate(rows):
            for _ in range(TRIES):
                position = rng.random() * chances[-1]
                picked[index] = np.searchsorted(chances[:-1], position, side="right")
                truth, heard = versions.crop(self, rng, int(picked[index]), samples)
                if not _mostly_silent(truth) or rng.random() < QUIET_CROPS_KEPT:
                    break
            audio[row] = truth * np.float32(1.0 / 32768.0)
            coded[index] = heard * np.float32(1.0 / 32768.0)
        cutoffs[rows] = self.cutoffs_hz[versions.clips[picked]]
        return Crops(audio, cutoffs, CodedRows(rows, coded, versions.cutoffs_hz[picked]))

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

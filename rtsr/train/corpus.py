"""Decoded recordings in memory, and random crops of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rtsr.errors import RtsrError
from rtsr.timing import SAMPLE_RATE
from rtsr.train.codec_versions import CodecRows, CodecVersions
from rtsr.train.device import sent
from rtsr.train.speed import change_speed, draw_speed

#: Suffixes of lossy coders, which leave out what is masked.
LOSSY = (".ogg", ".oga", ".opus", ".mp3")
#: A voice with many minutes is drawn more often than one with few, but not in proportion: by its
#: minutes to this power. Many different voices help the model to generalise.
GROUP_POWER = 0.5
#: Music and effects that reach this far, the limit of 44.1 kHz, are complete: they have no content
#: between there and 24 kHz. The noise floor of a microphone, which speech has, continues above it.
WHOLE_HZ = 20_900.0
SPEECH = "speech"
#: domains whose clips count as speech: it, and that of a folder without a manifest
SPOKEN = (SPEECH, "unknown")
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
    """One drawn batch, put together where it is wanted.

    Attributes:
        pieces: a crop per row, int16: as many samples as it takes at its speed.
        speeds: of each row; 1 is the recording's own.
        samples: length of the rows.
        cutoffs_hz: ``(batch,)`` float32: above it a crop is no reference.
        codec_rows: the rows that have a codec-degraded version, or None.
        lossy: ``(batch,)`` bool: the reference itself went through a lossy coder, and weak parts
            of it may be missing.
        is_speech: ``(batch,)`` bool; what has no domain counts as such, too.
    """

    pieces: list[Tensor]
    speeds: list[float]
    samples: int
    cutoffs_hz: np.ndarray
    codec_rows: CodecRows | None
    lossy: np.ndarray
    is_speech: np.ndarray

    @property
    def audio(self) -> np.ndarray:
        """The reference ``(batch, samples)`` float32 in [-1, 1), in plain memory."""
        return self.on(torch.device("cpu")).numpy()

    def on(self, device: torch.device) -> Tensor:
        """Return the same on a device, without waiting; samples that are there are not sent."""
        audio = torch.empty(len(self.pieces), self.samples, device=device)
        for speed in dict.fromkeys(self.speeds):
            rows = [row for row, other in enumerate(self.speeds) if other == speed]
            pieces = [sent(self.pieces[row], device) for row in rows]
            group = torch.stack(pieces).float()
            if speed != 1.0:
                group = change_speed(group, self.samples)
            audio[sent(torch.from_numpy(np.array(rows)), device)] = group
        return audio * (1.0 / 32768.0)


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
        codec_versions: codec-degraded versions of parts of the clips, where prepared.
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
    codec_versions: CodecVersions | None = None
    _resident: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def seconds(self) -> float:
        """Length of all clips in seconds."""
        return float(self.lengths.sum()) / SAMPLE_RATE

    def clip(self, index: int) -> np.ndarray:
        """Return the samples of one clip, ``(samples,)`` int16, a view."""
        start = int(self.starts[index])
        return self.samples[start : start + int(self.lengths[index])]

    def end_hz(self, index: int) -> float:
        """Return the frequency in Hz up to which a clip is a reference."""
        cutoff = float(self.cutoffs_hz[index])
        is_whole = cutoff >= WHOLE_HZ and self.domains[self.domain_codes[index]] != SPEECH
        return SAMPLE_RATE / 2 if is_whole else cutoff

    def is_lossy(self, index: int) -> bool:
        """Say whether a clip's own file is lossy, by its suffix."""
        return self.names[index].lower().endswith(LOSSY)

    @property
    def is_all_lossy(self) -> bool:
        """Whether all clips are lossy, so that none is reliable below a coder's noise floor."""
        return all(self.is_lossy(index) for index in range(len(self)))

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
        if self.codec_versions is not None:
            line += f"; {self.codec_versions.describe()}"
        return line

    def draw(
        self,
        rng: np.random.Generator,
        batch: int,
        samples: int,
        codec_share: float = 0.0,
        domain_weights: Mapping[str, float] | None = None,
        speed_share: float = 0.0,
        speeds: tuple[float, float] = (0.85, 1.5),
    ) -> Crops:
        """Draw random crops.

        Within a domain groups (voices, tracks) are drawn by the root of their minutes, and within a
        group every second is as likely as every other. Mostly silent crops are drawn again, except
        about one in twenty: a model must have been trained on silence.

        Args:
            rng: the only source of randomness, so a seed gives the same batches again. What has a
                share of zero uses none of it.
            batch: how many crops.
            samples: length of a crop.
            codec_share: probability that a row has a codec-degraded version.
            domain_weights: share of each domain; `DOMAIN_WEIGHTS` if None.
            speed_share: probability that a row is played at another speed; its end moves with it.
            speeds: the lowest and the highest speed.

        Raises:
            RtsrError: no domain with a weight above zero is in the corpus.
        """
        weights = DOMAIN_WEIGHTS if domain_weights is None else domain_weights
        shares = self.shares(weights)
        pieces: list[Tensor] = []
        played: list[float] = []
        cutoffs = np.empty(batch, np.float32)
        lossy = np.empty(batch, bool)
        codes = rng.choice(len(self.domains), size=batch, p=shares)
        for row, code in enumerate(codes):
            speed = 1.0
            if speed_share > 0.0 and rng.random() < speed_share:
                speed = draw_speed(rng, *speeds)
            for _ in range(TRIES):
                crop, cutoff, is_lossy = self._crop(rng, int(code), round(samples * speed))
                if not _mostly_silent(crop) or rng.random() < QUIET_CROPS_KEPT:
                    break
            pieces.append(self._piece(crop))
            played.append(speed)
            cutoffs[row] = min(cutoff * speed, SAMPLE_RATE / 2)
            lossy[row] = is_lossy
        is_speech = np.array([self.domains[code] in SPOKEN for code in codes])
        crops = Crops(pieces, played, samples, cutoffs, None, lossy, is_speech)
        crops.codec_rows = self._draw_codec_rows(rng, codec_share, weights, crops)
        return crops

    def place(self, device: torch.device) -> None:
        """Keep the samples on a device, too, if it is another than the host and has room."""
        if device.type == "cuda" and 2 * self.samples.nbytes < torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.from_numpy(self.samples).to(device)

    def _piece(self, crop: np.ndarray) -> Tensor:
        """Return a crop as a tensor: a view of the resident samples where it is a view of them."""
        if self._resident is not None:
            start = (crop.ctypes.data - self.samples.ctypes.data) // self.samples.itemsize
            if 0 <= start < len(self.samples):
                return self._resident[start : start + len(crop)]
        return torch.from_numpy(crop)

    def _draw_codec_rows(
        self,
        rng: np.random.Generator,
        share: float,
        weights: Mapping[str, float],
        crops: Crops,
    ) -> CodecRows | None:
        """Replace some rows by references of codec-degraded versions, and return the versions."""
        versions = self.codec_versions
        if versions is None or share <= 0.0 or not len(versions):
            return None
        rows = np.flatnonzero(rng.random(len(crops.pieces)) < share)
        coded = np.empty((len(rows), crops.samples), np.float32)
        chances = versions.chances(self, weights)
        picked = np.empty(len(rows), np.int64)
        for index, row in enumerate(rows):
            for _ in range(TRIES):
                position = rng.random() * chances[-1]
                picked[index] = np.searchsorted(chances[:-1], position, side="right")
                reference, degraded = versions.crop(self, rng, int(picked[index]), crops.samples)
                if not _mostly_silent(reference) or rng.random() < QUIET_CROPS_KEPT:
                    break
            crops.pieces[row], crops.speeds[row] = self._piece(reference), 1.0
            clip = int(versions.clips[picked[index]])
            crops.lossy[row] = self.is_lossy(clip)
            crops.is_speech[row] = self.domains[self.domain_codes[clip]] in SPOKEN
            coded[index] = degraded * np.float32(1.0 / 32768.0)
        crops.cutoffs_hz[rows] = [self.end_hz(int(clip)) for clip in versions.clips[picked]]
        return CodecRows(rows, coded, versions.cutoffs_hz[picked])

    def shares(self, weights: Mapping[str, float]) -> np.ndarray:
        """Return the share of each domain in what is drawn, as :func:`shares_of`."""
        return shares_of(self.domains, weights)

    def _crop(
        self, rng: np.random.Generator, code: int, length: int
    ) -> tuple[np.ndarray, float, bool]:
        """One crop, ``(length,)`` int16, its cutoff in Hz, and whether any of it is lossy."""
        index = self._draw_clip(rng, code)
        clip, cutoff = self.clip(index), self.end_hz(index)
        is_lossy = self.is_lossy(index)
        if len(clip) >= length:
            start = int(rng.integers(0, len(clip) - length + 1))
            return clip[start : start + length], cutoff, is_lossy
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
            cutoff = min(cutoff, self.end_hz(index))
            is_lossy = is_lossy or self.is_lossy(index)
        return crop, cutoff, is_lossy

    def _draw_clip(self, rng: np.random.Generator, code: int) -> int:
        members, ends = self._tables()[code]
        position = rng.random() * ends[-1]
        return int(members[min(int(np.searchsorted(ends, position, side="right")), len(ends) - 1)])

    def _tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per domain: its clips, and the running total of how likely each is."""
        cached: list[tuple[np.ndarray, np.ndarray]] | None = self.__dict__.get("_draw_tables")
        if cached is None:
            cached = []
            for code in range(len(self.domains)):
                members = np.flatnonzero(self.domain_codes == code)
                _, group = np.unique([self.groups[index] for index in members], return_inverse=True)
                lengths = self.lengths[members].astype(np.float64)
                totals = np.bincount(group, weights=lengths)[group]
                cached.append((members, np.cumsum(lengths * totals ** (GROUP_POWER - 1.0))))
            self.__dict__["_draw_tables"] = cached
        return cached


def shares_of(domains: Sequence[str], weights: Mapping[str, float]) -> np.ndarray:
    """Return the share of each of a corpus's domains in what is drawn.

    Raises:
        RtsrError: no domain that there are recordings of has a weight.
    """
    shares = np.array([max(0.0, weights.get(name, 0.0)) for name in domains])
    if weights == DOMAIN_WEIGHTS and shares.sum() == 0:
        # A user's folder knows no domains.
        shares[:] = 1.0
    if shares.sum() == 0:
        raise RtsrError(
            f"None of the domains {sorted(weights)} has a weight above zero and recordings; "
            f"this corpus has {list(domains)}."
        )
    return shares / shares.sum()


def _mostly_silent(crop: np.ndarray) -> bool:
    hops = crop[: len(crop) // 480 * 480].reshape(-1, 480)
    if len(hops) == 0:
        return bool(np.max(np.abs(crop.astype(np.int32)), initial=0) < SILENT_PEAK)
    silent = (hops.max(axis=1) < SILENT_PEAK) & (hops.min(axis=1) > -SILENT_PEAK)
    return bool(silent.mean() > MOSTLY_SILENT)

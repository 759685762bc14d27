"""Codec-degraded versions of parts of a corpus: prepared once, drawn as inputs while training.

Coding is too slow for every step, so a share of the corpus is coded and decoded before training,
stored as int16 beside the cache of the corpus, and drawn like it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.errors import RtsrError
from rtsr.timing import SAMPLE_RATE
from rtsr.train import codecs
from rtsr.train.codecs import CodecSetting

if TYPE_CHECKING:
    from rtsr.train.corpus import Corpus

#: Counted up when coding or measuring changes, so that old versions are not used.
VERSION = 1
#: Coded audio is at most this share of the corpus, and at most `LONGEST_MINUTES` (345 MB an hour).
CODEC_SHARE = 0.3
LONGEST_MINUTES = 60.0
#: Many clips in part teach more than a few in whole.
EXCERPT_SECONDS = 10.0
SHORTEST_SECONDS = 0.5
#: Samples coded before an excerpt and discarded: a coder's start sounds different.
LEAD_IN = 4800
#: A version that ends above this share of what its clip holds leaves nothing to learn.
HIGHEST_OF_CLIP = 0.85
LOWEST_CUTOFF_HZ = 1000.0
LARGEST_LAG = 2
FADE = 240


@dataclass
class CodecRows:
    """The rows of a batch whose input comes out of a coder.

    Attributes:
        rows: ``(rows,)`` int64 in the batch.
        audio: ``(rows, samples)`` float32, the coded version of each row's reference, aligned.
        cutoffs_hz: ``(rows,)`` float32, where the coded versions end.
    """

    rows: np.ndarray
    audio: np.ndarray
    cutoffs_hz: np.ndarray


@dataclass
class CodecVersions:
    """Coded versions, one after the other in one array.

    Attributes:
        samples: ``(total,)`` int16 at 48 kHz.
        starts, lengths: ``(versions,)`` int64, where each version lies in `samples`.
        clips: ``(versions,)`` int64, the clip of the corpus that was coded.
        offsets: ``(versions,)`` int64, where in that clip the version begins, in samples.
        cutoffs_hz: ``(versions,)`` float32, where each version's content ends, measured.
        settings: name of the coder's setting of each version.
        rejected: how many excerpts were given up, by reason.
    """

    samples: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    clips: np.ndarray
    offsets: np.ndarray
    cutoffs_hz: np.ndarray
    settings: list[str]
    rejected: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.settings)

    def describe(self) -> str:
        """Describe in a few words how much was coded, and what was left out."""
        text = f"coded {len(self)} excerpts, {self.lengths.sum() / SAMPLE_RATE / 60:.1f} min"
        if self.rejected:
            text += " (not used: "
            text += ", ".join(f"{count} {why}" for why, count in self.rejected.items()) + ")"
        return text

    def chances(self, corpus: Corpus, domain_weights: Mapping[str, float]) -> np.ndarray:
        """Return the cumulative probability of the versions, ``(versions,)``.

        Within a domain every second is as likely as every other; a domain without a weight is not
        drawn, unless no coded domain has one.
        """
        codes = corpus.domain_codes[self.clips]
        weights = np.zeros(len(self))
        for code, domain in enumerate(corpus.domains):
            mine = codes == code
            total = max(1, int(self.lengths[mine].sum()))
            weights[mine] = max(0.0, domain_weights.get(domain, 0.0)) * self.lengths[mine] / total
        return np.cumsum(weights if weights.any() else self.lengths)

    def crop(
        self, corpus: Corpus, rng: np.random.Generator, version: int, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same random crop of reference and degraded version, ``(length,)`` int16 each.

        A version shorter than `length` stands at the end of both, faded in after silence.
        """
        present = int(self.lengths[version])
        taken = min(present, length)
        begin = int(rng.integers(0, present - taken + 1))
        coded_at = int(self.starts[version]) + begin
        clip_at = int(self.offsets[version]) + begin
        coded = self.samples[coded_at : coded_at + taken]
        reference = corpus.clip(int(self.clips[version]))[clip_at : clip_at + taken]
        return _fill_up(reference, length), _fill_up(coded, length)


def _fill_up(crop: np.ndarray, length: int) -> np.ndarray:
    if len(crop) == length:
        return crop
    whole = np.zeros(length, np.int16)
    ramp = (np.arange(FADE, dtype=np.float32) + 0.5) / FADE
    whole[length - len(crop) :] = crop
    faded = whole[length - len(crop) :][:FADE]
    faded[:] = np.rint(faded * ramp[: len(faded)])
    return whole


@dataclass(frozen=True)
class _Excerpt:
    clip: int
    offset: int
    length: int
    setting: CodecSetting


def plan() -> str:
    """Return a hash of everything the versions depend on, apart from the corpus."""
    everything = (VERSION, CODEC_SHARE, LONGEST_MINUTES, EXCERPT_SECONDS, codecs.FAMILIES)
    return hashlib.sha256(repr(everything).encode()).hexdigest()


def prepare_codec_versions(
    corpus: Corpus,
    *,
    minutes: float = LONGEST_MINUTES,
    workers: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CodecVersions:
    """Code excerpts of a corpus, the settings of `rtsr.train.codecs.FAMILIES` mixed.

    Each excerpt's alignment is verified by cross-correlation and its cutoff is measured on what
    came out of the coder; one that is not aligned, or that lost nothing, is given up and counted.

    Args:
        corpus: its domains are coded in proportion to their length.
        minutes: the most to code; also at most `CODEC_SHARE` of the corpus.
        workers: threads; FFmpeg runs outside the interpreter's lock.
        seed: the same seed chooses the same excerpts and settings.
        progress: called with (excerpts done, excerpts in total).

    Raises:
        MissingDependencyError: PyAV is not installed.
        RtsrError: the corpus has no excerpt that could be coded.
    """
    codecs.load_pyav()
    excerpts = _choose(corpus, 60.0 * minutes, np.random.default_rng(seed))
    parts: list[np.ndarray] = []
    kept: list[_Excerpt] = []
    cutoffs: list[float] = []
    rejected: Counter[str] = Counter()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(lambda excerpt: _code_excerpt(corpus, excerpt), excerpts)
        for done, (excerpt, result) in enumerate(zip(excerpts, results, strict=True), 1):
            if isinstance(result, str):
                rejected[result] += 1
            else:
                parts.append(result[0])
                cutoffs.append(result[1])
                kept.append(excerpt)
            if progress is not None:
                progress(done, len(excerpts))
    if not kept:
        reasons = ", ".join(f"{count} {why}" for why, count in rejected.items()) or "all too short"
        raise RtsrError(
            f"No recording could be coded ({reasons}); give more or longer recordings, or set "
            "degrade.codec_share = 0."
        )
    lengths = np.array([excerpt.length for excerpt in kept], np.int64)
    return CodecVersions(
        samples=np.concatenate(parts),
        starts=np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
        lengths=lengths,
        clips=np.array([excerpt.clip for excerpt in kept], np.int64),
        offsets=np.array([excerpt.offset for excerpt in kept], np.int64),
        cutoffs_hz=np.array(cutoffs, np.float32),
        settings=[excerpt.setting.name for excerpt in kept],
        rejected=dict(rejected),
    )


def _choose(corpus: Corpus, seconds: float, rng: np.random.Generator) -> list[_Excerpt]:
    """Draw random excerpts of as many clips as fit into `seconds`, domain by domain."""
    seconds = min(seconds, CODEC_SHARE * corpus.seconds)
    chosen: list[_Excerpt] = []
    for code in range(len(corpus.domains)):
        members = np.flatnonzero(corpus.domain_codes == code)
        members = members[corpus.lengths[members] >= SHORTEST_SECONDS * SAMPLE_RATE]
        share = corpus.lengths[corpus.domain_codes == code].sum() / corpus.lengths.sum()
        left = int(share * seconds * SAMPLE_RATE)
        for clip in _in_rounds(members, rng):
            if left <= 0:
                break
            length = int(min(corpus.lengths[clip], EXCERPT_SECONDS * SAMPLE_RATE))
            offset = int(rng.integers(0, corpus.lengths[clip] - length + 1))
            chosen.append(_Excerpt(clip, offset, length, codecs.draw_setting(rng)))
            left -= length
    return chosen


def _in_rounds(members: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    while len(members):
        yield from (int(member) for member in rng.permutation(members))


def _code_excerpt(corpus: Corpus, excerpt: _Excerpt) -> tuple[np.ndarray, float] | str:
    """Return the codec-degraded excerpt as int16 and its cutoff in Hz, or why it is of no use."""
    clip = corpus.clip(excerpt.clip)
    lead_in = min(LEAD_IN, excerpt.offset)
    reference = clip[excerpt.offset - lead_in : excerpt.offset + excerpt.length]
    audio = codecs.code(reference, excerpt.setting)[lead_in:]
    coded = np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16)
    # Decoders bring their audio to 48 kHz with filters that leak above the coded band.
    cutoff = min(measure_cutoff(coded, SAMPLE_RATE), 0.5 * excerpt.setting.rate)
    if cutoff < LOWEST_CUTOFF_HZ:
        return "with nothing left"
    if cutoff > HIGHEST_OF_CLIP * float(corpus.cutoffs_hz[excerpt.clip]):
        return "with nothing lost"
    if abs(codecs.lag(coded, reference[lead_in:], cutoff)) > LARGEST_LAG:
        return "not aligned"
    return coded, cutoff

"""Recordings in memory: decoding a folder once, and coding a share of it once.

A corpus is either the project's own, a folder with a ``manifest.csv``, or any folder of a user's
recordings. All of it is decoded to 48 kHz and kept as one int16 array, so that training never
waits for a disk; degrading, filtering and everything else is done on the training device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rtsr.errors import RtsrError
from rtsr.timing import SAMPLE_RATE
from rtsr.train import cache as kept_audio
from rtsr.train import codecs
from rtsr.train.codec_versions import CodecVersions, plan, prepare_codec_versions
from rtsr.train.corpus import DOMAIN_WEIGHTS, Corpus, shares_of
from rtsr.train.decode import DecodedClip, UnusableFile, decode_all
from rtsr.train.listing import MANIFEST, Listed, list_recordings

__all__ = [
    "DEMO_SOURCES",
    "DOMAIN_WEIGHTS",
    "SAMPLE_RATE",
    "Corpus",
    "list_split",
    "load_corpus",
    "never_drawn",
]

#: The recordings that the demo clips are from: never trained on, so that the demo is honest.
DEMO_SOURCES: tuple[str, ...] = (
    "train/speech/nabucasa-pt_BR-cadu_48k_00.ogg",
    "train/effects/sonicpi-oneshots_44k_00.ogg",
    "train/effects/sonicpi-oneshots_44k_01.ogg",
)

GROWTH = 1 << 25


def list_split(source: Path, split: str, limit: int | None = None) -> list[Listed]:
    """List what :func:`load_corpus` decodes, which may take hours.

    Raises:
        RtsrError: the folder, the manifest or the split holds nothing that can be used.
    """
    left_out = DEMO_SOURCES if split == "train" else ()
    return list_recordings(source, split, exclude=left_out, limit=limit)


def never_drawn(listed: Sequence[Listed], weights: Mapping[str, float]) -> dict[str, int]:
    """Count the recordings of each domain that has no weight; one of zero is meant.

    Raises:
        RtsrError: no recording's domain has a weight.
    """
    counts = Counter(entry.domain for entry in listed)
    shares = shares_of(list(counts), weights)
    return {
        domain: count
        for (domain, count), share in zip(counts.items(), shares, strict=True)
        if share == 0.0 and domain not in weights
    }


def load_corpus(
    source: Path,
    split: str,
    *,
    workers: int = 2,
    limit: int | None = None,
    cache: Path | None = None,
    codec: bool = False,
    octave_rate: int = SAMPLE_RATE,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Decode one split of a folder of recordings into memory.

    With a ``manifest.csv`` (columns ``path`` and ``split``, and ``domain``, ``speaker_or_group``,
    ``measured_cutoff_hz`` where known) the manifest says what belongs to the split. Without one,
    every wav, flac, ogg and mp3 below `source` is used, its domain is ``unknown``, and a hash of
    its folder's and its own name puts about one file in twenty into ``valid``, the same one
    every time. The cutoff of every file is measured; a manifest's value can only lower it.
    `DEMO_SOURCES` are left out of ``train``.

    Args:
        source: the folder.
        split: ``train`` or ``valid``.
        workers: threads that decode.
        limit: largest number of files, taken evenly from the list.
        cache: an ``.npz`` file to keep the decoded split in; it is used again as long as the
            files and their sizes are the same, and rewritten otherwise.
        codec: also prepare codec-degraded versions, as inputs; they are stored beside `cache`, as
            ``NAME-coded.npz``, and then need no coder again.
        octave_rate: twice the Hz where an octave beyond 48 kHz ends; recordings of higher rates are
            then played slower, see :mod:`rtsr.train.octave`.
        progress: called with (files done, files in total), and then with excerpts to be coded.

    Raises:
        MissingDependencyError: `codec` is asked for and PyAV is not installed.
        RtsrError: the folder, the manifest or the split holds nothing that can be used.
    """
    source = Path(source)
    listed = list_split(source, split, limit)
    key = kept_audio.key_of(source, listed, octave_rate)
    versions = None
    if codec:
        versions = _kept_versions(cache, key)
        if versions is None:
            # Before decoding, which may take minutes.
            codecs.load_pyav()
    kept = kept_audio.read(Path(cache), key) if cache is not None else None
    if kept is not None:
        kept["skipped"] = [(name, reason) for name, reason in kept["skipped"]]
        corpus = Corpus(**kept)
    else:
        results = decode_all(
            source, listed, workers=workers, octave_rate=octave_rate, progress=progress
        )
        corpus = _assemble(source, split, listed, results)
        if cache is not None:
            kept_audio.write(Path(cache), key, corpus)
    if codec and versions is None:
        versions = prepare_codec_versions(corpus, workers=workers, progress=progress)
        if cache is not None:
            path = kept_audio.codec_path(Path(cache))
            kept_audio.write(path, _codec_key(key), versions, kept_audio.CODEC)
    corpus.codec_versions = versions
    return corpus


def _codec_key(key: str) -> str:
    return f"{key} {plan()}"


def _kept_versions(cache: Path | None, key: str) -> CodecVersions | None:
    if cache is None:
        return None
    path = kept_audio.codec_path(Path(cache))
    kept = kept_audio.read(path, _codec_key(key), kept_audio.CODEC)
    return None if kept is None else CodecVersions(**kept)


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
            f"used ({reasons}); give a folder of wav, flac, ogg or mp3 recordings, with others of "
            f"the split '{split}' in its {MANIFEST}."
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

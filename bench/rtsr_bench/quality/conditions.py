"""The ways in which the same narrow-band sound reaches a listener: files, telephones, coders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rtsr.timing import SAMPLE_RATE
from rtsr_bench.codecs import MP3_24K, MP3_64K, OPUS_16K, Coder, Signal, through_coder
from rtsr_bench.corpus import narrow_band, prepare, quantized, read_first_channel, resampled

CUTOFF_HZ = 4000.0
_LOW_RATE = 8000

#: From 16-bit samples at 8 kHz to what is written: samples, their rate, the file's sample format.
Degradation = Callable[[Signal], tuple[Signal, int, str]]


@dataclass(frozen=True)
class Condition:
    """One kind of degradation; ``title`` is what tables and pictures call it."""

    key: str
    title: str
    degrade: Degradation


def _as_it_is(narrow: Signal) -> tuple[Signal, int, str]:
    return narrow, _LOW_RATE, "PCM_16"


def _at_full_rate(narrow: Signal) -> tuple[Signal, int, str]:
    return resampled(narrow, _LOW_RATE, SAMPLE_RATE), SAMPLE_RATE, "PCM_16"


def _companded(narrow: Signal, law: str) -> tuple[Signal, int, str]:
    # libsndfile's own G.711: the file holds the telephone's 8-bit codes.
    return narrow, _LOW_RATE, law


def _coded(narrow: Signal, coder: Coder) -> tuple[Signal, int, str]:
    return *through_coder(narrow, _LOW_RATE, coder, CUTOFF_HZ), "PCM_16"


def _coded_at_full_rate(narrow: Signal, coder: Coder) -> tuple[Signal, int, str]:
    wide, rate, _ = _at_full_rate(narrow)
    return *through_coder(wide, rate, coder, CUTOFF_HZ), "PCM_16"


def _coded_and_brought_back(narrow: Signal, coder: Coder) -> tuple[Signal, int, str]:
    """As :func:`_coded`, without what the decoder's own resampler leaves above the cutoff."""
    decoded, rate, _ = _coded(narrow, coder)
    return resampled(decoded, rate, _LOW_RATE), _LOW_RATE, "PCM_16"


def _eight_bits(narrow: Signal) -> tuple[Signal, int, str]:
    return quantized(narrow, 8), _LOW_RATE, "PCM_16"


#: The first is what the others are compared with.
CONDITIONS = (
    Condition("8k", "8 kHz file", _as_it_is),
    Condition("48k", "48 kHz file", _at_full_rate),
    Condition("mu-law", "G.711 mu-law", partial(_companded, law="ULAW")),
    Condition("a-law", "G.711 A-law", partial(_companded, law="ALAW")),
    Condition("opus-8k", "Opus 16 kb/s, 8 kHz", partial(_coded_and_brought_back, coder=OPUS_16K)),
    # A player's decoder gives 48 kHz, and its resampler leaves images of the band above 4 kHz.
    Condition("opus-48k", "Opus 16 kb/s, 48 kHz", partial(_coded, coder=OPUS_16K)),
    Condition("mp3-8k", "MP3 24 kb/s, 8 kHz", partial(_coded, coder=MP3_24K)),
    Condition("mp3-48k", "MP3 64 kb/s, 48 kHz", partial(_coded_at_full_rate, coder=MP3_64K)),
    Condition("8-bit", "8 bits", _eight_bits),
)


def prepare_condition(
    condition: Condition,
    references: Mapping[str, Path],
    folder: Path,
) -> dict[str, Path]:
    """Write each reference as the condition degrades it, see :func:`~rtsr_bench.corpus.prepare`.

    Args:
        condition: which.
        references: full-band files by clip, of any rate.
        folder: gets one file per clip.

    Raises:
        MissingDependencyError, RtsrError: a coder cannot be had, see
            :func:`~rtsr_bench.codecs.through_coder`.
    """

    def degraded(reference: Path) -> tuple[Signal, int, str]:
        return condition.degrade(narrow_band(*read_first_channel(reference), CUTOFF_HZ))

    return prepare(references, folder, ".wav", degraded)

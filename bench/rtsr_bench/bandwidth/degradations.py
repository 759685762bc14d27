"""The ways in which sound of one bandwidth comes to a listener at 48 kHz.

Each takes and gives ``(samples,)`` at 48 kHz, in line to the sample and quantized to 16 bits, so
that a stream may change from one to another at any sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.signal
import soxr

from rtsr.errors import MissingDependencyError
from rtsr.quality.align import find_lag
from rtsr.timing import SAMPLE_RATE
from rtsr_bench.codecs import Coder, Signal, through_coder
from rtsr_bench.corpus import fit_length, quantized, resampled

FULL_BAND_HZ = 24000.0
#: How far off a cutoff may be that is called right, as a share of it.
TOLERANCE = 0.12


@dataclass(frozen=True)
class Degradation:
    """One way of degradation.

    Attributes:
        key: its name in tables.
        cutoff_hz: where its content ends: half of the coder's or the file's rate, or what the coder
            keeps of it.
        degrade: what it does to full-band sound.
    """

    key: str
    cutoff_hz: float
    degrade: Callable[[Signal], Signal]

    @property
    def start_hz(self) -> float:
        """What a detector that has long listened to it says."""
        return self.cutoff_hz if self.cutoff_hz == FULL_BAND_HZ else 0.975 * self.cutoff_hz

    def is_right(self, answers: np.ndarray) -> np.ndarray:
        """Which of a detector's answers in Hz are right; full band is right only as such."""
        if self.cutoff_hz == FULL_BAND_HZ:
            return answers == FULL_BAND_HZ
        return np.abs(answers / self.start_hz - 1.0) <= TOLERANCE


def _through_soxr(sound: Signal, rate: int, quality: str) -> Signal:
    low = quantized(soxr.resample(sound, SAMPLE_RATE, rate, quality=quality))
    return quantized(fit_length(soxr.resample(low, rate, SAMPLE_RATE, quality=quality), sound.size))


def _through_polyphase(sound: Signal, rate: int) -> Signal:
    """Apply the short Kaiser filter of `scipy.signal.resample_poly`, both ways."""
    factor = SAMPLE_RATE // rate
    low = quantized(scipy.signal.resample_poly(sound, 1, factor))
    return quantized(fit_length(scipy.signal.resample_poly(low, factor, 1), sound.size))


def _through_swresample(sound: Signal, rate: int) -> Signal:
    """FFmpeg's resampler, both ways."""
    low = _swresample(quantized(sound), SAMPLE_RATE, rate)
    wide = _swresample(quantized(low), rate, SAMPLE_RATE)
    lag = find_lag(sound[: wide.size], wide[: sound.size], 0.4 * rate, SAMPLE_RATE)
    return quantized(fit_length(np.roll(wide, -lag), sound.size))


def _swresample(sound: Signal, rate: int, new_rate: int) -> Signal:
    try:
        import av
    except ImportError:
        raise MissingDependencyError("Scoring after FFmpeg's resampler", "train") from None
    resampler = av.AudioResampler(format="flt", layout="mono", rate=new_rate)
    frame = av.AudioFrame.from_ndarray(
        sound.astype(np.float32)[np.newaxis], format="flt", layout="mono"
    )
    frame.sample_rate, frame.pts = rate, 0
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([one.to_ndarray().reshape(-1) for one in frames]).astype(np.float64)


def _through_coder(sound: Signal, rate: int, coder: Coder) -> Signal:
    """Coded at its own rate; what the decoder gives at another rate is brought to 48 kHz."""
    low = quantized(resampled(sound, SAMPLE_RATE, rate))
    decoded, decoded_rate = through_coder(low, rate, coder, 0.4 * rate)
    decoded = resampled(quantized(decoded), decoded_rate, SAMPLE_RATE)
    return quantized(fit_length(decoded, sound.size))


def _resampled(
    name: str, rate: int, through: Callable[..., Signal], share: float = 1.0, **options: str
) -> Degradation:
    cutoff_hz = share * rate / 2
    return Degradation(f"{name} {rate // 1000}k", cutoff_hz, partial(through, rate=rate, **options))


def _coded(name: str, cutoff_hz: float, rate: int, coder: Coder) -> Degradation:
    return Degradation(name, cutoff_hz, partial(_through_coder, rate=rate, coder=coder))


_ALL = (
    Degradation("full", FULL_BAND_HZ, quantized),
    _resampled("soxr", 24000, _through_soxr, quality="HQ"),
    _resampled("soxr", 16000, _through_soxr, quality="HQ"),
    _resampled("soxr", 8000, _through_soxr, quality="HQ"),
    # Its slope is so long that content ends well below half of the rate.
    _resampled("soxr-lq", 16000, _through_soxr, share=0.87, quality="LQ"),
    _resampled("soxr-lq", 8000, _through_soxr, share=0.87, quality="LQ"),
    _resampled("polyphase", 16000, _through_polyphase),
    _resampled("polyphase", 8000, _through_polyphase),
    _resampled("swresample", 16000, _through_swresample),
    _resampled("swresample", 8000, _through_swresample),
    # The decoder of Opus gives 48 kHz whatever was coded, as every browser has it.
    _coded("opus full", FULL_BAND_HZ, 48000, Coder("libopus", "ogg", 48000)),
    _coded("opus 12k", 12000.0, 24000, Coder("libopus", "ogg", 32000)),
    _coded("opus 8k", 8000.0, 16000, Coder("libopus", "ogg", 24000)),
    _coded("opus 6k", 6000.0, 12000, Coder("libopus", "ogg", 16000)),
    _coded("opus 4k", 4000.0, 8000, Coder("libopus", "ogg", 16000)),
    _coded("g711 a-law", 4000.0, 8000, Coder("pcm_alaw", "wav", 64000)),
    _coded("g711 mu-law", 4000.0, 8000, Coder("pcm_mulaw", "wav", 64000)),
    # At this bit rate LAME keeps no more than 6 kHz.
    _coded("mp3 16k", 6000.0, 16000, Coder("libmp3lame", "mp3", 24000)),
)
DEGRADATIONS = {degradation.key: degradation for degradation in _ALL}

#: From wide to narrow; a report takes each both ways.
SWITCHES = (
    ("full", "soxr 16k"),
    ("full", "soxr 8k"),
    ("soxr 24k", "soxr 16k"),
    ("soxr 24k", "soxr 8k"),
    ("soxr 16k", "soxr 8k"),
    ("soxr-lq 16k", "soxr-lq 8k"),
    ("polyphase 16k", "polyphase 8k"),
    ("full", "swresample 16k"),
    ("swresample 16k", "swresample 8k"),
    ("opus full", "opus 8k"),
    ("opus full", "opus 4k"),
    ("opus 12k", "opus 8k"),
    ("opus 12k", "opus 4k"),
    ("opus 8k", "opus 6k"),
    ("opus 8k", "opus 4k"),
    ("full", "g711 mu-law"),
    ("soxr 16k", "g711 a-law"),
    ("opus 8k", "g711 mu-law"),
    ("full", "mp3 16k"),
    ("mp3 16k", "g711 a-law"),
)
#: What a stream may stay in for good.
STEADY = (
    "full",
    "soxr 24k",
    "soxr 16k",
    "soxr 8k",
    "opus full",
    "opus 12k",
    "opus 8k",
    "opus 4k",
    "g711 a-law",
    "mp3 16k",
)

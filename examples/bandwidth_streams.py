"""Streams whose bandwidth is known, for `bandwidth_tracking.py`: degradations, and what they meet.

Streams are as calls and programmes are: one voice over and over with pauses, or one recording after
another. Every draw follows from a seed: two runs over one corpus get the same streams.

Each degradation takes and gives ``(samples,)`` at 48 kHz, in line to the sample and quantized to 16
bits, so that a stream may change from one to another at any sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.signal
import soxr

from rtsr.errors import MissingDependencyError, RtsrError
from rtsr.quality.align import find_lag
from rtsr.spectra.stft import Signal
from rtsr.timing import HOP, SAMPLE_RATE
from rtsr_bench.codecs import Coder, through_coder
from rtsr_bench.corpus import Clip, fit_length, quantized, read_first_channel, resampled

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
        """What a detector says that has long followed it."""
        return self.cutoff_hz if self.cutoff_hz == FULL_BAND_HZ else 0.975 * self.cutoff_hz

    def is_right(self, answers: np.ndarray) -> np.ndarray:
        """Which of a detector's answers in Hz are right; full band is right only as such."""
        if self.cutoff_hz == FULL_BAND_HZ:
            return answers == FULL_BAND_HZ
        return np.abs(answers / self.start_hz - 1.0) <= TOLERANCE


def through_soxr(sound: Signal, rate: int, quality: str) -> Signal:
    low = quantized(soxr.resample(sound, SAMPLE_RATE, rate, quality=quality))
    return quantized(fit_length(soxr.resample(low, rate, SAMPLE_RATE, quality=quality), sound.size))


def through_polyphase(sound: Signal, rate: int) -> Signal:
    """Apply the short Kaiser filter of `scipy.signal.resample_poly`, both ways."""
    factor = SAMPLE_RATE // rate
    low = quantized(scipy.signal.resample_poly(sound, 1, factor))
    return quantized(fit_length(scipy.signal.resample_poly(low, factor, 1), sound.size))


def through_swresample(sound: Signal, rate: int) -> Signal:
    """FFmpeg's resampler, both ways."""
    low = swresample(quantized(sound), SAMPLE_RATE, rate)
    wide = swresample(quantized(low), rate, SAMPLE_RATE)
    lag = find_lag(sound[: wide.size], wide[: sound.size], 0.4 * rate, SAMPLE_RATE)
    return quantized(fit_length(np.roll(wide, -lag), sound.size))


def swresample(sound: Signal, rate: int, new_rate: int) -> Signal:
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


def coded_through(sound: Signal, rate: int, coder: Coder) -> Signal:
    """Coded at its own rate; what the decoder gives at another rate is brought to 48 kHz."""
    low = quantized(resampled(sound, SAMPLE_RATE, rate))
    decoded, decoded_rate = through_coder(low, rate, coder, 0.4 * rate)
    decoded = resampled(quantized(decoded), decoded_rate, SAMPLE_RATE)
    return quantized(fit_length(decoded, sound.size))


def by_resampling(
    name: str, rate: int, through: Callable[..., Signal], share: float = 1.0, **options: str
) -> Degradation:
    cutoff_hz = share * rate / 2
    return Degradation(f"{name} {rate // 1000}k", cutoff_hz, partial(through, rate=rate, **options))


def by_coding(name: str, cutoff_hz: float, rate: int, coder: Coder) -> Degradation:
    return Degradation(name, cutoff_hz, partial(coded_through, rate=rate, coder=coder))


ALL = (
    Degradation("full", FULL_BAND_HZ, quantized),
    by_resampling("soxr", 24000, through_soxr, quality="HQ"),
    by_resampling("soxr", 16000, through_soxr, quality="HQ"),
    by_resampling("soxr", 8000, through_soxr, quality="HQ"),
    # Its slope is so long that content ends well below half of the rate.
    by_resampling("soxr-lq", 16000, through_soxr, share=0.87, quality="LQ"),
    by_resampling("soxr-lq", 8000, through_soxr, share=0.87, quality="LQ"),
    by_resampling("polyphase", 16000, through_polyphase),
    by_resampling("polyphase", 8000, through_polyphase),
    by_resampling("swresample", 16000, through_swresample),
    by_resampling("swresample", 8000, through_swresample),
    # The decoder of Opus gives 48 kHz whatever was coded, as every browser has it.
    by_coding("opus full", FULL_BAND_HZ, 48000, Coder("libopus", "ogg", 48000)),
    by_coding("opus 12k", 12000.0, 24000, Coder("libopus", "ogg", 32000)),
    by_coding("opus 8k", 8000.0, 16000, Coder("libopus", "ogg", 24000)),
    by_coding("opus 6k", 6000.0, 12000, Coder("libopus", "ogg", 16000)),
    by_coding("opus 4k", 4000.0, 8000, Coder("libopus", "ogg", 16000)),
    by_coding("g711 a-law", 4000.0, 8000, Coder("pcm_alaw", "wav", 64000)),
    by_coding("g711 mu-law", 4000.0, 8000, Coder("pcm_mulaw", "wav", 64000)),
    # At this bit rate LAME keeps no more than 6 kHz.
    by_coding("mp3 16k", 6000.0, 16000, Coder("libmp3lame", "mp3", 24000)),
)
DEGRADATIONS = {degradation.key: degradation for degradation in ALL}

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

#: Recordings that end lower have a limit of their own, and are no full band.
FULL_FROM_HZ = 18000.0
#: Level of a recording's louder half, in dB of a full-scale sine, and how far it may differ.
LEVEL_DB, LEVEL_RANGE_DB = -26.0, 6.0
#: Noise of rooms, from dead to lively, in dBFS.
ROOMS_DB = (-95.0, -80.0, -65.0)
PAUSES_SECONDS = (0.2, 1.2)
#: Of unchanging streams: how often the level changes for a while, and by how much.
QUIET_EVERY_SECONDS = (15.0, 40.0)
QUIET_DB = -20.0
FADE_SECONDS = 1.5


def full_band_clips(clips: Sequence[Clip], domain: str) -> tuple[list[Clip], list[str]]:
    """Return those of one domain that reach up to 18 kHz.

    Returns:
        them, and of each that cannot be read, or is silent, a sentence that says so.
    """
    found: list[Clip] = []
    left_out: list[str] = []
    for clip in clips:
        try:
            if clip.domain == domain and clip.measured_cutoff_hz >= FULL_FROM_HZ:
                read_clip(clip)
                found.append(clip)
        except RtsrError as error:
            left_out.append(str(error))
    return found, left_out


def read_clip(clip: Clip) -> Signal:
    """Its first channel ``(samples,)`` at 48 kHz, its louder half at `LEVEL_DB`.

    Raises:
        RtsrError: it cannot be read, or is silent.
    """
    sound, rate = read_first_channel(clip.path)
    sound = resampled(sound, rate, SAMPLE_RATE)
    whole = sound[: sound.size // HOP * HOP].reshape(-1, HOP)
    if not whole.any():
        raise RtsrError(f"The recording {clip.name} is silent.")
    power = np.mean(np.square(whole), axis=1)
    loud = power[power >= np.median(power)].mean()
    return sound * np.sqrt(0.5 * 10 ** (LEVEL_DB / 10) / loud)


def one_voice(clip: Clip, seconds: float, seed: int) -> Signal:
    """One recording over and over with pauses, in one room, at one level: ``(samples,)``."""
    random = np.random.default_rng(seed)
    sound = read_clip(clip)
    length = round(seconds * SAMPLE_RATE)
    parts: list[Signal] = []
    while sum(part.size for part in parts) < length:
        parts += [sound, np.zeros(count(random.uniform(*PAUSES_SECONDS)))]
    gain = 10 ** (random.uniform(-LEVEL_RANGE_DB, LEVEL_RANGE_DB) / 20)
    stream = gain * fit_length(np.concatenate(parts), length)
    return safe(stream + room_noise(length, random.choice(ROOMS_DB), random))


def programme(clips: Sequence[Clip], seconds: float, seed: int) -> Signal:
    """One recording after another, with pauses, fades, stretches 20 dB lower, and other rooms.

    Args:
        clips: of one domain.
        seconds: how long ``(samples,)`` it is.
        seed: of its draws.
    """
    random = np.random.default_rng(seed)
    length = round(seconds * SAMPLE_RATE)
    parts: list[Signal] = []
    while sum(part.size for part in parts) < length:
        sound = read_clip(clips[int(random.integers(len(clips)))])
        sound = sound * 10 ** (random.uniform(-LEVEL_RANGE_DB, LEVEL_RANGE_DB) / 20)
        if random.random() < 0.3:
            sound = faded(sound)
        pause = random.uniform(*PAUSES_SECONDS) if random.random() < 0.8 else 4.0
        part = np.concatenate([sound, np.zeros(count(pause))])
        parts.append(part + room_noise(part.size, random.choice(ROOMS_DB), random))
    stream = fit_length(np.concatenate(parts), length)
    return safe(stream * level_changes(length, random))


def faded(sound: Signal) -> Signal:
    """Out of nothing and back, by sine ramps."""
    ramp = np.sin(0.5 * np.pi * np.linspace(0.0, 1.0, min(count(FADE_SECONDS), sound.size // 2)))
    shape = np.ones(sound.size)
    shape[: ramp.size] = ramp
    shape[sound.size - ramp.size :] *= ramp[::-1]
    return sound * shape


def room_noise(length: int, level_db: float, random: np.random.Generator) -> Signal:
    """Noise that falls by 3 dB an octave from 200 Hz on, as rooms and microphones make it."""
    spectrum = np.fft.rfft(random.standard_normal(length))
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(length, 1.0 / SAMPLE_RATE), 200.0))
    noise = np.fft.irfft(spectrum, length)
    return noise * (10 ** (level_db / 20) / noise.std())


def level_changes(length: int, random: np.random.Generator) -> Signal:
    """Return a gain ``(length,)`` of 1 or `QUIET_DB`, changing within 10 ms."""
    gain, quiet, start = np.zeros(length), False, 0
    while start < length:
        end = start + count(random.uniform(*QUIET_EVERY_SECONDS))
        gain[start:end] = QUIET_DB if quiet else 0.0
        start, quiet = end, not quiet
    ramp = np.hanning(HOP)
    return 10 ** (np.convolve(gain, ramp / ramp.sum(), mode="same") / 20)


def count(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def safe(stream: Signal) -> Signal:
    """No louder than coders and files take."""
    return stream * min(1.0, 0.9 / np.abs(stream).max())


def hops(stream: Signal) -> Iterator[np.ndarray]:
    """Return the whole hops of a stream, ``(480, 1)`` float32 each."""
    whole = stream[: stream.size // HOP * HOP].astype(np.float32)
    return iter(whole.reshape(-1, HOP, 1))

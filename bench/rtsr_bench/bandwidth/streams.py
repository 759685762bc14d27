"""Streams as calls and programmes are: one voice over and over with pauses, or one after another.

Every draw follows from a seed: two runs over one corpus get the same streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rtsr.errors import RtsrError
from rtsr.timing import SAMPLE_RATE
from rtsr_bench.codecs import Signal
from rtsr_bench.corpus import Clip, fit_length, read_first_channel, resampled

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
    whole = sound[: sound.size // 480 * 480].reshape(-1, 480)
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
        parts += [sound, np.zeros(_samples(random.uniform(*PAUSES_SECONDS)))]
    gain = 10 ** (random.uniform(-LEVEL_RANGE_DB, LEVEL_RANGE_DB) / 20)
    stream = gain * fit_length(np.concatenate(parts), length)
    return _safe(stream + room_noise(length, random.choice(ROOMS_DB), random))


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
        part = np.concatenate([sound, np.zeros(_samples(pause))])
        parts.append(part + room_noise(part.size, random.choice(ROOMS_DB), random))
    stream = fit_length(np.concatenate(parts), length)
    return _safe(stream * _level_changes(length, random))


def faded(sound: Signal) -> Signal:
    """Out of nothing and back, by sine ramps."""
    ramp = np.sin(0.5 * np.pi * np.linspace(0.0, 1.0, min(_samples(FADE_SECONDS), sound.size // 2)))
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


def _level_changes(length: int, random: np.random.Generator) -> Signal:
    """Return a gain ``(length,)`` of 1 or `QUIET_DB`, changing within 10 ms."""
    gain, quiet, start = np.zeros(length), False, 0
    while start < length:
        end = start + _samples(random.uniform(*QUIET_EVERY_SECONDS))
        gain[start:end] = QUIET_DB if quiet else 0.0
        start, quiet = end, not quiet
    ramp = np.hanning(480)
    return 10 ** (np.convolve(gain, ramp / ramp.sum(), mode="same") / 20)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _safe(stream: Signal) -> Signal:
    """No louder than coders and files take."""
    return stream * min(1.0, 0.9 / np.abs(stream).max())


def hops(stream: Signal) -> Iterator[np.ndarray]:
    """Return the whole hops of a stream, ``(480, 1)`` float32 each."""
    whole = stream[: stream.size // 480 * 480].astype(np.float32)
    return iter(whole.reshape(-1, 480, 1))

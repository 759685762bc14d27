"""Narrow versions of full-band sound, to learn from what they lack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.timing import SAMPLE_RATE
from rtsr_kernels.resample import StreamingResampler

Audio = NDArray[np.float32]

_DITHER_SEED = 1


def degrade(sound: Audio, rate: int) -> Audio:
    """Return ``sound`` as a 16-bit file of another rate holds it, with triangular dither."""
    narrow = convert_rate(sound, SAMPLE_RATE, rate)
    random = np.random.default_rng(_DITHER_SEED)
    dither = random.random(narrow.shape) - random.random(narrow.shape)
    codes = np.clip(np.rint(narrow * 32768.0 + dither), -32768, 32767)
    return (codes / 32768.0).astype(np.float32)


def convert_rate(samples: Audio, rate: int, new_rate: int) -> Audio:
    """Convert ``(samples, channels)`` and take the conversion's delay out."""
    if rate == new_rate:
        return samples
    resampler = StreamingResampler(rate, new_rate, samples.shape[1])
    tail = np.zeros((rate // 10, samples.shape[1]), np.float32)
    converted = resampler.process(np.concatenate([samples, tail]))
    length = round(len(samples) * new_rate / rate)
    return converted[resampler.delay : resampler.delay + length]

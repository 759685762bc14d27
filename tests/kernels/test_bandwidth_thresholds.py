"""The detector's thresholds by known answers: what counts as sound."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.bandwidth.detector import BandwidthDetector

HOP = 480


def noise(seconds: float, cutoff: float, level_db: float = -20.0, seed: int = 0) -> np.ndarray:
    """Flat up to ``cutoff``; ``level_db`` is its power in dB of a full-scale sine."""
    samples = round(48000 * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    spectrum[np.fft.rfftfreq(samples, 1 / 48000) > cutoff] = 0.0
    sound = np.fft.irfft(spectrum, samples)
    power = 0.5 * 10 ** (level_db / 10)
    return (sound * np.sqrt(power / np.mean(sound**2))).astype(np.float32)


def follow(detector: BandwidthDetector, sound: np.ndarray) -> np.ndarray:
    hops = sound[: len(sound) // HOP * HOP].reshape(-1, HOP, 1)
    return np.array([detector.update(hop) for hop in hops])


@pytest.mark.parametrize(("level_db", "is_sound"), [(-58.0, True), (-66.0, False)])
def test_what_counts_as_sound(level_db: float, is_sound: bool) -> None:
    cutoffs = follow(BandwidthDetector(), noise(4.0, 6000.0, level_db))
    assert (cutoffs[-1] < 7000.0) == is_sound

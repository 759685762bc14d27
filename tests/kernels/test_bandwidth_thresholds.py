"""The detector's thresholds by known answers: what counts as sound, and what as a limit."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.bandwidth.detector import BandwidthDetector
from rtsr_kernels.bandwidth import weigh_limit

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


@pytest.mark.parametrize(
    ("blocks", "fallen", "relative", "height", "images", "common", "evidence"),
    [
        # Gone against all but two of ten blocks, by the height of the edge.
        (10, 8, 8, 36.0, False, True, 12),
        (10, 8, 8, 34.0, False, True, 8),
        (10, 8, 8, 25.0, False, True, 0),
        (10, 7, 7, 60.0, False, True, 0),
        (10, 8, 8, 0.0, True, True, 15),
        (10, 7, 7, 0.0, True, True, 0),
        (6, 5, 5, 36.0, False, True, 12),
        (6, 4, 4, 60.0, False, True, 0),
        # A low edge, or emptiness, only where it was never as low.
        (10, 10, 10, 0.0, False, True, 7),
        (10, 10, 9, 25.0, False, True, 0),
        # What became quieter as a whole.
        (10, 10, 7, 60.0, False, True, 4),
        # Where no common rate ends; a high edge may be anywhere.
        (10, 8, 8, 34.0, False, False, 4),
        (10, 10, 7, 34.0, False, False, 2),
        (10, 8, 8, 36.0, False, False, 12),
        # Soon after a change.
        (4, 4, 4, 36.0, False, True, 12),
        (4, 3, 3, 60.0, False, True, 0),
        (3, 3, 3, 44.0, False, True, 0),
        (3, 3, 3, 46.0, False, True, 12),
        (3, 2, 2, 46.0, False, True, 0),
        (0, 0, 0, 46.0, False, True, 12),
    ],
)
def test_evidence_for_a_limit(
    blocks: int,
    fallen: int,
    relative: int,
    height: float,
    images: bool,
    common: bool,
    evidence: int,
) -> None:
    assert weigh_limit(blocks, fallen, relative, height, -104.0, images, common) == evidence


def test_something_above_a_steep_edge_is_no_evidence_soon_after_a_change() -> None:
    assert weigh_limit(2, 2, 2, 60.0, -90.0, False, True) == 0

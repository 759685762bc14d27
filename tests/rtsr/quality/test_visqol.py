"""ViSQOL through its optional package: known pairs, and one clear sentence without it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import rtsr
from rtsr.errors import ArgumentError, MissingDependencyError
from rtsr.quality import evaluate
from rtsr.quality import visqol as listener

RATE = 48000


def harmonic_tone(seconds: float = 1.5) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 3.0 * time)
    return 0.1 * swell * sum(np.sin(2 * np.pi * 220.0 * k * time) / k**0.5 for k in range(1, 60))


def low_pass(signal: np.ndarray, cutoff: float) -> np.ndarray:
    spectrum = np.fft.rfft(signal)
    spectrum[np.fft.rfftfreq(signal.size, 1 / RATE) > cutoff] = 0
    return np.fft.irfft(spectrum, signal.size)


def test_identical_signals_score_4_732_and_less_band_scores_less() -> None:
    pytest.importorskip("visqol")
    reference = harmonic_tone()
    scores = [
        listener.visqol(reference, estimate)
        for estimate in (reference, low_pass(reference, 11000), low_pass(reference, 4000))
    ]
    assert scores[0] == pytest.approx(4.732, abs=1e-3)
    assert scores[0] > scores[1] > scores[2]
    assert scores[2] < 3.0


@pytest.mark.parametrize(("end_hz", "most"), [(16000, 3.2), (20000, 4.2)])
def test_the_top_octave_counts(end_hz: float, most: float) -> None:
    pytest.importorskip("visqol")
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
    assert listener.visqol(noise, low_pass(noise, end_hz)) < most


@pytest.mark.parametrize(("name", "expected"), [("speech", 1.736), ("music", 1.688)])
def test_packaged_recordings_score_as_they_always_did(name: str, expected: float) -> None:
    """The values are those of visqol-python 3.8.0: another version must not move the tables."""
    pytest.importorskip("visqol")
    soxr = pytest.importorskip("soxr")
    folder = Path(rtsr.__file__).parent / "demo_data"
    reference, _ = soundfile.read(folder / f"{name}_reference.flac")
    narrow, rate = soundfile.read(folder / f"{name}_8k.wav")
    estimate = soxr.resample(narrow, rate, RATE)
    frames = min(len(reference), len(estimate))
    score = listener.visqol(reference[:frames], estimate[:frames])
    assert score == pytest.approx(expected, abs=0.01)


def test_too_short_or_silent_is_not_a_number() -> None:
    pytest.importorskip("visqol")
    assert math.isnan(listener.visqol(harmonic_tone(0.5), harmonic_tone(0.5)))
    assert math.isnan(listener.visqol(harmonic_tone(), np.zeros(int(1.5 * RATE))))


def test_another_rate_is_refused() -> None:
    with pytest.raises(ArgumentError, match="48000 Hz"):
        listener.visqol(harmonic_tone(), harmonic_tone(), 44100)


def test_without_the_package_it_is_missed_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "visqol", None)
    monkeypatch.setattr("rtsr.quality.evaluation.visqol_available", lambda: False)
    listener._listener.cache_clear()
    reference = harmonic_tone()
    assert "visqol" not in evaluate(reference, reference, 4000.0)
    with pytest.raises(MissingDependencyError, match=r'pip install "rtsr\[eval\]"'):
        evaluate(reference, reference, 4000.0, ["visqol"])
    listener._listener.cache_clear()

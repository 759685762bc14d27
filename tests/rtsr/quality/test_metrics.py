"""Known answers for every metric: signals whose value follows from the definition by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import signal as filters

from rtsr.errors import ArgumentError
from rtsr.quality import METRICS, evaluate, metrics
from rtsr.quality.align import find_lag
from rtsr.quality.band_levels import BAND_LEVELS

RATE = 48000
CUTOFF = 4000.0


def noise(seconds: float = 2.0, seed: int = 0, level: float = 0.05) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=int(seconds * RATE)) * level


def split_at(signal: np.ndarray, cutoff: float = CUTOFF) -> tuple[np.ndarray, np.ndarray]:
    spectrum = np.fft.rfft(signal)
    above = np.fft.rfftfreq(signal.size, 1 / RATE) >= cutoff
    high = np.fft.irfft(np.where(above, spectrum, 0), signal.size)
    return signal - high, high


def high_band_gain(signal: np.ndarray, gain_db: float) -> np.ndarray:
    low, high = split_at(signal)
    return low + high * 10 ** (gain_db / 20)


PERFECT = {
    "lsd": 0.0,
    "lsd_lf": 0.0,
    "lsd_hf": 0.0,
    "lsd_near": 0.0,
    "mel_hf": 0.0,
    "hf_bias_db": 0.0,
    "hf_envelope_db": 0.0,
    "lf_sisdr": 120.0,
    "lf_gain_db": 0.0,
}


def test_identical_signals_are_perfect() -> None:
    values = evaluate(noise(), noise(), CUTOFF, list(PERFECT))
    assert values == pytest.approx(PERFECT, abs=1e-9)


def test_a_gain_of_20_db_everywhere() -> None:
    reference = noise()
    values = evaluate(reference, reference * 10, CUTOFF, list(PERFECT))
    for name in ("lsd", "lsd_lf", "lsd_hf", "lsd_near"):
        assert values[name] == pytest.approx(2.0, abs=1e-6)
    assert values["mel_hf"] == pytest.approx(1.0, abs=1e-6)
    assert values["hf_bias_db"] == pytest.approx(20.0, abs=1e-6)
    assert values["hf_envelope_db"] == pytest.approx(0.0, abs=1e-6)
    assert values["lf_gain_db"] == pytest.approx(20.0, abs=1e-6)
    assert values["lf_sisdr"] == pytest.approx(120.0), "a gain is no distortion"


def test_a_gain_of_20_db_above_the_cutoff_only() -> None:
    reference = noise()
    values = evaluate(reference, high_band_gain(reference, 20.0), CUTOFF, list(PERFECT))
    # five sixths of the bins are off by 2.0: the root mean square is 2 sqrt(5/6)
    assert values["lsd"] == pytest.approx(2 * math.sqrt(20 / 24), rel=5e-3)
    assert values["lsd_hf"] == pytest.approx(2.0, rel=5e-3)
    assert values["lsd_near"] == pytest.approx(2.0, rel=5e-3)
    assert values["lsd_lf"] < 0.1
    assert values["mel_hf"] == pytest.approx(1.0, rel=2e-2)
    assert values["hf_bias_db"] == pytest.approx(20.0, abs=0.1)
    assert values["hf_envelope_db"] < 0.1
    assert values["lf_gain_db"] == pytest.approx(0.0, abs=1e-2)
    assert values["lf_sisdr"] > 30, "cut at the ends, the split bands leak a little"


def test_lsd_clamps_power_at_1e_8() -> None:
    """A tone of amplitude a under a Hann window of 2048 has |X| = 512 a; the floor is 1e-4."""
    # a cosine whose mirror images at both ends continue it
    tone = 1e-3 * np.cos(2 * np.pi * 300 * np.arange(40 * 2048 + 1) / 2048)
    # inside, the tone's own bin and its two neighbours (half the amplitude) are off
    off = np.array([0.512, 0.256, 0.256])
    expected = math.sqrt(np.sum((2 * np.log10(off) + 8) ** 2) / 1025)
    assert metrics.lsd(tone, np.zeros_like(tone)) == pytest.approx(expected, rel=2e-2)


def test_lsd_near_ends_at_twice_the_cutoff() -> None:
    reference = noise()
    low, far = split_at(reference, 2.05 * CUTOFF)
    assert metrics.lsd_near(reference, low + 10 * far, CUTOFF) < 0.05
    assert metrics.lsd_hf(reference, low + 10 * far, CUTOFF) > 1.5


def test_mel_magnitude_of_a_full_scale_sine_is_one() -> None:
    """Against silence (floor 1e-5) a full-scale sine is worth log10(1e5) = 5 in its own band."""
    time = np.arange(RATE) / RATE
    sine = np.sin(2 * np.pi * 9000.0 * time)
    weights, centres = metrics.mel_filters(2048, 160, RATE)
    power = np.concatenate(list(metrics.power_chunks(sine, 2048, 512)))
    bands = (np.sqrt(power) @ weights / 512)[10:-10].mean(axis=0)
    # a Hann main lobe sums to 2, spread over the two triangles that overlap at 9 kHz
    assert bands.sum() == pytest.approx(2.0, rel=2e-2)
    assert abs(centres[np.argmax(bands)] - 9000.0) < 400


def test_mel_hf_ignores_the_low_band() -> None:
    low, high = split_at(noise(), 0.8 * CUTOFF)
    assert metrics.mel_hf(low + high, 10 * low + high, CUTOFF) < 0.02


@pytest.mark.parametrize("ratio_db", [10.0, 30.0, 50.0])
def test_lf_sisdr_is_the_ratio_of_signal_to_added_noise(ratio_db: float) -> None:
    reference, added = noise(seed=1), noise(seed=2) * 10 ** (-ratio_db / 20)
    assert metrics.lf_sisdr(reference, reference + added, CUTOFF) == pytest.approx(
        ratio_db, abs=0.3
    )
    assert metrics.lf_sisdr(reference, 0.1 * (reference + added), CUTOFF) == pytest.approx(
        ratio_db, abs=0.3
    )


def test_lf_metrics_end_at_0_85_of_the_cutoff() -> None:
    low, high = split_at(noise(), 0.86 * CUTOFF)
    assert metrics.lf_sisdr(low + high, low - 3 * high, CUTOFF) > 25
    assert metrics.lf_gain_db(low + high, low - 3 * high, CUTOFF) == pytest.approx(0, abs=1e-2)


def test_hf_envelope_of_an_alternating_level() -> None:
    """A high band that is 6 dB too loud for half of the time and 6 dB too quiet for the rest."""
    low, high = split_at(noise(4.0))
    gain = np.where(np.arange(high.size) // RATE % 2 == 0, 10 ** (6 / 20), 10 ** (-6 / 20))
    estimate = low + high * gain
    assert metrics.hf_bias_db(low + high, estimate, CUTOFF) == pytest.approx(0.0, abs=0.2)
    assert metrics.hf_envelope_db(low + high, estimate, CUTOFF) == pytest.approx(6.0, abs=0.2)


def test_hf_bias_of_a_missing_high_band_is_the_distance_to_the_floor() -> None:
    time = np.arange(2 * RATE) / RATE
    reference = np.sin(2 * np.pi * 1000 * time) * 0 + 0.1 * np.sin(2 * np.pi * 9000 * time)
    # the tone stands at -20 dB of a full-scale sine, the clamp at -100
    assert metrics.hf_bias_db(reference, np.zeros_like(reference), CUTOFF) == pytest.approx(
        -80, abs=0.2
    )


def test_hf_metrics_only_count_active_frames() -> None:
    low, rest = split_at(noise(2.0), 0.8 * CUTOFF)
    high = split_at(rest, 1.5 * CUTOFF)[1]  # a gap, so that the low band leaks into no level
    high[RATE:] *= 10 ** (-60 / 20)
    quiet_part_wrong = high.copy()
    quiet_part_wrong[RATE + 1024 :] *= 100
    values = evaluate(low + high, low + quiet_part_wrong, CUTOFF, ["hf_bias_db"])
    assert abs(values["hf_bias_db"]) < 0.2


def test_silence_is_measured_where_the_reference_is_silent() -> None:
    reference = noise(1.0)
    reference[10000:20000] = 0.0
    estimate = reference.copy()
    assert metrics.silence_dbfs(reference, estimate) == metrics.SILENCE_FLOOR_DB
    estimate[10000:20000] = 1e-3 * np.resize([1.0, -1.0], 10000)
    assert metrics.silence_dbfs(reference, estimate) == pytest.approx(-60.0)
    assert math.isnan(metrics.silence_dbfs(noise(1.0), noise(1.0)))


@pytest.mark.parametrize("lag", [0, 1, -1, 480, 600, -777, 4000])
def test_alignment_finds_the_lag_to_the_sample(lag: int) -> None:
    reference = noise(1.0)
    moved = np.roll(reference, lag)
    assert find_lag(reference, moved, CUTOFF) == lag
    values = evaluate(reference, moved[: -abs(lag) or None], CUTOFF, ["lf_sisdr", "lf_gain_db"])
    assert values["lf_sisdr"] > 25
    assert abs(values["lf_gain_db"]) < 0.05


def test_alignment_does_not_look_at_the_high_band() -> None:
    low, high = split_at(noise())
    assert find_lag(low + high, low + 20 * np.roll(high, 321), CUTOFF) == 0


def test_alignment_of_a_steady_tone_and_of_silence_stays_at_zero() -> None:
    tone = np.sin(2 * np.pi * 480 * np.arange(RATE) / RATE)
    assert find_lag(tone, tone, CUTOFF) == 0
    assert find_lag(np.zeros(RATE), np.zeros(RATE), CUTOFF) == 0


def test_alignment_changes_no_gain() -> None:
    reference = noise()
    delayed = 0.5 * np.concatenate([np.zeros(600), reference])
    values = evaluate(reference, delayed, CUTOFF, ["lf_gain_db", "lsd"])
    assert values["lf_gain_db"] == pytest.approx(-6.02, abs=0.02)
    assert values["lsd"] == pytest.approx(0.602, abs=0.01)


def test_channels_are_averaged() -> None:
    reference = np.stack([noise(seed=1), noise(seed=2)], axis=1)
    estimate = reference * [1.0, 10.0]
    assert evaluate(reference, estimate, CUTOFF, ["lsd"])["lsd"] == pytest.approx(1.0, abs=1e-4)


def test_a_chunked_transform_equals_one_in_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, estimate = noise(seed=1), noise(seed=2)
    whole = evaluate(reference, estimate, CUTOFF, ["lsd", "mel_hf", "hf_envelope_db"])
    monkeypatch.setattr("rtsr.spectra.stft.CHUNK_FRAMES", 7)
    assert evaluate(reference, estimate, CUTOFF, list(whole)) == pytest.approx(whole)


def test_spectrum_matches_scipy() -> None:
    reference = noise(0.5)
    _, _, expected = filters.stft(
        reference, RATE, "hann", 2048, 2048 - 512, boundary="even", padded=False, scaling="spectrum"
    )
    power = np.concatenate(list(metrics.power_chunks(reference, 2048, 512)))
    # scipy divides by the window's sum and its mirroring repeats the edge sample, so: inside only
    inside = slice(3, -3)
    expected_power = (np.abs(expected.T) * 1024) ** 2
    np.testing.assert_allclose(power[inside], expected_power[inside], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, 24000.0, math.nan])
def test_an_impossible_cutoff_is_refused(cutoff: float) -> None:
    with pytest.raises(ArgumentError, match="cutoff must lie between"):
        evaluate(noise(), noise(), cutoff)


def test_unusable_signals_are_refused() -> None:
    good = noise(0.1)
    with pytest.raises(ArgumentError, match="no metric named 'pesq'"):
        evaluate(good, good, CUTOFF, ["pesq"])
    with pytest.raises(ArgumentError, match="at least 480"):
        evaluate(good[:10], good, CUTOFF)
    with pytest.raises(ArgumentError, match="NaN"):
        evaluate(good, np.full_like(good, np.nan), CUTOFF)
    with pytest.raises(ArgumentError, match="channels"):
        evaluate(good, np.stack([good, good], axis=1), CUTOFF)


def test_every_metric_states_its_definition() -> None:
    for name in METRICS:
        if name != "visqol" and name not in BAND_LEVELS:
            assert len(getattr(metrics, name).__doc__) > 60

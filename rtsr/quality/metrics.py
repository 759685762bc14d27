"""The metrics of bandwidth extension, each with the exact definition that its numbers stand for.

Every function takes one channel: ``reference`` and ``estimate`` of shape (samples,), float64 in
[-1, 1], of one length and already aligned (:mod:`rtsr.quality.align`). Nothing here changes a gain.

Three different "LSD"s are in print. Ours takes log10 of *power*, so 20 dB in every bin are 2.0.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from rtsr.quality.align import band_limit
from rtsr.spectra.stft import Signal, bin_frequencies, paired_power_chunks, power_chunks
from rtsr.timing import SAMPLE_RATE

_LSD_FFT, _LSD_HOP = 2048, 512
_LSD_LEAST = 1e-8
_MEL_SIZES = ((512, 40), (1024, 80), (2048, 160))
_MEL_LEAST = 1e-5
_LEVEL_FFT, _LEVEL_HOP = 1024, 480
_LOWEST_LEVEL_DB = -100.0
_ACTIVE_RANGE_DB = 40.0
_SILENCE_SECONDS = 0.05
_SILENCE_GUARD_SECONDS = 0.01
SILENCE_FLOOR_DB = -120.0


def lsd(reference: Signal, estimate: Signal, sample_rate: int = SAMPLE_RATE) -> float:
    """Log-spectral distance over all frequencies.

    ``mean_t sqrt(mean_f (log10 max(|X|^2, 1e-8) - log10 max(|Y|^2, 1e-8))^2)`` with n_fft 2048,
    hop 512, periodic Hann, centred (mirrored ends), unnormalised transform. 20 dB of gain: 2.0.
    """
    return _band_distance(reference, estimate, 0.0, math.inf, sample_rate)


def lsd_lf(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> float:
    """:func:`lsd` with the mean over the bins below the cutoff only."""
    return _band_distance(reference, estimate, 0.0, cutoff_hz, sample_rate)


def lsd_hf(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> float:
    """:func:`lsd` with the mean over the bins at and above the cutoff only."""
    return _band_distance(reference, estimate, cutoff_hz, math.inf, sample_rate)


def lsd_near(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> float:
    """:func:`lsd` with the mean over the bins from the cutoff up to twice the cutoff.

    This is the most audible octave of the lost band.
    """
    return _band_distance(reference, estimate, cutoff_hz, 2.0 * cutoff_hz, sample_rate)


def mel_hf(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> float:
    """Mean absolute difference of log10 mel magnitudes above the cutoff. 20 dB of gain: 1.0.

    Three resolutions, n_fft 512 / 1024 / 2048 with 40 / 80 / 160 bands and hop n_fft / 4 (periodic
    Hann, centred). Magnitudes are divided by n_fft / 4, so that a full-scale sine gives 1; bands
    are triangles of peak 1, evenly spaced from 0 Hz to half the rate on the scale
    ``2595 log10(1 + f / 700)`` (O'Shaughnessy; "HTK"); band sums are clamped at 1e-5. The mean runs
    over frames and over the bands centred above the cutoff, then over the three resolutions.
    """
    distances = []
    for n_fft, bands in _MEL_SIZES:
        weights, centres = mel_filters(n_fft, bands, sample_rate)
        weights = weights[:, centres > cutoff_hz] * (4.0 / n_fft)
        total, values = 0.0, 0
        for expected, actual in paired_power_chunks(reference, estimate, n_fft, n_fft // 4):
            expected_log = np.log10(np.maximum(np.sqrt(expected) @ weights, _MEL_LEAST))
            actual_log = np.log10(np.maximum(np.sqrt(actual) @ weights, _MEL_LEAST))
            total += float(np.abs(expected_log - actual_log).sum())
            values += expected_log.size
        distances.append(total / values if values else math.nan)
    return float(np.mean(distances))


def lf_sisdr(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> float:
    """Scale-invariant signal-to-distortion ratio of the low band in dB: did we harm the input?

    Both signals are limited to 50 Hz ... 0.85 x cutoff; then, with ``a = <s, e> / <s, s>``,
    ``10 log10(|a s|^2 / |e - a s|^2)`` (Le Roux et al., arXiv 1811.02508). Limited to +-120 dB; NaN
    where the reference's low band is silent.
    """
    expected = band_limit(reference, 50.0, 0.85 * cutoff_hz, sample_rate)
    actual = band_limit(estimate, 50.0, 0.85 * cutoff_hz, sample_rate)
    energy = float(expected @ expected)
    if energy <= 0.0:
        return math.nan
    scaled = expected * (float(expected @ actual) / energy)
    distortion = actual - scaled
    return _ratio_db(float(scaled @ scaled), float(distortion @ distortion), 120.0)


def lf_gain_db(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> float:
    """Level of the estimate's low band against the reference's, in dB; 0 is unharmed.

    ``10 log10(sum e^2 / sum s^2)``, both limited to 50 Hz ... 0.85 x cutoff. Limited to +-120 dB;
    NaN where the reference's low band is silent.
    """
    expected = band_limit(reference, 50.0, 0.85 * cutoff_hz, sample_rate)
    actual = band_limit(estimate, 50.0, 0.85 * cutoff_hz, sample_rate)
    energy = float(expected @ expected)
    return _ratio_db(float(actual @ actual), energy, 120.0) if energy > 0.0 else math.nan


def hf_bias_db(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> float:
    """Mean level of the estimate's high band against the reference's, in dB; negative is too dull.

    The mean of the level ratio over active frames. Levels are sums of ``|X|^2`` over the bins at
    and above the cutoff (n_fft 1024, hop 480, periodic Hann, centred), relative to a full-scale
    sine and clamped at -100 dB; a frame is active where the reference's level is within 40 dB of
    its loudest frame and above the clamp. NaN without an active frame.
    """
    return float(np.mean(_level_ratios(reference, estimate, cutoff_hz, sample_rate)))


def hf_envelope_db(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> float:
    """Mean absolute deviation of the high band's level ratio from its mean, in dB: time smearing.

    Frames and levels as in :func:`hf_bias_db`, so a constant wrong level costs nothing here.
    """
    ratios = _level_ratios(reference, estimate, cutoff_hz, sample_rate)
    return float(np.mean(np.abs(ratios - np.mean(ratios))))


def silence_dbfs(reference: Signal, estimate: Signal, sample_rate: int = SAMPLE_RATE) -> float:
    """Level of the estimate where the reference is digitally silent, in dB of full scale.

    ``10 log10(mean e^2)`` over every stretch of at least 50 ms in which the reference stays within
    one 16-bit step of zero, without the stretch's first and last 10 ms. At least -120; NaN where
    the reference has no such stretch.
    """
    silent = np.abs(reference) <= 1.0001 / 32768.0
    edges = np.flatnonzero(np.diff(np.concatenate(([False], silent, [False])).astype(np.int8)))
    guard = round(_SILENCE_GUARD_SECONDS * sample_rate)
    total, samples = 0.0, 0
    for start, stop in edges.reshape(-1, 2):
        if stop - start >= _SILENCE_SECONDS * sample_rate:
            inner = estimate[start + guard : stop - guard]
            total += float(inner @ inner)
            samples += inner.size
    if samples == 0:
        return math.nan
    return max(10.0 * math.log10(max(total / samples, 1e-30)), SILENCE_FLOOR_DB)


def _band_distance(
    reference: Signal, estimate: Signal, low_hz: float, high_hz: float, sample_rate: int
) -> float:
    frequencies = bin_frequencies(_LSD_FFT, sample_rate)
    inside = (frequencies >= low_hz) & (frequencies < high_hz)
    total, frames = 0.0, 0
    for expected, actual in paired_power_chunks(reference, estimate, _LSD_FFT, _LSD_HOP):
        expected_log = np.log10(np.maximum(expected[:, inside], _LSD_LEAST))
        actual_log = np.log10(np.maximum(actual[:, inside], _LSD_LEAST))
        total += float(np.sqrt(np.mean((expected_log - actual_log) ** 2, axis=1)).sum())
        frames += expected.shape[0]
    return total / frames


def _level_ratios(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int
) -> Signal:
    expected = _high_band_level(reference, cutoff_hz, sample_rate)
    actual = _high_band_level(estimate, cutoff_hz, sample_rate)
    active = (expected > expected.max() - _ACTIVE_RANGE_DB) & (expected > _LOWEST_LEVEL_DB)
    return (actual - expected)[active] if active.any() else np.array([math.nan])


def _high_band_level(signal: Signal, cutoff_hz: float, sample_rate: int) -> Signal:
    inside = bin_frequencies(_LEVEL_FFT, sample_rate) >= cutoff_hz
    # A full-scale sine under a Hann window sums to 3/32 n^2 over the positive frequencies.
    full_scale = 3.0 / 32.0 * _LEVEL_FFT**2
    energy = np.concatenate(
        [power[:, inside].sum(axis=1) for power in power_chunks(signal, _LEVEL_FFT, _LEVEL_HOP)]
    )
    return 10.0 * np.log10(np.maximum(energy / full_scale, 10.0 ** (_LOWEST_LEVEL_DB / 10.0)))


@functools.lru_cache(maxsize=16)
def mel_filters(n_fft: int, bands: int, sample_rate: int) -> tuple[Signal, Signal]:
    """Triangular weights (bins, bands) of peak 1, and the bands' centres in Hz."""
    top = 2595.0 * math.log10(1.0 + sample_rate / 2.0 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    bins = bin_frequencies(n_fft, sample_rate)[:, np.newaxis]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)), edges[1:-1]


def _ratio_db(numerator: float, denominator: float, limit: float) -> float:
    if numerator <= 0.0:
        return -limit
    if denominator <= 0.0:
        return limit
    return float(np.clip(10.0 * math.log10(numerator / denominator), -limit, limit))

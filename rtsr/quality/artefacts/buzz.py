"""Buzz: a high band whose strength flutters faster than the ear follows as single events."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rtsr.quality.artefacts.levels import AUDIBLE_DBFS, high_band
from rtsr.spectra.stft import Signal, bin_frequencies, periodic_hann, power_chunks
from rtsr.timing import SAMPLE_RATE

Spectra = NDArray[np.complex128]

# Envelopes of bands about 750 Hz wide, 1000 values a second: a hop of 10 ms is ten of them.
_FFT, _HOP = 96, 48
_TOP_HZ = 20000.0
_SEGMENT = 500
_BIN_HZ = SAMPLE_RATE / _HOP / _SEGMENT
_RANGE_DB = 50.0
_LOWEST_HZ, _HIGHEST_HZ = 30.0, 300.0
_STEADY = 0.15**2
_FEWEST = 10
_HOP_RATE_HZ = 100.0
_LINES = 4
_FEWEST_IN_BAND = 6
# In bins of 2 Hz: 8 to 20 Hz away the Hann window has forgotten the line.
_NEIGHBOURS = np.concatenate((np.arange(-10, -3), np.arange(4, 11)))


def buzz_index(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Measure the added flutter of partials that are steady in the reference: rms, 0 is none.

    Above the cutoff and below 20 kHz, envelopes ``|X|`` of bands 500 Hz apart (n_fft 96, hop 48,
    periodic Hann) are cut into segments of 0.5 s that overlap by half. Of each, divided by its own
    mean, the mean square ``m`` of the modulation between 30 and 300 Hz is taken (Hann). Counted are
    the segments where the reference is above -80 dBFS, within 50 dB of its loudest, and steady:
    ``m <= 0.15^2`` (tones; a band of noise has about 0.4^2). The result is
    ``sqrt(max(0, mean m_output - mean m_truth))``: amplitude modulation of a tone by ``1 + d cos``
    gives ``d / sqrt(2)``, noise in the place of a tone about 0.4.

    Args:
        reference: shape (samples,), at 48 kHz.
        output: likewise, aligned with it.
        cutoff_hz: where the input's content ended.

    Returns:
        a ratio; NaN where the reference has fewer than ten steady segments.
    """
    frequency = np.arange(_SEGMENT // 2 + 1) * _BIN_HZ
    inside = (frequency >= _LOWEST_HZ) & (frequency <= _HIGHEST_HZ)
    true_squares, squares = [], []
    for original, made in _modulation(reference, output, cutoff_hz):
        true_square, square = (
            2.0 * np.sum(np.abs(spectra[:, inside]) ** 2, axis=1) / _SEGMENT / _window_energy()
            for spectra in (original, made)
        )
        steady = true_square <= _STEADY
        true_squares.extend(true_square[steady])
        squares.extend(square[steady])
    if len(squares) < _FEWEST:
        return math.nan
    return math.sqrt(max(0.0, float(np.mean(squares) - np.mean(true_squares))))


def hop_buzz_depth(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Depth of an amplitude modulation in step with the hop that the reference lacks; 0 is none.

    A system that works in hops of 10 ms and does the same in each of them buzzes at 100 Hz and its
    multiples, always at the same place in the hop. So the complex modulation spectra of
    :func:`buzz_index` are averaged over all segments in which the reference is audible, steady or
    not (they begin a whole number of hops apart): what is not locked to the hop cancels out. With
    ``a = 2 |mean X| / sum w`` at 100, 200, 300 and 400 Hz and ``n`` the same 8 to 20 Hz beside it,
    ``S = sum of (a^2 - mean n^2)``, averaged over bands of at least six segments; the result is
    ``sqrt(max(0, S_output - S_truth))``. Modulation by ``1 + d cos`` at one of the lines gives
    ``d``; chance, in six seconds of noise, less than 0.03.

    Args:
        reference: shape (samples,), at 48 kHz.
        output: likewise, aligned with it.
        cutoff_hz: where the input's content ended.

    Returns:
        a ratio; NaN where the reference has no such band.
    """
    excesses = [
        _locked_power(made) - _locked_power(original)
        for original, made in _modulation(reference, output, cutoff_hz)
        if original.shape[0] >= _FEWEST_IN_BAND
    ]
    if not excesses:
        return math.nan
    return math.sqrt(max(0.0, float(np.mean(excesses))))


def _locked_power(spectra: Spectra) -> float:
    """Squared depth of the modulation at the hop rate and its multiples, chance taken out."""
    power = np.abs(spectra.mean(axis=0)) ** 2 * (2.0 / _SEGMENT * 2.0) ** 2
    lines = [round(number * _HOP_RATE_HZ / _BIN_HZ) for number in range(1, _LINES + 1)]
    return float(sum(power[line] - np.mean(power[line + _NEIGHBOURS]) for line in lines))


def _modulation(
    reference: Signal, output: Signal, cutoff_hz: float
) -> Iterator[tuple[Spectra, Spectra]]:
    """Spectra of reference's and output's relative envelopes, band by band.

    Yields:
        two arrays of shape (segments in which the reference is audible, 251).
    """
    original, made = _envelopes(reference, cutoff_hz), _envelopes(output, cutoff_hz)
    if original.shape[1] < _SEGMENT:
        return
    pairs = [
        (_segments(whole), _segments(band)) for whole, band in zip(original, made, strict=True)
    ]
    loudest = max(float(np.max(np.mean(whole, axis=1))) for whole, _ in pairs)
    threshold = max(10.0 ** (AUDIBLE_DBFS / 20.0), loudest * 10.0 ** (-_RANGE_DB / 20.0))
    for whole, band in pairs:
        audible = np.mean(whole, axis=1) > threshold
        yield _spectra(whole[audible]), _spectra(band[audible])


def _envelopes(signal: Signal, cutoff_hz: float) -> Signal:
    """Envelopes of all bands, shape (bands, milliseconds); a full-scale sine is 1."""
    bands = bin_frequencies(_FFT, SAMPLE_RATE)
    # A band reaches 500 Hz on both sides; the untouched part must not be measured.
    inside = (bands >= cutoff_hz + 500.0) & (bands <= max(_TOP_HZ, cutoff_hz + 1000.0))
    powers = power_chunks(high_band(signal, cutoff_hz), _FFT, _HOP)
    return np.concatenate([np.sqrt(power[:, inside]) for power in powers]).T * (4.0 / _FFT)


def _segments(envelope: Signal) -> Signal:
    return np.lib.stride_tricks.sliding_window_view(envelope, _SEGMENT)[:: _SEGMENT // 2]


def _spectra(segments: Signal) -> Spectra:
    mean = np.mean(segments, axis=1, keepdims=True)
    # Where nothing was generated, nothing flutters.
    relative = segments / np.maximum(mean, 1e-9) - (mean > 1e-9)
    return np.asarray(np.fft.rfft(relative * periodic_hann(_SEGMENT), axis=1))


def _window_energy() -> float:
    return float(np.sum(periodic_hann(_SEGMENT) ** 2))

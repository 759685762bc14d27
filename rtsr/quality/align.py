"""Bring an estimate into line with its reference: a whole number of samples, never a gain.

A metric of the high band must not be able to move the alignment, so the lag is found on what both
files share: the band below the cutoff.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE

MAX_LAG_SECONDS = 0.1
# Lags whose correlation is this close to the best are equal but for rounding (a steady tone has one
# per period, digital silence has all of them); the smallest of them is the likely one.
_TIE = 1e-9


def band_limit(signal: Signal, low_hz: float, high_hz: float, sample_rate: int) -> Signal:
    """Return the part of ``signal`` between two frequencies: a brick-wall, zero-phase filter.

    Args:
        signal: shape (samples,) or (samples, channels); filtered along the first axis.
        low_hz: lower edge of the band.
        high_hz: upper edge of the band.
        sample_rate: in Hz.

    Returns:
        the same shape. The ends are padded with a second of zeros, so that they do not touch.
    """
    length = fft.next_fast_len(signal.shape[0] + sample_rate, real=True)
    spectrum = fft.rfft(signal, length, axis=0)
    frequencies = fft.rfftfreq(length, 1.0 / sample_rate)
    spectrum[(frequencies < low_hz) | (frequencies > high_hz)] = 0.0
    return np.asarray(fft.irfft(spectrum, length, axis=0)[: signal.shape[0]])


def find_lag(
    reference: Signal,
    estimate: Signal,
    cutoff_hz: float,
    sample_rate: int = SAMPLE_RATE,
) -> int:
    """Return by how many samples ``estimate`` comes later than ``reference`` (negative: earlier).

    The lag, within +-``MAX_LAG_SECONDS``, with the largest cross-correlation of the two signals'
    bands between 50 Hz and 0.85 x cutoff, summed over channels; of equals, the one nearest to zero.

    Args:
        reference: shape (samples,) or (samples, channels).
        estimate: same rank and channels, any length.
        cutoff_hz: where the shared content ends, in Hz.
        sample_rate: of both, in Hz.
    """
    limit = round(MAX_LAG_SECONDS * sample_rate)
    low = band_limit(_columns(reference), 50.0, 0.85 * cutoff_hz, sample_rate)
    shared = band_limit(_columns(estimate), 50.0, 0.85 * cutoff_hz, sample_rate)
    length = fft.next_fast_len(max(low.shape[0], shared.shape[0]) + limit + 1, real=True)
    cross = np.conj(fft.rfft(low, length, axis=0)) * fft.rfft(shared, length, axis=0)
    correlation = fft.irfft(cross.sum(axis=1), length)
    lags = np.arange(-limit, limit + 1)
    values = correlation[lags]
    best = values.max()
    if best <= 0.0:
        return 0
    candidates = lags[values >= best * (1.0 - _TIE)]
    return int(candidates[np.argmin(np.abs(candidates))])


def align(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> tuple[Signal, Signal, int]:
    """Cut both signals to the part they share once the estimate's lag is taken out.

    Returns:
        reference and estimate of one length, and the lag in samples that was found.
    """
    lag = find_lag(reference, estimate, cutoff_hz, sample_rate)
    reference = reference[max(-lag, 0) :]
    estimate = estimate[max(lag, 0) :]
    samples = min(reference.shape[0], estimate.shape[0])
    return reference[:samples], estimate[:samples], lag


def _columns(signal: Signal) -> NDArray[np.float64]:
    return signal[:, np.newaxis] if signal.ndim == 1 else signal

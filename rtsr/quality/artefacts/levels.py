"""Levels over time, and the high band alone: what the measures of artefacts share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import signal as filters

from rtsr.spectra.stft import Signal, bin_frequencies, power_chunks
from rtsr.timing import SAMPLE_RATE

#: levels below this count as silence: design goal of the engine, and about the threshold of
#: hearing where full scale is played at 85 to 90 dB SPL
AUDIBLE_DBFS = -80.0
# A linear-phase high-pass of this length rings 2.5 ms on both sides and no further.
_HIGH_PASS_SECONDS = 0.005
_HIGH_PASS_KAISER = 7.86  # 80 dB of attenuation


def band_powers(
    signal: Signal,
    bands: Sequence[tuple[float, float]],
    n_fft: int,
    hop: int,
) -> Signal:
    """Compute the power of each band in each frame; a full-scale sine in the band is 1 (0 dBFS).

    Sums of ``|X|^2`` over the bins with ``low <= f < high`` (periodic Hann, centred frames,
    mirrored ends), divided by ``3/32 n_fft^2``.

    Args:
        signal: shape (samples,).
        bands: (low, high) in Hz.
        n_fft: length of a frame in samples.
        hop: distance of frames in samples.

    Returns:
        shape (bands, 1 + samples // hop).
    """
    frequencies = bin_frequencies(n_fft, SAMPLE_RATE)
    inside = np.stack([(frequencies >= low) & (frequencies < high) for low, high in bands], axis=1)
    chunks = [power @ inside for power in power_chunks(signal, n_fft, hop)]
    return np.concatenate(chunks).T / (3.0 / 32.0 * n_fft**2)


def decibels(power: Signal | float, floor_db: float = -100.0) -> Signal:
    """``10 log10(power)``, at least ``floor_db``."""
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (floor_db / 10.0))))


def ratio_db(power: float, reference: float, least: float) -> float:
    """Return one power over another in dB; neither counts as less than ``least`` (positive)."""
    return 10.0 * math.log10(max(power, least) / max(reference, least))


def mean_or_nan(values: Sequence[float] | Signal) -> float:
    """Return the mean; NaN of an empty array."""
    return float(np.mean(values)) if len(values) else math.nan


def runs(mask: Signal) -> list[tuple[int, int]]:
    """(first, one past the last) of every stretch of true values of a boolean array."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def high_band(signal: Signal, cutoff_hz: float) -> Signal:
    """Return the band above the cutoff, without delay; shape (samples,).

    A linear-phase filter of 5 ms (Kaiser, 80 dB; -6 dB at the cutoff, full from about 500 Hz above
    it), so that an event spreads by at most 2.5 ms on both sides.
    """
    taps = 2 * round(_HIGH_PASS_SECONDS * SAMPLE_RATE / 2) + 1
    response = filters.firwin(
        taps,
        cutoff_hz,
        window=("kaiser", _HIGH_PASS_KAISER),
        pass_zero=False,
        fs=SAMPLE_RATE,
    )
    return np.asarray(filters.fftconvolve(signal, response, mode="same"))

"""Pumping: a high band whose level swings slowly where the reference's does not."""

from __future__ import annotations

import math

import numpy as np

from rtsr.quality.artefacts.levels import AUDIBLE_DBFS, band_powers, decibels
from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE

_FFT, _HOP = 1024, 480
_RANGE_DB = 40.0
_SLOWEST_HZ, _FASTEST_HZ = 0.5, 8.0
_SHORTEST_SECONDS = 2.0


def pumping_db(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Slow swing of the high band against the low band that the reference does not have, in dB rms.

    Per frame (n_fft 1024, hop 480), ``r`` is the level of the bins at and above the cutoff less the
    level of those between 50 Hz and 0.85 x cutoff, each at least -80 dBFS. ``r`` is taken in active
    frames (both bands of the reference within 40 dB of their loudest and above -80 dBFS), joined by
    straight lines over the others, mirrored at the end, and kept between 0.5 and 8 Hz by one
    transform. The swing of the output that follows the reference's (least squares, a share of 0 to
    1) is taken out; the result is the root mean square of the rest over active frames. A gain that
    swings by ``a sin`` (a in dB) gives ``a / sqrt(2)``; a constant wrong level 0, and so does a
    high band that swings less than the reference's (that is dull, and ``hf_envelope_db`` sees it).

    Args:
        reference: shape (samples,), at 48 kHz.
        output: likewise, aligned with it.
        cutoff_hz: where the input's content ended.

    Returns:
        dB; NaN where fewer than 2 s are active.
    """
    bands = [(cutoff_hz, math.inf), (50.0, 0.85 * cutoff_hz)]
    original, made = (
        decibels(band_powers(signal, bands, _FFT, _HOP), AUDIBLE_DBFS)
        for signal in (reference, output)
    )
    loudest = original.max(axis=1, keepdims=True)
    active = np.all((original > loudest - _RANGE_DB) & (original > AUDIBLE_DBFS), axis=0)
    if np.count_nonzero(active) * _HOP < _SHORTEST_SECONDS * SAMPLE_RATE:
        return math.nan
    true_swing, swing = (_slow(levels[0] - levels[1], active) for levels in (original, made))
    share = float(swing @ true_swing) / max(float(true_swing @ true_swing), 1e-12)
    rest = swing - min(max(share, 0.0), 1.0) * true_swing
    return float(np.sqrt(np.mean(rest**2)))


def _slow(ratio: Signal, active: Signal) -> Signal:
    """Return the part of a level ratio that moves at 0.5 to 8 Hz, in active frames."""
    frames = np.arange(ratio.size)
    joined = np.interp(frames, frames[active], ratio[active])
    spectrum = np.fft.rfft(np.concatenate((joined, joined[::-1])))
    frequency = np.fft.rfftfreq(2 * joined.size, _HOP / SAMPLE_RATE)
    spectrum[(frequency < _SLOWEST_HZ) | (frequency > _FASTEST_HZ)] = 0.0
    return np.asarray(np.fft.irfft(spectrum, 2 * joined.size)[: joined.size][active])

"""Hiss: a generated high band where the original rests."""

from __future__ import annotations

import math

import numpy as np

from rtsr.quality.artefacts.levels import AUDIBLE_DBFS, band_powers, decibels, ratio_db
from rtsr.spectra.stft import Signal

_FFT, _HOP = 1024, 480
_PAUSE_BELOW_LOUDEST_DB = 40.0
_SILENT_DB = -200.0
# The decay of a sound is no pause yet: its frame and this many neighbours must be quiet too.
_QUIET_BEFORE, _QUIET_AFTER = 3, 1


def hiss_db(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Measure the output's high band in the reference's pauses, in dB; at most 0 is clean.

    A pause is a frame (n_fft 1024, hop 480) whose level over all frequencies lies more than 40 dB
    below the reference's loudest frame, or is digital silence, as do the three frames before it and
    the one after it. ``10 log10(P_output / P_truth)``, P being the mean power of the bins at and
    above the cutoff over all pauses, each P at least -80 dBFS (a full-scale sine is 0 dBFS): softer
    hiss is not audible, and silence has no ratio.

    Args:
        reference: shape (samples,), at 48 kHz.
        output: likewise, aligned with it.
        cutoff_hz: where the input's content ended.

    Returns:
        dB; NaN where the reference never pauses.
    """
    whole, high = band_powers(reference, [(0.0, math.inf), (cutoff_hz, math.inf)], _FFT, _HOP)
    generated = band_powers(output, [(cutoff_hz, math.inf)], _FFT, _HOP)[0]
    level = decibels(whole, _SILENT_DB)
    quiet = (level < level.max() - _PAUSE_BELOW_LOUDEST_DB) | (level <= _SILENT_DB)
    pause = quiet.copy()
    for shift in range(1, _QUIET_BEFORE + 1):
        pause[shift:] &= quiet[:-shift]
    for shift in range(1, _QUIET_AFTER + 1):
        pause[:-shift] &= quiet[shift:]
    if not pause.any():
        return math.nan
    least = 10.0 ** (AUDIBLE_DBFS / 10.0)
    return ratio_db(float(np.mean(generated[pause])), float(np.mean(high[pause])), least)

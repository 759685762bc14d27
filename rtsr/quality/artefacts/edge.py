"""A hole or a bump where the untouched band ends and the generated one begins."""

from __future__ import annotations

from rtsr.quality.artefacts.levels import AUDIBLE_DBFS, band_powers, decibels, mean_or_nan
from rtsr.spectra.stft import Signal

_FFT, _HOP = 2048, 480
_WIDTH_HZ = 500.0
_ACTIVE_RANGE_DB = 40.0


def edge_below_db(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Level of the output in the 500 Hz below the cutoff against the reference, in dB.

    The mean, over active frames (n_fft 2048, hop 480), of the difference of the two levels, each at
    least -100 dBFS. A frame is active where the reference's level within 500 Hz on both sides of
    the cutoff lies within 40 dB of its loudest and above -80 dBFS. Negative is a hole (the roll-off
    of the input's resampler that was not filled), positive a bump.

    Returns:
        dB; NaN where the reference has nothing there.
    """
    return _difference(reference, output, cutoff_hz, cutoff_hz - _WIDTH_HZ)


def edge_above_db(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """As :func:`edge_below_db`, for the 500 Hz above the cutoff: all of it is generated."""
    return _difference(reference, output, cutoff_hz, cutoff_hz)


def _difference(reference: Signal, output: Signal, cutoff_hz: float, low_hz: float) -> float:
    band = (low_hz, low_hz + _WIDTH_HZ)
    both = (cutoff_hz - _WIDTH_HZ, cutoff_hz + _WIDTH_HZ)
    around, original = band_powers(reference, [both, band], _FFT, _HOP)
    made = band_powers(output, [band], _FFT, _HOP)[0]
    level = decibels(around)
    active = (level > level.max() - _ACTIVE_RANGE_DB) & (level > AUDIBLE_DBFS)
    return mean_or_nan((decibels(made) - decibels(original))[active])

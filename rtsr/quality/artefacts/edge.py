"""A hole or a bump where the untouched band ends and the generated one begins."""

from __future__ import annotations

from rtsr.quality.artefacts.levels import AUDIBLE_DBFS, band_powers, decibels, mean_or_nan
from rtsr.quality.stft import Signal

_FFT, _HOP = 2048, 480
_WIDTH_HZ = 500.0
_ACTIVE_RANGE_DB = 40.0


def edge_below_db(truth: Signal, output: Signal, cutoff_hz: float) -> float:
    """Level of the output in the 500 Hz below the cutoff against the truth, in dB.

    The mean, over active frames (n_fft 2048, hop 480), of the difference of the two levels, each at
    least -100 dBFS. A frame is active where the truth's level within 500 Hz to either side of the
    cutoff lies within 40 dB of its loudest and above -80 dBFS. Negative is a hole (the roll-off of
    the input's resampler that nobody filled), positive a bump.

    Returns:
        dB; NaN where the truth has nothing there.
    """
    return _difference(truth, output, cutoff_hz, cutoff_hz - _WIDTH_HZ)


def edge_above_db(truth: Signal, output: Signal, cutoff_hz: float) -> float:
    """As :func:`edge_below_db`, for the 500 Hz above the cutoff: all of it is generated."""
    return _difference(truth, output, cutoff_hz, cutoff_hz)


def _difference(truth: Signal, output: Signal, cutoff_hz: float, low_hz: float) -> float:
    side = (low_hz, low_hz + _WIDTH_HZ)
    both = (cutoff_hz - _WIDTH_HZ, cutoff_hz + _WIDTH_HZ)
    around, original = band_powers(truth, [both, side], _FFT, _HOP)
    made = band_powers(output, [side], _FFT, _HOP)[0]
    level = decibels(around)
    active = (level > level.max() - _ACTIVE_RANGE_DB) & (level > AUDIBLE_DBFS)
    return mean_or_nan((decibels(made) - decibels(original))[active])

"""Minimum-phase filters of a given gain curve, for the equaliser of the generated band."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .timing import SAMPLE_RATE

TAPS = 96
"""Coefficients of every filter: 2 ms at 48 kHz, enough for curves as smooth as 1/9 octave."""

_FFT = 2048
# The last part of the response is faded out, so that cutting it leaves no ripple.
_FADED_TAPS = 32


def design_frequencies() -> NDArray[np.float64]:
    """Return the frequencies in Hz ``(1025,)`` at which `minimum_phase_taps` takes gains."""
    return np.asarray(np.fft.rfftfreq(_FFT, 1.0 / SAMPLE_RATE), np.float64)


def minimum_phase_taps(gains_db: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the `TAPS` coefficients of the filter that has these gains and the least delay.

    The logarithm of the magnitude is made causal in the cepstrum (A. V. Oppenheim, R. W. Schafer,
    "Discrete-Time Signal Processing", 3rd edition, section 13.5).

    Args:
        gains_db: ``(1025,)``, at `design_frequencies`.
    """
    cepstrum = np.fft.irfft(np.asarray(gains_db, np.float64) * (np.log(10.0) / 20.0))
    cepstrum[1 : _FFT // 2] *= 2.0
    cepstrum[_FFT // 2 + 1 :] = 0.0
    taps = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[:TAPS]
    place = (np.arange(_FADED_TAPS) + 0.5) / _FADED_TAPS
    taps[-_FADED_TAPS:] *= 0.5 + 0.5 * np.cos(np.pi * place)
    return taps.astype(np.float32)

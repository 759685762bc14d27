"""Do two files belong together? Metrics of files that do not are numbers like any other."""

from __future__ import annotations

import math

import numpy as np

from rtsr.quality.align import align, band_limit
from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE

# A delay and the tail of a coder or a resampler explain this much.
_LENGTH_SECONDS = 0.25
# Systems that draw the low band anew stay above this, other recordings below.
_LEAST_CORRELATION = 0.5


def find_mismatches(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> list[str]:
    """Say why the metrics of a pair may be meaningless: one phrase each, none for a pair that fits.

    The lengths may differ by 0.25 s. Aligned, the bands between 50 Hz and 0.85 x cutoff must have
    a correlation ``<s, e> / (|s| |e|)``, over all channels, of at least 0.5; of a reference that
    holds nothing there, nothing is asked.

    Args:
        reference: shape (samples, channels).
        estimate: likewise, with the same number of channels.
        cutoff_hz: where the shared content ends.
        sample_rate: of both, in Hz.
    """
    found = []
    longer = (estimate.shape[0] - reference.shape[0]) / sample_rate
    if abs(longer) > _LENGTH_SECONDS:
        found.append(
            f"{abs(longer):.2f} s {'longer' if longer > 0 else 'shorter'} than the original, and "
            "only their common length is evaluated"
        )
    reference, estimate, _ = align(reference, estimate, cutoff_hz, sample_rate)
    correlation = _correlation(
        band_limit(reference, 50.0, 0.85 * cutoff_hz, sample_rate),
        band_limit(estimate, 50.0, 0.85 * cutoff_hz, sample_rate),
    )
    if correlation < _LEAST_CORRELATION:
        found.append(
            f"not the same sound as the original below the cutoff (correlation {correlation:.2f}), "
            "so the metrics mean nothing"
        )
    return found


def _correlation(reference: Signal, estimate: Signal) -> float:
    """NaN where the reference is silent, 0 where the estimate is."""
    energy = float(np.sum(reference**2)), float(np.sum(estimate**2))
    if energy[0] <= 0.0:
        return math.nan
    return (
        float(np.sum(reference * estimate)) / math.sqrt(energy[0] * energy[1]) if energy[1] else 0.0
    )

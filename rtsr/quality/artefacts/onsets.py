"""Pre-echo: the high band of an attack that begins before the attack."""

from __future__ import annotations

import numpy as np

from rtsr.quality.artefacts.levels import AUDIBLE_DBFS, high_band, mean_or_nan, ratio_db
from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE

_BLOCK = SAMPLE_RATE // 1000
_BEFORE, _AFTER = 20, 5
_RISE = 10.0 ** (15.0 / 10.0)
_RANGE = 10.0 ** (-30.0 / 10.0)
_APART = 50
# The filter rings before an attack, so a clean one is found up to this many blocks early, less one.
_RINGING = 4
# What is evaluated ends early enough for the high-pass's own 2.5 ms to stay out of it.
_FIRST, _LAST = -10, -3
_MASKED = 10.0 ** (-40.0 / 10.0)


def pre_echo_db(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Measure the high band in the 10 to 3 ms before the reference's onsets, in dB over its own.

    The high band is taken with a linear-phase filter of 5 ms, its power in blocks of 1 ms. An onset
    is a block from which on 5 ms are at least 15 dB stronger than the 20 ms before, the largest
    such rise within 50 ms, and within 30 dB of the strongest such 5 ms of the reference. For each,
    ``10 log10(B_output / B_truth)`` with B the mean power of the seven blocks from 10 to 3 ms
    before it, each B counted as at least 40 dB below the reference's strongest 5 ms within 8 ms of
    the onset and as at least -80 dBFS (a full-scale sine is 0 dBFS); then the mean over onsets.

    Args:
        reference: shape (samples,), at 48 kHz.
        output: likewise, aligned with it.
        cutoff_hz: where the input's content ended.

    Returns:
        dB; NaN where the reference has no onset.
    """
    original = _block_powers(high_band(reference, cutoff_hz))
    made = _block_powers(high_band(output, cutoff_hz))
    values = []
    for onset, strength in _onsets(original):
        window = slice(onset + _FIRST, onset + _LAST)
        least = max(strength * _MASKED, 0.5 * 10.0 ** (AUDIBLE_DBFS / 10.0))
        values.append(ratio_db(float(made[window].mean()), float(original[window].mean()), least))
    return mean_or_nan(values)


def _block_powers(signal: Signal) -> Signal:
    whole = signal[: signal.size // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    return np.asarray(np.mean(whole**2, axis=1))


def _onsets(power: Signal) -> list[tuple[int, float]]:
    """Block and strength (mean power of its strongest 5 ms) of every onset."""
    if power.size < _BEFORE + _AFTER + 1:
        return []
    total = np.concatenate(([0.0], np.cumsum(power)))
    at = np.arange(_BEFORE, power.size - _AFTER)
    after = (total[at + _AFTER] - total[at]) / _AFTER
    before = np.maximum((total[at] - total[at - _BEFORE]) / _BEFORE, 1e-12)
    rise = after / before
    candidates = np.flatnonzero((rise >= _RISE) & (after >= after.max() * _RANGE))
    found: list[int] = []
    # The strongest first, so that each is the highest of its neighbourhood.
    for index in candidates[np.argsort(-rise[candidates], kind="stable")]:
        if all(abs(int(index) - other) >= _APART for other in found):
            found.append(int(index))
    return [
        (int(at[index]), float(after[index : index + _RINGING].max())) for index in sorted(found)
    ]

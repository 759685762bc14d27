"""From errors of band levels to gains, drawn towards zero by how unsure they are.

Gains of the bands of one cutoff are jointly normal, with a mean of zero and a spread that was
measured over a corpus (empirical Bayes: H. Robbins, "An empirical Bayes approach to statistics",
1956). What is measured on a sample is such gains plus an error of known spread, and the estimate is
their conditional mean. It is smooth over frequency, because neighbouring gains go together, and
has a value for bands in which nothing was measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.bands import BANDS, MAX_GAIN_DB, colour_centres

Levels = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Over 60 recordings of 60 voices, tracks and kinds of effect, `small` 0.6.0 is wrong by this much
# next to the cutoff, and by as much more in each octave above it (standard deviation, dB).
_SPREAD_DB, _SPREAD_PER_OCTAVE_DB = 3.0, 2.4
# Errors 1, 2, 4 and 8 bands apart correlate by 0.9, 0.8, 0.7 and 0.5.
_CORRELATION_BANDS = 11.0

# By this much (dB) a part of a recording, or another of the same source, differs from the rest
# however long it is: 4 dB for kinds of effects, 1.2 dB for voices, which need less. The larger one,
# because a colour that is used on a wrong voice then does less harm.
_DRIFT_DB = 4.0
# Of one band alone: what makes it ragged.
_RAGGEDNESS_DB = 0.7
# Where too few seconds are there to be compared, they differ by this much.
_UNKNOWN_SPREAD_DB = 5.0

_BLOCK_FRAMES = 100
# A band that is measured in fewer frames with sound than this share of them tells nothing.
_LEAST_SHARE = 0.1


def estimate_gains(errors: Levels, is_measured: Flags, cutoff_hz: float) -> Levels:
    """Estimate the gains ``(24,)`` in dB that make up for what is wrong all the time.

    Args:
        errors: ``(frames, 24)``, by how many dB the sound's own level of each band lies above what
            was generated; frames with sound only, 100 a second.
        is_measured: ``(frames, 24)``, which of them count.
        cutoff_hz: where the content of the input ended.
    """
    counts = is_measured.sum(axis=0)
    is_used = (counts > 0) & (counts >= _LEAST_SHARE * len(errors))
    if not is_used.any():
        return np.zeros(BANDS)
    means = mean_errors(errors, is_measured)
    octaves = np.log2(np.maximum(colour_centres() / cutoff_hz, 1.0))
    spread = _SPREAD_DB + _SPREAD_PER_OCTAVE_DB * octaves
    distance = np.abs(np.subtract.outer(np.arange(BANDS), np.arange(BANDS)))
    prior = np.exp(-distance / _CORRELATION_BANDS) * np.outer(spread, spread)
    # Bands are wrong together in what is measured as in what is true: one share for all of them.
    unsure = _error_variances(errors, is_measured)[is_used].mean() / (spread[is_used] ** 2).mean()
    noise = unsure * prior + _RAGGEDNESS_DB**2 * np.eye(BANDS)
    weights = np.linalg.solve((prior + noise)[np.ix_(is_used, is_used)], means[is_used])
    return np.clip(prior[:, is_used] @ weights, -MAX_GAIN_DB, MAX_GAIN_DB)


def mean_errors(errors: Levels, is_measured: Flags) -> Levels:
    """Return the mean over frames of each band ``(24,)``; NaN where none is measured."""
    counts = is_measured.sum(axis=0)
    sums = np.where(is_measured, errors, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _error_variances(errors: Levels, is_measured: Flags) -> Levels:
    """Return the variance of each band's mean in dB^2, by how the seconds of sound differ.

    Frames are no independent witnesses, for a vowel lasts ten of them; seconds nearly are.
    """
    starts = range(0, len(errors) - _BLOCK_FRAMES // 2, _BLOCK_FRAMES)
    blocks = np.array(
        [
            mean_errors(
                errors[start : start + _BLOCK_FRAMES], is_measured[start : start + _BLOCK_FRAMES]
            )
            for start in starts
        ]
    ).reshape(-1, BANDS)
    known = np.isfinite(blocks)
    counts = known.sum(axis=0)
    centred = np.where(known, blocks, 0.0)
    centred = np.where(known, centred - centred.sum(axis=0) / np.maximum(counts, 1), 0.0)
    variance = np.where(
        counts > 2, (centred**2).sum(axis=0) / np.maximum(counts - 1, 1), _UNKNOWN_SPREAD_DB**2
    )
    return np.asarray(variance / np.maximum(counts, 1) + _DRIFT_DB**2)

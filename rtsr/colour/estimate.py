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

# By this much (dB) a part of a recording, or another of the same voice, differs from the rest
# however long it is. Where it differs by more, and among effects and music many do, spectra differ,
# too, and that is what keeps a colour from being used (`rtsr.colour.spectrum`).
_DRIFT_DB = 1.0
# Of one band alone: what makes it ragged.
_RAGGEDNESS_DB = 0.7
# Seconds of one recording differ by this much, in the median of 69; and how much this tells of a
# recording beside its own seconds, as if it were so many more of them (moderated variances: G. K.
# Smyth, "Linear models and empirical Bayes methods", 2004).
_USUAL_SPREAD_DB = 3.0
_USUAL_COUNTS = 4.0

_BLOCK_FRAMES = 100
# A band that is measured in fewer frames with sound than this share of them tells nothing.
_LEAST_SHARE = 0.1


class ErrorSums:
    """What is kept of errors of levels: sums over frames, and over seconds of them, per band.

    Frames are no independent witnesses, for a vowel lasts ten of them; seconds nearly are. So how
    unsure a mean is follows from how the means of seconds differ, and, where there are few of them,
    from how they usually do.

    Attributes:
        frames: how many with sound were added.
    """

    def __init__(self) -> None:
        self.frames = 0.0
        # Frames, their sum, blocks of about a second, and the sum of their frames times the squares
        # of their means.
        self._sums = np.zeros((4, BANDS))

    @property
    def means(self) -> Levels:
        """Mean over frames of each band ``(24,)``; NaN where none is measured."""
        counts, sums = self._sums[:2]
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    @property
    def is_known(self) -> Flags:
        """Bands ``(24,)`` that were measured in enough of the frames to tell something."""
        counts = self._sums[0]
        return np.asarray((counts > 0) & (counts >= _LEAST_SHARE * self.frames))

    def add(self, errors: Levels, is_measured: Flags) -> None:
        """Add frames with sound in the order in which they were heard, 100 a second.

        Args:
            errors: ``(frames, 24)``, by how many dB the sound's own level of each band lies above
                what was generated.
            is_measured: ``(frames, 24)``, which of them count.
        """
        self.frames += len(errors)
        counted = np.where(is_measured, errors, 0.0)
        self._sums[:2] += is_measured.sum(axis=0), counted.sum(axis=0)
        blocks = max(1, round(len(errors) / _BLOCK_FRAMES))
        for block in np.array_split(np.arange(len(errors)), blocks):
            counts = is_measured[block].sum(axis=0)
            total = counted[block].sum(axis=0)
            self._sums[2:] += counts > 0, total**2 / np.maximum(counts, 1)

    def fade(self, share: float) -> None:
        """Let all that was added so far count for only a share of it."""
        self.frames *= share
        self._sums *= share

    def error_variances(self) -> Levels:
        """Return the variance of each band's mean ``(24,)`` in dB^2."""
        frames, sums, blocks, squares = self._sums
        spread = np.maximum(squares - sums**2 / np.maximum(frames, 1.0), 0.0) / _BLOCK_FRAMES
        of_a_second = (_USUAL_COUNTS * _USUAL_SPREAD_DB**2 + spread) / (
            _USUAL_COUNTS + np.maximum(blocks - 1.0, 0.0)
        )
        return np.asarray(of_a_second * _BLOCK_FRAMES / np.maximum(frames, 1.0) + _DRIFT_DB**2)


def estimate_gains(sums: ErrorSums, cutoff_hz: float) -> Levels:
    """Estimate the gains ``(24,)`` in dB that make up for what is wrong all the time.

    Args:
        sums: of the errors.
        cutoff_hz: where the content of the input ended.
    """
    is_used = sums.is_known
    if not is_used.any():
        return np.zeros(BANDS)
    octaves = np.log2(np.maximum(colour_centres() / cutoff_hz, 1.0))
    spread = _SPREAD_DB + _SPREAD_PER_OCTAVE_DB * octaves
    distance = np.abs(np.subtract.outer(np.arange(BANDS), np.arange(BANDS)))
    prior = np.exp(-distance / _CORRELATION_BANDS) * np.outer(spread, spread)
    # Bands are wrong together in what is measured as in what is true: one share for all of them.
    unsure = sums.error_variances()[is_used].mean() / (spread[is_used] ** 2).mean()
    noise = unsure * prior + _RAGGEDNESS_DB**2 * np.eye(BANDS)
    weights = np.linalg.solve((prior + noise)[np.ix_(is_used, is_used)], sums.means[is_used])
    return np.clip(prior[:, is_used] @ weights, -MAX_GAIN_DB, MAX_GAIN_DB)

"""Errors of the levels of the bands above the cutoff: on average, over time, and in loud parts.

A level that is wrong in the same way throughout a recording sounds like another timbre, one that is
wrong now and then as hoarse or lisping speech. So both are reported separately, and both again
for the loudest moments of the high band, which are the sibilants of a voice and the cymbals of a
band.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.spectra.band_powers import (
    LOWEST_DB,
    SOUND_RANGE_DB,
    band_powers,
    decibels,
    level_errors,
)
from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE

#: what :func:`band_levels` tells, in the order in which tables show it
BAND_LEVELS = (
    "level_bias_db",
    "level_wander_db",
    "level_bias_loud_db",
    "level_wander_loud_db",
    "level_loud_db",
    "level_octave1_db",
    "level_octave2_db",
    "level_octave3_db",
)
BANDS = 24
_TOP_HZ = 24000.0
_OCTAVES = 3
_LOUD_SHARE = 0.25

Mask = NDArray[np.bool_]


def band_levels(
    reference: Signal, estimate: Signal, cutoff_hz: float, sample_rate: int = SAMPLE_RATE
) -> dict[str, float]:
    """Measure the errors of the levels of 24 bands above the cutoff, in dB; negative is too quiet.

    *Bands*: evenly spaced from the cutoff to 24 kHz (or half the rate) on the scale
    ``2595 log10(1 + f / 700)`` (O'Shaughnessy; "HTK"), side by side. A band whose centre lies above
    where the reference itself ends (:func:`rtsr.bandwidth.file_cutoff.measure_cutoff`) is left out.

    *Levels*: sums of ``|X|^2`` over a band (n_fft 1024, hop 480, periodic Hann, centred: 21 ms, 100
    frames a second at 48 kHz; a bin on an edge is shared out), relative to a full-scale sine and
    clamped at -100 dB.

    *Frames*: those with sound, in which the reference's level over all frequencies is within 40 dB
    of its loudest frame. In them a band is evaluated where the reference's level is above the
    clamp. The loud ones are the quarter of them (rounded up) in which the reference's evaluated
    bands have the most energy together.

    *Errors*: ``e = level of the estimate - level of the reference`` per frame and band, limited to
    +-40 dB. With ``m`` for a band's mean of ``e`` over its frames:

    * ``level_bias_db``: mean over bands of ``|m|``: wrong colour;
    * ``level_wander_db``: ``sqrt(mean (e - m)^2)`` over all frames and bands: wrong from moment to
      moment;
    * ``level_bias_loud_db``, ``level_wander_loud_db``: the same over the loud frames alone, with
      their own means;
    * ``level_loud_db``: mean over bands of ``m`` itself over the loud frames;
    * ``level_octave1_db``, ``level_octave2_db``, ``level_octave3_db``: mean over frames of the same
      error of the sum of the bands that are centred in the first, second and third octave above
      the cutoff.

    Args:
        reference: shape (samples,).
        estimate: of the same shape, aligned with it.
        cutoff_hz: where the content of the processed system's input ended.
        sample_rate: of both, in Hz.

    Returns:
        a value for each of :data:`BAND_LEVELS`; NaN where there is nothing to evaluate, such as an
        octave that the reference does not reach.
    """
    nothing = dict.fromkeys(BAND_LEVELS, math.nan)
    edges = band_edges(cutoff_hz, sample_rate)
    reached = _centres(edges) <= measure_cutoff(reference, sample_rate)
    if not reached.any():
        return nothing
    reference_power, frame_power = band_powers(reference, edges, sample_rate)
    estimate_power, _ = band_powers(estimate, edges, sample_rate)
    reference_power, estimate_power = reference_power[:, reached], estimate_power[:, reached]

    evaluated = decibels(reference_power) > LOWEST_DB
    has_sound = frame_power > frame_power.max() * 10.0 ** (-SOUND_RANGE_DB / 10.0)
    has_sound &= evaluated.any(axis=1)
    if not has_sound.any():
        return nothing
    reference_power, estimate_power, evaluated = (
        reference_power[has_sound],
        estimate_power[has_sound],
        evaluated[has_sound],
    )
    error = level_errors(estimate_power, reference_power)
    loud = _loudest(reference_power.sum(axis=1))
    means, deviation = _means_and_deviation(error, evaluated)
    loud_means, loud_deviation = _means_and_deviation(error[loud], evaluated[loud])
    octaves = np.floor(np.log2(_centres(edges)[reached] / cutoff_hz))
    return {
        "level_bias_db": float(np.mean(np.abs(means))),
        "level_wander_db": deviation,
        "level_bias_loud_db": float(np.mean(np.abs(loud_means))),
        "level_wander_loud_db": loud_deviation,
        "level_loud_db": float(np.mean(loud_means)),
    } | {
        f"level_octave{number + 1}_db": _octave_error(
            reference_power, estimate_power, octaves == number
        )
        for number in range(_OCTAVES)
    }


def band_edges(cutoff_hz: float, sample_rate: int = SAMPLE_RATE) -> Signal:
    """Edges in Hz of the bands between the cutoff and 24 kHz or half the rate: (25,), rising."""
    ends = np.array([cutoff_hz, max(min(_TOP_HZ, sample_rate / 2.0), cutoff_hz)])
    low, high = 2595.0 * np.log10(1.0 + ends / 700.0)
    return np.asarray(700.0 * (10.0 ** (np.linspace(low, high, BANDS + 1) / 2595.0) - 1.0))


def _centres(edges: Signal) -> Signal:
    return 0.5 * (edges[:-1] + edges[1:])


def _loudest(power: Signal) -> NDArray[np.intp]:
    """Return the indices of the loudest quarter of the frames."""
    return np.argsort(-power, kind="stable")[: math.ceil(_LOUD_SHARE * power.size)]


def _means_and_deviation(error: Signal, evaluated: Mask) -> tuple[Signal, float]:
    """Return the mean error of each band that is evaluated anywhere, and the rms of the rest."""
    counts = evaluated.sum(axis=0)
    error, evaluated, counts = error[:, counts > 0], evaluated[:, counts > 0], counts[counts > 0]
    means = np.where(evaluated, error, 0.0).sum(axis=0) / counts
    return means, float(np.sqrt(np.mean((error - means)[evaluated] ** 2)))


def _octave_error(reference_power: Signal, estimate_power: Signal, inside: Mask) -> float:
    whole, estimated = reference_power[:, inside].sum(axis=1), estimate_power[:, inside].sum(axis=1)
    evaluated = decibels(whole) > LOWEST_DB
    return (
        float(np.mean(level_errors(estimated, whole)[evaluated])) if evaluated.any() else math.nan
    )

"""Bands, windows and tables of the spectral band replication in :mod:`rtsr_kernels.replicate`."""

from __future__ import annotations

import functools

import numpy as np
from numba import float64, int64

from .compiled import kernel
from .timing import HOP, OVERLAP, SAMPLE_RATE

ANALYSIS = 1024
BINS = ANALYSIS // 2 + 1
HZ_PER_BIN = SAMPLE_RATE / ANALYSIS
SYNTHESIS = HOP + OVERLAP


#: Frames that the features of one frame are computed from, the newest last.
CONTEXT = 23
#: Features per band: the three newest frames, the mean of four and of sixteen before them.
FEATURES_PER_BAND = 5

#: Of the cutoff: what lies above belongs to the slope of whatever filter made the limit.
TRUSTED = 0.93

_LOWEST_HZ = 50.0
_FEWEST_HZ = 600.0


def _erb_hz(frequency_hz: float) -> float:
    """Glasberg and Moore (1990): ``24.7 (1 + 0.00437 f)``."""
    return 24.7 * (1.0 + 0.00437 * frequency_hz)


@functools.lru_cache(maxsize=1)
def band_edges() -> np.ndarray:
    """Return band edges in Hz from 50 Hz to 24 kHz, one ERB apart but never less than two bins.

    One grid serves every cutoff: bands below it are analysed, bands above it are predicted.
    """
    top = SAMPLE_RATE / 2
    edges = [_LOWEST_HZ]
    while edges[-1] < top:
        edges.append(edges[-1] + max(_erb_hz(edges[-1]), 2.0 * HZ_PER_BIN))
    # A last band of less than half its width would be a poor estimate: its neighbour takes it.
    if top - edges[-2] < 0.5 * (edges[-1] - edges[-2]):
        edges.pop()
    edges[-1] = top
    result = np.array(edges)
    result.setflags(write=False)
    return result


BANDS = len(band_edges()) - 1
#: The fewest bands that a prediction starts from.
FEWEST_BANDS = int(np.searchsorted(band_edges(), _FEWEST_HZ))
#: The most: at least two bands are predicted.
MOST_BANDS = BANDS - 2


def analysis_window() -> np.ndarray:
    """Return the window ``(1024,)``, a long rise and a short fall: the newest samples weigh most.

    The fall is the falling ramp of a synthesis frame, so that a frame that was analysed can be
    turned into one without dividing by small numbers.
    """
    rise, fall = ANALYSIS - OVERLAP, OVERLAP
    return np.concatenate(
        [
            np.sin(0.5 * np.pi * (np.arange(rise) + 0.5) / rise) ** 2,
            np.cos(0.5 * np.pi * (np.arange(fall) + 0.5) / fall) ** 2,
        ]
    )


def synthesis_window(power: float) -> np.ndarray:
    """Return the window ``(600,)``, flat with ramps ``sin ** power``.

    With 2 the ramps of two frames add up to one, right for what continues from frame to frame;
    with 1 their squares do, right for independent noise.
    """
    ramp = np.sin(0.5 * np.pi * (np.arange(OVERLAP) + 0.5) / OVERLAP) ** power
    return np.concatenate([ramp, np.ones(HOP - OVERLAP), ramp[::-1]])


def replica_window() -> np.ndarray:
    """Return gains ``(600,)`` from the newest samples of an analysed frame to a synthesis frame."""
    return synthesis_window(2.0) / analysis_window()[-SYNTHESIS:]


def band_of_bin(bins: int = BINS) -> np.ndarray:
    """Return the band of each bin from 0 to 24 kHz, int64 ``(bins,)``, -1 below the first band."""
    frequency = np.linspace(0.0, SAMPLE_RATE / 2, bins)
    return np.minimum(np.searchsorted(band_edges(), frequency, side="right") - 1, BANDS - 1)


def place_of_bin() -> np.ndarray:
    """Return each bin's position among the bands' centres, ``(513,)``, in fractions of bands."""
    edges = band_edges()
    centres = 0.5 * (edges[:-1] + edges[1:])
    frequency = np.arange(BINS) * HZ_PER_BIN
    return np.interp(frequency, centres, np.arange(BANDS, dtype=np.float64))


_CENTRES = 0.5 * (band_edges()[:-1] + band_edges()[1:])


@kernel(int64(float64))
def bands_below(cutoff_hz: float) -> int:
    """Return the number of bands, from the lowest, below a cutoff of ``cutoff_hz``.

    A band counts if its centre lies below `TRUSTED` times the cutoff.
    """
    count = 0
    for band in range(BANDS):
        if _CENTRES[band] <= TRUSTED * cutoff_hz:
            count = band + 1
    return min(max(count, FEWEST_BANDS), MOST_BANDS)

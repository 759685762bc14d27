"""Fitting the regression of the ``replicate`` rung: from what is heard to what belongs above it.

Closed form, one table of weights for every number of heard bands, all from one look at each file.
Features come from the very kernels that run live. Fit it with
``python -m rtsr_bench.replicate_fit CORPUS``, judge it with
``python -m rtsr_bench.ridge evaluate CORPUS --model replicate``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rtsr.errors import RtsrError
from rtsr.timing import HOP
from rtsr_bench.ridge import SYNTHESIS, frame_matrix, load_full_band
from rtsr_bench.validation import Clip
from rtsr_kernels.replicate import band_densities, context_features
from rtsr_kernels.replicate_design import (
    ANALYSIS,
    BANDS,
    BINS,
    CONTEXT,
    FEATURES_PER_BAND,
    FEWEST_BANDS,
    MOST_BANDS,
    band_edges,
    band_of_bin,
    synthesis_window,
)

Array = NDArray[np.float64]

#: A mean of logarithms is quieter than the power it stands for. Giving back all of what active
#: frames lack makes the quiet ones, and so the whole, too loud; a quarter is right on average.
LEVEL_SHARE = 0.25
_LEVEL_EVERY = 5
_SILENT = 10.0**-8.0
# Truth that a lossy coder threw away: nothing is learned from how empty it is.
_EMPTY = 1e-8
_SMALLEST = 1.3e-11


@dataclass(frozen=True)
class Passage:
    """One file as frames: what is heard, what belongs above, and where its truth ends."""

    heard: Array  # (frames, bands) densities, analysis window
    wanted: Array  # (frames, bands) densities, synthesis window
    active: NDArray[np.bool_]  # (frames,) not silent
    taught: int  # bands, from the lowest, whose truth is there


def passage_of(samples: Array, measured_cutoff_hz: float) -> Passage:
    """Cut 48 kHz samples into frames; 16 bits first, as files hold no more."""
    samples = np.round(np.clip(samples, -1.0, 1.0) * 32767.0) / 32768.0
    frames = frame_matrix(samples, ANALYSIS)[CONTEXT:-2]
    newest = np.ascontiguousarray(frames, np.float32)
    heard = np.zeros((len(newest), BANDS))
    _fill_densities(newest, heard)
    window = synthesis_window(1.0)
    spectrum = np.fft.rfft(frames[:, -SYNTHESIS:] * window, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) / (window @ window)
    bands = band_of_bin(power.shape[1])
    members = (bands[:, None] == np.arange(BANDS)).astype(np.float64)
    wanted = power @ (members / np.maximum(members.sum(axis=0), 1.0))
    active = np.mean(frames[:, -SYNTHESIS:] ** 2, axis=1) > _SILENT
    active[: CONTEXT - 1] = False  # their context lies before the passage
    taught = int(np.searchsorted(band_edges()[1:], measured_cutoff_hz, side="right"))
    return Passage(heard, wanted, active, taught)


def load_passages(
    clips: Sequence[Clip], seconds: float, progress: Callable[[int, int], None] | None = None
) -> list[Passage]:
    """The loudest part of each clip, as frames; clips of under half a second are left out.

    Raises:
        RtsrError: there are no clips.
    """
    if not clips:
        raise RtsrError("There are no clips to fit the regression on.")
    passages = []
    for done, clip in enumerate(clips):
        if progress is not None:
            progress(done, len(clips))
        samples = load_full_band(clip.path, seconds)
        if samples.size > 2 * CONTEXT * HOP:
            passages.append(passage_of(samples, clip.measured_cutoff_hz))
    return passages


def fit(
    passages: Sequence[Passage],
    penalty: float = 1e-3,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Weights ``(bands, 1 + 5 * bands, bands)``: bands heard, feature (first constant), band.

    Args:
        penalty: of the ridge, relative to the mean variance of a feature.
        progress: called with (tables done, tables in all) before each.
    """
    weights = np.zeros((BANDS, 1 + FEATURES_PER_BAND * BANDS, BANDS), np.float32)
    tables = range(FEWEST_BANDS, MOST_BANDS + 1)
    for done, heard in enumerate(tables):
        if progress is not None:
            progress(done, len(tables))
        table = _fit_one(passages, heard, penalty)
        table[0] += LEVEL_SHARE * _missing_level(passages, heard, table)
        weights[heard, : table.shape[0], heard:] = table
    # A cutoff below the grid's start is served by the lowest table there is.
    weights[:FEWEST_BANDS] = weights[FEWEST_BANDS]
    return weights


def _fit_one(passages: Sequence[Passage], heard: int, penalty: float) -> Array:
    size, bands = 1 + FEATURES_PER_BAND * heard, BANDS - heard
    gram = np.zeros((bands, size, size))
    moment = np.zeros((bands, size))
    for passage in passages:
        seen, wanted = _examples(passage, heard)
        taught = max(passage.taught - heard, 1)
        gram[taught - 1] += seen.T @ seen
        moment[:taught] += (wanted.T @ seen)[:taught]
    # A file teaches its band and all below it, so each band's sum is that of all files above.
    gram = np.cumsum(gram[::-1], axis=0)[::-1]
    table = np.zeros((size, bands))
    for band in range(bands):
        if gram[band, 0, 0] == 0.0:  # nobody taught it: continue the band below
            table[:, band] = table[:, band - 1]
            continue
        ridge = penalty * np.trace(gram[band]) / size * np.eye(size)
        ridge[0, 0] = 0.0
        table[:, band] = np.linalg.solve(gram[band] + ridge, moment[band])
    return table


def _missing_level(passages: Sequence[Passage], heard: int, table: Array) -> float:
    """log10 of the power that the regression lacks where the high band is active: file median."""
    widths = np.diff(band_edges())[heard:]
    ratios = []
    for passage in passages[::_LEVEL_EVERY]:
        seen, wanted = _examples(passage, heard)
        taught = max(passage.taught - heard, 1)
        truth = 10.0 ** wanted[:, :taught] @ widths[:taught]
        guess = 10.0 ** (seen @ table)[:, :taught] @ widths[:taught]
        active = truth > 1e-4 * truth.max(initial=0.0)
        if active.any():
            ratios.append(np.mean(np.log10(truth[active] / guess[active])))
    return float(np.median(ratios)) if ratios else 0.0


def _examples(passage: Passage, heard: int) -> tuple[Array, Array]:
    """Features with a leading one, and what is wanted, both relative to the level."""
    features = np.ones((len(passage.heard), 1 + FEATURES_PER_BAND * heard))
    level = np.zeros(len(passage.heard))
    _fill_features(passage.heard, heard, features, level)
    smallest = np.maximum(_EMPTY * 10.0**level, _SMALLEST)
    wanted = np.log10(np.maximum(passage.wanted[:, heard:], smallest[:, None])) - level[:, None]
    return features[passage.active], wanted[passage.active]


@njit(cache=True)
def _fill_densities(newest, densities):  # type: ignore[no-untyped-def]
    real, imaginary = np.zeros(ANALYSIS), np.zeros(ANALYSIS)
    for frame in range(newest.shape[0]):
        band_densities(newest[frame], BINS - 1, real, imaginary, densities[frame])


@njit(cache=True)
def _fill_features(densities, heard, features, level):  # type: ignore[no-untyped-def]
    for frame in range(CONTEXT - 1, densities.shape[0]):
        context = densities[frame + 1 - CONTEXT : frame + 1]
        level[frame] = context_features(context, heard, features[frame, 1:])


if __name__ == "__main__":
    from rtsr_bench.replicate_command import main

    main()

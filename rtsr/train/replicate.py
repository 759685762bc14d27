"""Fitting the regression of ``replicate``: from the bands of the input to those above it.

Closed form, one table of weights for every number of input bands, all from one reading of each
file. Features come from the very kernels that run live. Fit it with
``python -m rtsr.train.fit_replicate CORPUS``, score it with
``rtsr bench quality CORPUS --out report --model replicate``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import int64, void
from numpy.typing import NDArray

from rtsr.errors import RtsrError
from rtsr.timing import HOP, SAMPLE_RATE
from rtsr.train.decode import UnusableFile, decode
from rtsr.train.excerpt import loudest_part
from rtsr.train.listing import Listed
from rtsr_kernels.compiled import AUDIO, MATRIX, VECTOR, kernel
from rtsr_kernels.replicate import band_densities, context_features
from rtsr_kernels.replicate_design import (
    ANALYSIS,
    BANDS,
    BINS,
    CONTEXT,
    FEATURES_PER_BAND,
    FEWEST_BANDS,
    MOST_BANDS,
    SYNTHESIS,
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
# Content that a lossy coder threw away: nothing is learned from how empty it is.
_EMPTY = 1e-8
_SMALLEST = 1.3e-11


@dataclass(frozen=True)
class Passage:
    """One file as frames.

    Attributes:
        densities: ``(frames, bands)`` as the engine analyses its input.
        wanted: ``(frames, bands)`` as it synthesises what belongs above.
        active: ``(frames,)``, false in silence.
        taught: bands, from the lowest, up to the end of the recording's own content.
    """

    densities: Array
    wanted: Array
    active: NDArray[np.bool_]
    taught: int


def passage_of(samples: Array, measured_cutoff_hz: float) -> Passage:
    """Cut 48 kHz samples into frames; 16 bits first, as files hold no more."""
    samples = np.round(np.clip(samples, -1.0, 1.0) * 32767.0) / 32768.0
    frames = frame_matrix(samples, ANALYSIS)[CONTEXT:-2]
    newest = np.ascontiguousarray(frames, np.float32)
    densities = np.zeros((len(newest), BANDS))
    _fill_densities(newest, densities)
    window = synthesis_window(1.0)
    spectrum = np.fft.rfft(frames[:, -SYNTHESIS:] * window, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) / (window @ window)
    bands = band_of_bin(power.shape[1])
    members = (bands[:, None] == np.arange(BANDS)).astype(np.float64)
    wanted = power @ (members / np.maximum(members.sum(axis=0), 1.0))
    active = np.mean(frames[:, -SYNTHESIS:] ** 2, axis=1) > _SILENT
    active[: CONTEXT - 1] = False  # their context lies before the passage
    taught = int(np.searchsorted(band_edges()[1:], measured_cutoff_hz, side="right"))
    return Passage(densities, wanted, active, taught)


@dataclass(frozen=True)
class Loaded:
    """What there is to fit on.

    Attributes:
        recordings: those that are used; ``passages`` has one of each.
        left_out: why the others are not, by path.
    """

    recordings: list[Listed]
    passages: list[Passage]
    left_out: dict[str, str]


def load_passages(
    folder: Path,
    recordings: Sequence[Listed],
    seconds: float,
    progress: Callable[[int, int], None] | None = None,
) -> Loaded:
    """Cut the loudest part of each recording into frames.

    Where a recording ends is measured, as for :func:`rtsr.train.decode.decode`; a manifest can only
    lower it. Those that cannot be decoded, or are under half a second, are left out.

    Args:
        folder: that the recordings are listed in.
        recordings: from :func:`rtsr.train.listing.list_recordings`.
        seconds: of each recording.
        progress: called with (recordings done, recordings in all) before each.

    Raises:
        RtsrError: there are no recordings, or none that can be used.
    """
    if not recordings:
        raise RtsrError("There are no recordings to fit the regression on.")
    loaded = Loaded([], [], {})
    for done, one in enumerate(recordings):
        if progress is not None:
            progress(done, len(recordings))
        try:
            clip = decode(folder / one.path, one)
        except UnusableFile as error:
            loaded.left_out[one.path] = error.reason
            continue
        part = loudest_part(clip.samples / 32768.0, round(seconds * SAMPLE_RATE))
        if part.size <= 2 * CONTEXT * HOP:
            loaded.left_out[one.path] = f"{part.size / SAMPLE_RATE:.2f} s long"
            continue
        loaded.recordings.append(one)
        loaded.passages.append(passage_of(part, clip.cutoff_hz))
    if not loaded.passages:
        first, why = next(iter(loaded.left_out.items()))
        raise RtsrError(f"None of the recordings can be used to fit on; {first}: {why}.")
    return loaded


def frame_matrix(samples: Array, length: int) -> Array:
    """Cut frames of the newest ``length`` samples at every whole hop: ``(frames, length)``.

    Frame ``k`` (from 1) ends at sample ``480 k``; before the start and after the end lie zeros.
    """
    frames = -(-samples.size // HOP) + 1
    padded = np.zeros(length - HOP + frames * HOP)
    padded[length - HOP : length - HOP + samples.size] = samples
    return np.lib.stride_tricks.sliding_window_view(padded, length)[::HOP]


def fit(
    passages: Sequence[Passage],
    penalty: float = 1e-3,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Solve for weights ``(bands, 1 + 5 * bands, bands)``: audible bands, feature, band.

    The first feature is a constant.

    Args:
        passages: from :func:`load_passages`.
        penalty: of the ridge, relative to the mean variance of a feature.
        progress: called with (tables done, tables in all) before each.
    """
    weights = np.zeros((BANDS, 1 + FEATURES_PER_BAND * BANDS, BANDS), np.float32)
    tables = range(FEWEST_BANDS, MOST_BANDS + 1)
    for done, audible in enumerate(tables):
        if progress is not None:
            progress(done, len(tables))
        table = _fit_one(passages, audible, penalty)
        table[0] += LEVEL_SHARE * _missing_level(passages, audible, table)
        weights[audible, : table.shape[0], audible:] = table
    # A cutoff below the grid's start is served by the lowest table there is.
    weights[:FEWEST_BANDS] = weights[FEWEST_BANDS]
    return weights


def _fit_one(passages: Sequence[Passage], audible: int, penalty: float) -> Array:
    size, bands = 1 + FEATURES_PER_BAND * audible, BANDS - audible
    gram = np.zeros((bands, size, size))
    moment = np.zeros((bands, size))
    for passage, taught in _teaching(passages, audible):
        seen, wanted = _examples(passage, audible)
        gram[taught - 1] += seen.T @ seen
        moment[:taught] += (wanted.T @ seen)[:taught]
    # A file teaches its band and all below it, so each band's sum is that of all files above.
    gram = np.cumsum(gram[::-1], axis=0)[::-1]
    return solve_bands(gram, moment, penalty)


def _teaching(passages: Sequence[Passage], audible: int) -> list[tuple[Passage, int]]:
    """Choose passages for a table, each with how many of the bands above the input it teaches.

    One that ends below a table's first band teaches nothing of it. If all do, it is what they are
    there: empty, rather than as loud as the input.
    """
    found = [(one, one.taught - audible) for one in passages if one.taught > audible]
    return found or [(one, 1) for one in passages]


def solve_bands(gram: Array, moment: Array, penalty: float) -> Array:
    """Solve a ridge regression for each band.

    Args:
        gram: ``(bands, features, features)``; the first feature is a constant one.
        moment: ``(bands, features)``.
        penalty: relative to the mean variance of a feature; the constant has none.

    Returns:
        weights ``(features, bands)``; a band that no file teaches continues the one below.
    """
    bands, size = moment.shape
    table = np.zeros((size, bands))
    for band in range(bands):
        if gram[band, 0, 0] == 0.0:
            table[:, band] = table[:, band - 1]
            continue
        ridge = penalty * np.trace(gram[band]) / size * np.eye(size)
        ridge[0, 0] = 0.0
        table[:, band] = np.linalg.solve(gram[band] + ridge, moment[band])
    return table


def _missing_level(passages: Sequence[Passage], audible: int, table: Array) -> float:
    """Measure log10 of the power that the regression lacks where the high band is active.

    The median over the files.
    """
    widths = np.diff(band_edges())[audible:]
    ratios = []
    for passage, taught in _teaching(passages, audible)[::_LEVEL_EVERY]:
        seen, wanted = _examples(passage, audible)
        reference = 10.0 ** wanted[:, :taught] @ widths[:taught]
        guess = 10.0 ** (seen @ table)[:, :taught] @ widths[:taught]
        active = reference > 1e-4 * reference.max(initial=0.0)
        if active.any():
            ratios.append(np.mean(np.log10(reference[active] / guess[active])))
    return float(np.median(ratios)) if ratios else 0.0


def _examples(passage: Passage, audible: int) -> tuple[Array, Array]:
    """Gather features with a leading one, and what is wanted, both relative to the level."""
    features = np.ones((len(passage.densities), 1 + FEATURES_PER_BAND * audible))
    level = np.zeros(len(passage.densities))
    _fill_features(passage.densities, audible, features, level)
    smallest = np.maximum(_EMPTY * 10.0**level, _SMALLEST)
    wanted = np.log10(np.maximum(passage.wanted[:, audible:], smallest[:, None])) - level[:, None]
    return features[passage.active], wanted[passage.active]


@kernel(void(AUDIO, MATRIX))
def _fill_densities(newest: NDArray[np.float32], densities: Array) -> None:
    real, imaginary = np.zeros(ANALYSIS), np.zeros(ANALYSIS)
    for frame in range(newest.shape[0]):
        band_densities(newest[frame], BINS - 1, real, imaginary, densities[frame])


@kernel(void(MATRIX, int64, MATRIX, VECTOR))
def _fill_features(densities: Array, audible: int, features: Array, level: Array) -> None:
    for frame in range(CONTEXT - 1, densities.shape[0]):
        context = densities[frame + 1 - CONTEXT : frame + 1]
        level[frame] = context_features(context, audible, features[frame, 1:])

"""Fitting the band regression of a trained model, in closed form, on powers of bands.

Its inputs come from the model's own module, and batches from where those of the band predictor
come from. Fit it with ``python -m rtsr.train.fit_band_regression CHECKPOINT CORPUS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtsr.errors import RtsrError
from rtsr.model.analysis import below
from rtsr.model.band_predictor import LEAST_POWER, log_powers
from rtsr.model.band_regression import BandRegression
from rtsr.model.bands import band_centres
from rtsr.timing import HOP
from rtsr.train.band_domain import BandDomain, Bands
from rtsr.train.corpus import Corpus
from rtsr.train.degrade import DegradeConfig
from rtsr.train.replicate import solve_bands

Array = NDArray[np.float64]

#: Inputs are filtered, but colour, speed and noise floor stay as they were recorded: where these
#: are drawn at random, less follows from the bands below, and the regression gains half as much.
AS_RECORDED = DegradeConfig(
    equalizer_share=0.0, mix_share=0.0, speed_share=0.0, floor_share=0.0, cutoff_jitter=0.0
)
#: clips and frames of a batch; the first frames are passed over, as their past is not known
BATCH, FRAMES, FRESH_FRAMES = 16, 400, 16
#: of the ridge, relative to the mean variance of an input
PENALTY = 4e-3
#: by how many dB what is fitted is raised: a mean of logarithms is quieter than the power that it
#: stands for
LIFT_DB = 2.0
#: frames this far below their clip's loudest, in dB, or further have the least weight
QUIET_RANGE_DB, LEAST_WEIGHT = 40.0, 0.1
#: share of a clip's frames that are at most as loud as its loudest
LOUDEST = 0.95
#: natural logarithm of the power of an input that is silent
SILENT = -18.4
#: least cutoff that is drawn, in Hz: about that of the first map
LEAST_CUTOFF_HZ = 2200.0
#: a reference that goes on for less than this factor above the cutoff teaches nothing
LEAST_SPAN = 1.15
#: frames from which on a band counts as taught, for each input of a map
FRAMES_PER_INPUT = 8
#: rounds of alternating least squares in which the common basis is found
ROUNDS = 40
_DECIBEL = 10.0 / np.log(10.0)


@dataclass
class NormalEquations:
    """Sums of products of inputs with each other and with what is wanted of them.

    Attributes:
        regression: the module that they are for.
        sums: by map and by the number of bands that the reference has, so that a recording teaches
            just those: products of inputs ``(inputs, inputs)``, and of inputs with levels
            ``(inputs, bands)``.
        frames: how many there were.
    """

    regression: BandRegression
    sums: dict[tuple[int, int], tuple[Array, Array]] = field(default_factory=dict)
    frames: int = 0

    def add(
        self, inputs: Tensor, levels: Tensor, weights: Tensor, ends: Tensor, of: Tensor
    ) -> None:
        """Add a batch.

        Args:
            inputs: ``(batch, frames, inputs)``.
            levels: wanted natural logarithms of power relative to the input's, ``(batch, frames,
                bands)``.
            weights: of frames, ``(batch, frames, 1)``.
            ends: number of bands that each reference has, ``(batch,)``.
            of: number of the map of each frame, ``(batch, frames)``.
        """
        weighted = (inputs * weights).transpose(1, 2)
        grams, moments = (weighted @ inputs).double(), (weighted @ levels).double()
        for clip, (end, number) in enumerate(zip(ends.tolist(), of[:, 0].tolist(), strict=True)):
            gram, moment = grams[clip].numpy(), moments[clip].numpy()
            if (number, end) in self.sums:
                gram = gram + self.sums[number, end][0]
                moment = moment + self.sums[number, end][1]
            self.sums[number, end] = gram, moment
        self.frames += int((weights > 0.0).sum())

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return the module's ``maps`` and ``basis``.

        Raises:
            RtsrError: nothing teaches any map.
        """
        solved = [self._solve_one(number) for number in range(self.regression.maps.shape[0])]
        known = [one for one in solved if one is not None]
        if not known:
            raise RtsrError("No recording goes on above the cutoffs that are learnt from.")
        basis = _common_basis(known, self.regression.basis.shape[0])
        lift = np.linalg.lstsq(basis, np.full(len(basis), LIFT_DB / _DECIBEL), rcond=None)[0]
        maps = np.zeros(self.regression.maps.shape)
        nearest = known[0]
        for number, one in enumerate(solved):
            # Inputs that end where nothing was heard to go on have the map of those that end lower.
            nearest = nearest if one is None else one
            maps[number] = nearest.reduced_to(basis)
            maps[number][0] += lift
        return torch.from_numpy(maps).float(), torch.from_numpy(basis.T).float()

    def _solve_one(self, number: int) -> _Map | None:
        bands = self.regression.bands
        size = self.regression.inputs
        first = min(self.regression.fewest + number, bands - 1)
        gram, moment = np.zeros((bands, size, size)), np.zeros((bands, size))
        for (of, end), (one, with_levels) in self.sums.items():
            if of == number and end > 0:
                gram[end - 1] += one
                moment[:end] += with_levels.T[:end]
        # A reference teaches its last band and all below it.
        gram = np.cumsum(gram[::-1], axis=0)[::-1]
        taught = gram[:, 0, 0] > FRAMES_PER_INPUT * size
        if not taught[first]:
            return None
        # Bands that the input has not are inputs that are always zero.
        used = np.flatnonzero(np.diagonal(gram[first]) > 0.0)
        above = np.flatnonzero(taught[first:]) + first
        within = np.ix_(above, used, used)
        table = solve_bands(gram[within], moment[np.ix_(above, used)], PENALTY)
        weights = np.zeros((size, bands))
        weights[np.ix_(used, above)] = table
        return _Map(weights, gram[first] / gram[first, 0, 0], above)


@dataclass(frozen=True)
class _Map:
    """A map of full rank ``(inputs, bands)``, moments of its inputs, and the bands it knows."""

    weights: Array
    moments: Array
    known: NDArray[np.intp]

    def reduced_to(self, basis: Array) -> Array:
        """Return the map ``(inputs, rank)`` that is nearest with a basis ``(bands, rank)``."""
        return self.weights[:, self.known] @ np.linalg.pinv(basis[self.known], rcond=1e-6).T


def _common_basis(maps: list[_Map], rank: int) -> Array:
    """Find the basis ``(bands, rank)`` with which the maps' values are nearest to what they were.

    Alternating least squares, from the principal components of the values.
    """
    bands = maps[0].weights.shape[1]
    values = sum(one.weights.T @ one.moments @ one.weights for one in maps)
    basis = np.linalg.eigh(values)[1][:, -rank:]
    for _ in range(ROUNDS):
        gram, moment = np.zeros((bands, rank, rank)), np.zeros((bands, rank))
        for one in maps:
            reduced = one.reduced_to(basis)
            gram[one.known] += reduced.T @ one.moments @ reduced
            moment[one.known] += (reduced.T @ one.moments @ one.weights[:, one.known]).T
        known = np.trace(gram, axis1=1, axis2=2) > 0.0
        little = 1e-9 * gram[known].mean(axis=0).trace() * np.eye(rank)
        basis[known] = np.linalg.solve(gram[known] + little, moment[known][:, :, None])[:, :, 0]
    for band in range(1, bands):
        # The last of all lies at 24 kHz, where no reference goes on.
        if not known[band] and known[:band].any():
            basis[band] = basis[band - 1]
    return basis


def collect(
    regression: BandRegression,
    domain: BandDomain,
    corpus: Corpus,
    batches: int,
    seed: int,
    shares: Mapping[str, float],
    progress: Callable[[int, int], None] | None = None,
) -> NormalEquations:
    """Draw batches of a corpus, degrade them, and sum up what they teach.

    Args:
        regression: the module to be fitted.
        domain: degrades, :data:`AS_RECORDED`.
        corpus: recordings of sound other than speech.
        batches: how many, of 64 s each.
        seed: of all that is drawn.
        shares: of the domains.
        progress: called with (batches done, batches in all) before each.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    found = NormalEquations(regression)
    config = domain.config
    speeds = config.speed_share, (config.lowest_speed, config.highest_speed)
    for done in range(batches):
        if progress is not None:
            progress(done, batches)
        crops = corpus.draw(rng, BATCH, FRAMES * HOP, 0.0, shares, *speeds)
        add_batch(found, domain.degrade(crops, rng, draw_evenly))
    return found


def draw_evenly(ends: np.ndarray, config: DegradeConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw cutoffs in Hz, each band's as often as another's, below where a clip's content ends."""
    highest = np.minimum(config.highest_hz, ends / LEAST_SPAN).clip(min=LEAST_CUTOFF_HZ)
    # Bands are evenly spaced in mel.
    low, high = (np.log1p(edge / 700.0) for edge in (LEAST_CUTOFF_HZ, highest))
    return np.asarray(700.0 * np.expm1(rng.uniform(low, high)))


def add_batch(found: NormalEquations, bands: Bands) -> None:
    """Add what one batch teaches."""
    centres = band_centres(bands.power.shape[2])
    with torch.no_grad():
        is_input = below(bands.cutoffs, centres)
        energy, loudness = log_powers(bands.power, is_input)
        regression = found.regression
        state = regression.initial_state(energy.shape[0])
        inputs, _ = regression.observe(energy, loudness, is_input, state)
        levels = (bands.reference + LEAST_POWER).log() - loudness
        loudest = loudness.quantile(LOUDEST, dim=1, keepdim=True)
        quieter = _DECIBEL * (loudest - loudness)
        weights = (1.0 - quieter / QUIET_RANGE_DB).clamp(LEAST_WEIGHT, 1.0)
        weights = weights * (loudness > SILENT)
        weights[:, :FRESH_FRAMES] = 0.0
        ends = (centres < bands.f_end[:, None]).sum(dim=1)
        found.add(inputs, levels, weights, ends, regression.map_of(is_input))

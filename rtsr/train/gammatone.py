"""The bands in which ViSQOL compares two sounds, and how much each counts in restored speech.

ViSQOL (Chinen et al. 2020, arXiv 2004.09584) compares spectrograms of 32 gammatone filters. How
much the similarity of each one moves the score depends on the score itself: at those of restored
speech nearly all weight lies on the highest nine, from 7 to 21 kHz.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rtsr.model.bands import band_interpolation
from rtsr.model.config import NYQUIST

FILTERS = 32
LOWEST_HZ = 50.0
#: of the scale of equivalent rectangular bandwidths (Glasberg and Moore 1990): the ear's quality
#: and its least bandwidth in Hz
EAR_QUALITY, LEAST_BANDWIDTH_HZ = 9.26449, 24.7
#: bandwidth of a gammatone filter of fourth order, in equivalent rectangular bandwidths
GAMMATONE_WIDTH = 1.019
#: bins to 24 kHz on which the filters' responses are sampled
BINS = 4801
#: slopes of ViSQOL's regression in the similarity of its highest filters, at a score of 2.6
SLOPES = (0.07, 0.29, 0.36, 0.45, 0.54, 0.54, 0.42, 0.36, 0.24)
#: share of the weight that all filters have alike
EVEN_SHARE = 0.1


def gammatone_centres() -> Tensor:
    """Return the centres of the filters in Hz ``(32,)``, lowest first (Slaney 1993)."""
    corner = EAR_QUALITY * LEAST_BANDWIDTH_HZ
    steps = torch.arange(FILTERS, 0, -1, dtype=torch.float64) / FILTERS
    ratio = (LOWEST_HZ + corner) / (NYQUIST + corner)
    return (NYQUIST + corner) * ratio**steps - corner


def gammatone_powers(bands: int) -> Tensor:
    """Return the matrix ``(bands, 32)`` from mel bands' mean power of a bin to filters' powers.

    The filters' responses are those of the fourth order's envelope (Patterson et al. 1987).
    """
    centres = gammatone_centres()
    widths = GAMMATONE_WIDTH * (centres / EAR_QUALITY + LEAST_BANDWIDTH_HZ)
    frequencies = torch.linspace(0.0, NYQUIST, BINS, dtype=torch.float64)
    distance = (frequencies - centres[:, None]) / widths[:, None]
    response = (1.0 + distance.square()) ** -4
    shares = response @ band_interpolation(bands, BINS).double().T
    return (shares.T / (BINS - 1)).float()


def gammatone_weights() -> Tensor:
    """Return how much each filter counts ``(32,)``; the sum is one."""
    slopes = np.zeros(FILTERS)
    slopes[-len(SLOPES) :] = SLOPES
    weights = (1.0 - EVEN_SHARE) * slopes / slopes.sum() + EVEN_SHARE / FILTERS
    return torch.tensor(weights, dtype=torch.float32)

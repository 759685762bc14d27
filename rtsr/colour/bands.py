"""The bands and cutoffs for which a colour has gains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BANDS = 24
LOWEST_HZ, HIGHEST_HZ = 4000.0, 24000.0

#: Rates in Hz that narrow sound has in practice: telephone, 11.025 kHz, wide band, super-wide band.
#: What is missing at another cutoff is interpolated between the two that surround it.
NARROW_RATES = (8000, 11025, 16000, 24000)
#: Hz where the content of sound of those rates ends.
CUTOFFS_HZ = tuple(rate / 2.0 for rate in NARROW_RATES)

#: No gain goes beyond this, in dB.
MAX_GAIN_DB = 12.0


def colour_edges() -> NDArray[np.float64]:
    """Edges of the bands in Hz, ``(25,)``: each is 0.11 octaves wide, from 4 to 24 kHz."""
    return np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1)


def colour_centres() -> NDArray[np.float64]:
    """Geometric centres of the bands in Hz, ``(24,)``."""
    edges = colour_edges()
    return np.asarray(np.sqrt(edges[:-1] * edges[1:]))

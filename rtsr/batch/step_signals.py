"""The signals of a network's step, of all slots of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass
class StepSignals:
    """Signals of one of the steps that a run takes in turn; row ``i`` of each is of slot ``i``.

    Attributes:
        audio, noise, f_prior, f_target, high_band: as those of
            :class:`~rtsr.runtime.session.OnnxStep`.
    """

    audio: Array
    noise: Array
    f_prior: Array
    f_target: Array
    high_band: Array

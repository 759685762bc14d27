"""Which hops of a running stream have sound."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Hops within so many dB of the loudest one have sound.
_SOUND_RANGE_DB, _SILENCE_DB = 40.0, -70.0
# 1 dB in 10 s: one loud moment must not keep the rest out for ever.
_FORGOTTEN_DB_PER_HOP = 0.001


class SoundActivity:
    """Tells sound from pauses by the loudest hop so far, which is slowly forgotten."""

    def __init__(self) -> None:
        self._loudest_db = _SILENCE_DB + _SOUND_RANGE_DB

    def hears(self, hop: NDArray[np.float32]) -> bool:
        """Return whether the next hop ``(samples,)`` has sound."""
        return self.has_sound(10.0 * math.log10(float(np.dot(hop, hop)) / len(hop) + 1e-20))

    def has_sound(self, level_db: float, stands_for: int = 1) -> bool:
        """Return whether a hop of that level, which stands for so many hops, has sound."""
        fallen_db = self._loudest_db - _FORGOTTEN_DB_PER_HOP * stands_for
        self._loudest_db = max(fallen_db, level_db, _SILENCE_DB + _SOUND_RANGE_DB)
        return level_db >= self._loudest_db - _SOUND_RANGE_DB

"""Which hops of a running stream have sound."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Hops within so many dB of the loudest one have sound.
_SOUND_RANGE_DB, _SILENCE_DB = 40.0, -70.0
# Of full scale, which no sound is meant to exceed.
_HIGHEST_DB = 0.0
# 1 dB in 10 s: one loud part must not keep the rest out for ever.
_FORGOTTEN_DB_PER_HOP = 0.001
# 2 dB in 1 s: what was as loud for one or two hops only, unless it comes again, as a drum does.
_BRIEF_FORGOTTEN_DB_PER_HOP = 0.02


class SoundActivity:
    """Tells sound from pauses by the loudest hop so far, which is slowly forgotten.

    What is louder than all else for two hops or less, such as a click, is forgotten soon.
    """

    def __init__(self) -> None:
        self._loudest_db = self._brief_db = _SILENCE_DB + _SOUND_RANGE_DB
        self._last_db = self._last_but_one_db = _SILENCE_DB

    def hop_has_sound(self, hop: NDArray[np.float32]) -> bool:
        """Return whether the next hop ``(samples,)`` has sound."""
        return self.has_sound(10.0 * math.log10(float(np.dot(hop, hop)) / len(hop) + 1e-20))

    def has_sound(self, level_db: float, stands_for: int = 1) -> bool:
        """Return whether a hop of that level, which stands for so many hops, has sound."""
        level_db = min(level_db, _HIGHEST_DB)
        lasting_db = min(level_db, self._last_db)
        if stands_for == 1:
            # A click may lie in two hops that follow each other.
            lasting_db = min(lasting_db, self._last_but_one_db)
        self._last_db, self._last_but_one_db = level_db, self._last_db
        self._loudest_db = max(
            self._loudest_db - _FORGOTTEN_DB_PER_HOP * stands_for,
            lasting_db,
            _SILENCE_DB + _SOUND_RANGE_DB,
        )
        fallen_db = self._brief_db - _BRIEF_FORGOTTEN_DB_PER_HOP * stands_for
        self._brief_db = max(fallen_db, level_db, self._loudest_db)
        return level_db >= self._brief_db - _SOUND_RANGE_DB

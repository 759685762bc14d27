"""A source of high bands that can be switched off and on while the sound goes on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.shedding import PREROLL_HOPS
from rtsr.engine.sources import HighBandSource
from rtsr.timing import HOP

Audio = NDArray[np.float32]


class SwitchedSource:
    """Another source while it is wanted; silence, which takes no time, while it is not.

    Off is a fade-out over the next step, since it is for want of time. On, the source starts anew
    and runs for a while unheard before it is faded in. The very first step is as it is wanted.

    Args:
        source: makes the high band.

    Attributes:
        is_wanted: may be changed between two steps.
        sounds: whether the last step was not silence.
    """

    def __init__(self, source: HighBandSource) -> None:
        self._source = source
        self.name = source.name
        self.channels = source.channels
        self.hops = source.hops
        self.overlap = source.overlap
        self.is_wanted = True
        samples = HOP * source.hops
        self._silence: Audio = np.zeros((samples, source.channels), np.float32)
        self._rise = ((np.arange(samples) + 1.0) / samples).astype(np.float32)[:, None]
        self._fall = 1.0 - self._rise
        self.reset()

    @property
    def seed(self) -> int:
        """Of the noise; may be changed between two steps."""
        return self._source.seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._source.seed = value

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self._source.reset()
        self._frame = 0
        self._is_first = True
        self.sounds = False
        self._is_on = False
        self._fed = 0

    def resume(self, frame: int) -> None:
        """Go on at another hop; what the source remembers stays."""
        self._source.resume(frame)
        self._frame = frame

    def generate(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> Audio:
        """Take one step, see :meth:`~rtsr.engine.sources.HighBandSource.generate`."""
        frame = self._frame
        self._frame += self.hops
        if self._is_first:
            self._is_on = self.is_wanted
        elif self.is_wanted and not self._is_on and not self._fed:
            self._source.reset()
            self._source.resume(frame)
        self._is_first = False
        self.sounds = self._is_on
        if not (self.is_wanted or self._is_on):
            self._fed = 0
            return self._silence
        high_band = self._source.generate(audio, f_prior, f_target)
        if self.is_wanted == self._is_on:
            return high_band
        if self._is_on:
            high_band *= self._fall
            self._is_on, self._fed = False, 0
        elif self._fed < PREROLL_HOPS:
            self._fed += self.hops
            return self._silence
        else:
            high_band *= self._rise
            self._is_on = self.sounds = True
        return high_band

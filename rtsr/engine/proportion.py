"""A high band in proportion to the octave below it, where no ear would judge.

A network continues a tone as it continues a voice, with a little noise. Below 24 kHz that is 50 dB
under the tone; beyond, converters and loudspeakers may make more of it than ears do. So there the
octave below decides: where that is empty, nothing is added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.engine.sources import HighBandSource
from rtsr.timing import HOP, SAMPLE_RATE

Audio = NDArray[np.float32]

_FRAME = 1024
_WINDOW = np.hanning(_FRAME + 1)[:_FRAME].astype(np.float32)[:, None]
_HZ_PER_BIN = SAMPLE_RATE / _FRAME
#: Of power densities: a flat floor has 1, one that rises a little more.
MOST_RATIO = 2.0
_LEAST_POWER = 1e-30


class ProportionateSource:
    """Turns another source's high band down where it is denser than the octave below the cutoff.

    It is left at most 3 dB more power per Hz.

    Powers are those of 1024 samples under a Hann window, whose leakage is below -140 dB there;
    gains are faded over a hop. What is in proportion passes as it is.

    Args:
        source: makes the high band.

    """

    def __init__(self, source: HighBandSource) -> None:
        self._source = source
        self.name = source.name
        self.channels = source.channels
        self.hops = source.hops
        self.overlap = source.overlap
        self._heard: Audio = np.zeros((_FRAME, self.channels), np.float32)
        self._made: Audio = np.zeros((_FRAME, self.channels), np.float32)
        self._ramp = ((np.arange(HOP) + 1.0) / HOP).astype(np.float32)[:, None]
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
        self._heard.fill(0.0)
        self._made.fill(0.0)
        self._gains: Audio = np.ones(self.channels, np.float32)

    def resume(self, frame: int) -> None:
        """Go on at another hop; what it keeps of the past stays."""
        self._source.resume(frame)

    def generate(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> Audio:
        """Take one step, see :meth:`~rtsr.engine.sources.HighBandSource.generate`."""
        high_band = self._source.generate(audio, f_prior, f_target)
        for hop in range(self.hops):
            part = slice(hop * HOP, (hop + 1) * HOP)
            _append(self._heard, audio[part])
            _append(self._made, high_band[part])
            self._fade(high_band[part], float(f_prior[hop]))
        return high_band

    def _fade(self, high_band: Audio, cutoff_hz: float) -> None:
        """Bring a hop of the high band ``(480, channels)`` into proportion, in place."""
        first, last = (round(hz / _HZ_PER_BIN) for hz in (0.5 * cutoff_hz, cutoff_hz))
        below = _powers(self._heard)[first:last].mean(axis=0)
        above = _powers(self._made)[last:].mean(axis=0)
        ratio = MOST_RATIO * below / np.maximum(above, _LEAST_POWER)
        gains = np.sqrt(np.minimum(ratio, 1.0)).astype(np.float32)
        if gains.min() < 1.0 or self._gains.min() < 1.0:
            high_band *= self._gains + self._ramp * (gains - self._gains)
        self._gains = gains


def _append(history: Audio, hop: Audio) -> None:
    """Let the newest samples of a history ``(1024, channels)`` be those of a hop."""
    history[:-HOP] = history[HOP:]
    history[-HOP:] = hop


def _powers(history: Audio) -> NDArray[Any]:
    """Compute powers ``(513, channels)`` of a windowed history."""
    spectrum = np.fft.rfft(history * _WINDOW, axis=0)
    return spectrum.real**2 + spectrum.imag**2

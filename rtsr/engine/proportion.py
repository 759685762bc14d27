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

# The longer tells a steady tone from a floor, the shorter an onset from what was before it.
_FRAMES = (1024, HOP)
_WINDOWS = [np.hanning(frame + 1)[:frame].astype(np.float32)[:, None] for frame in _FRAMES]
# A gain that falls has to be there before the sound that it is for, and is no click above 24 kHz.
_FALLING_SAMPLES = 64
#: Of power densities: a flat floor has 1, one that rises a little more.
MOST_RATIO = 2.0
_LEAST_POWER = 1e-30


class ProportionateSource:
    """Turns another source's high band down where it is denser than the octave below the cutoff.

    It is left at most 3 dB more power per Hz, in the newest 1024 samples as in the newest hop.

    Powers are those under a Hann window, whose leakage is below -140 dB there. Gains rise over a
    hop and fall within 64 samples. What is in proportion passes as it is.

    Args:
        source: makes the high band.

    """

    def __init__(self, source: HighBandSource) -> None:
        self._source = source
        self.name = source.name
        self.channels = source.channels
        self.hops = source.hops
        self.overlap = source.overlap
        # The high band belongs to input that is older by the overlap.
        self._heard: Audio = np.zeros((_FRAMES[0] + self.overlap, self.channels), np.float32)
        self._made: Audio = np.zeros((_FRAMES[0], self.channels), np.float32)
        self._rise = ((np.arange(HOP) + 1.0) / HOP).astype(np.float32)[:, None]
        self._fall = np.minimum(self._rise * np.float32(HOP / _FALLING_SAMPLES), np.float32(1.0))
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
        heard = self._heard[: len(self._heard) - self.overlap]
        gains = np.ones(self.channels, np.float32)
        for window in _WINDOWS:
            frame = len(window)
            first, last = (round(hz * frame / SAMPLE_RATE) for hz in (0.5 * cutoff_hz, cutoff_hz))
            below = _powers(heard[-frame:] * window)[first:last].mean(axis=0)
            above = _powers(self._made[-frame:] * window)[last:].mean(axis=0)
            ratio = MOST_RATIO * below / np.maximum(above, _LEAST_POWER)
            gains = np.minimum(gains, np.sqrt(np.minimum(ratio, 1.0))).astype(np.float32)
        if gains.min() < 1.0 or self._gains.min() < 1.0:
            ramp = np.where(gains < self._gains, self._fall, self._rise)
            high_band *= self._gains + ramp * (gains - self._gains)
        self._gains = gains


def _append(history: Audio, hop: Audio) -> None:
    """Let the newest samples of a history ``(samples, channels)`` be those of a hop."""
    history[:-HOP] = history[HOP:]
    history[-HOP:] = hop


def _powers(windowed: Audio) -> NDArray[Any]:
    """Compute powers ``(bins, channels)`` of windowed sound ``(samples, channels)``."""
    spectrum = np.fft.rfft(windowed, axis=0)
    return spectrum.real**2 + spectrum.imag**2

"""Noise for pauses in which the far end sends nothing: as it described, or as received before."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

__all__ = ["ComfortNoise"]

Audio = NDArray[np.float32]

#: Without a description, noise louder than this is taken for a voice and not continued.
LOUDEST_HEARD_DBFS = -45.0
#: Upper limit of a described level: no room is louder than this.
LOUDEST_DESCRIBED_DBFS = -30.0
_BLOCKS = 75
_MOST_COEFFICIENTS = 12


class ComfortNoise:
    """Comfort noise after RFC 3389, or with the level of the quietest sound received recently.

    Args:
        channels: of the noise; all have the same.
    """

    def __init__(self, channels: int = 1) -> None:
        self._channels = channels
        self._random = np.random.default_rng(0)
        self._levels = np.full(_BLOCKS, np.inf)
        self._block = 0
        self._described: float | None = None
        self._reflection: NDArray[np.float64] = np.zeros(0)
        self._state = np.zeros(0)

    @property
    def is_described(self) -> bool:
        """Whether the far end has said how its noise sounds, and has sent no sound since."""
        return self._described is not None

    def describe(self, payload: bytes) -> None:
        """Take the payload of a comfort-noise packet: a level, and maybe reflection coefficients.

        The level is in -dBov (RFC 3389, 3.1), the coefficients are ``258 (byte - 127) /
        32768`` (3.2).
        """
        if not payload:
            return
        level_db = min(-float(payload[0] & 127), LOUDEST_DESCRIBED_DBFS)
        self._described = float(10.0 ** (level_db / 20.0))
        coded = np.frombuffer(payload[1 : 1 + _MOST_COEFFICIENTS], np.uint8).astype(np.float64)
        # Just inside the unit circle, whatever a peer sends.
        self._reflection = np.clip(258.0 * (coded - 127.0) / 32768.0, -0.99, 0.99)
        self._state = np.zeros(len(coded))

    def observe(self, sound: Audio) -> None:
        """Measure real sound ``(samples, channels)``, whose quietest packets give its floor.

        No sound at all says nothing.
        """
        if not sound.size:
            return
        self._described = None
        self._levels[self._block % _BLOCKS] = math.sqrt(float(np.vdot(sound, sound)) / sound.size)
        self._block += 1

    def make(self, samples: int) -> Audio:
        """Return the next ``(samples, channels)`` of noise."""
        level = self._level()
        if level <= 0.0:
            return np.zeros((samples, self._channels), np.float32)
        noise = self._random.standard_normal(samples)
        if self._described is not None and len(self._reflection):
            predictor = _predictor(self._reflection)
            noise, self._state = lfilter([1.0], predictor, noise, zi=self._state)
            # The prediction's gain: what remains of the variance after every stage.
            noise *= np.sqrt(np.prod(1.0 - self._reflection**2))
        return np.repeat((level * noise).astype(np.float32)[:, None], self._channels, axis=1)

    def _level(self) -> float:
        if self._described is not None:
            return self._described
        quietest = float(self._levels.min())
        return quietest if quietest < 10.0 ** (LOUDEST_HEARD_DBFS / 20.0) else 0.0


def _predictor(reflection: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients ``(order + 1,)`` of the all-pole filter (Levinson's step-up recursion)."""
    polynomial = np.ones(1)
    for k in reflection:
        longer = np.concatenate([polynomial, [0.0]])
        polynomial = longer + k * longer[::-1]
    return polynomial

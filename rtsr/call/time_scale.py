"""Making a stretch of sound some milliseconds shorter or longer, as where nobody speaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.call.concealment import best_period

__all__ = ["lengthen", "shorten"]

Audio = NDArray[np.float32]


def shorten(sound: Audio, most: int, rate: int) -> Audio:
    """Cut one period out of ``sound`` ``(samples, channels)``: at most ``most`` samples.

    The ends are cross-faded at the lag at which they are most alike, so that pitch stays.
    """
    lag = _lag(sound, most, rate)
    if not lag:
        return sound
    middle = (len(sound) - lag) // 2
    fade = min(lag, middle, len(sound) - lag - middle)
    first, second = sound[middle : middle + fade], sound[middle + lag : middle + lag + fade]
    return np.concatenate([sound[:middle], _fade(first, second), sound[middle + lag + fade :]])


def lengthen(sound: Audio, most: int, rate: int) -> Audio:
    """Repeat one period of ``sound`` ``(samples, channels)``: at most ``most`` samples."""
    lag = _lag(sound, most, rate)
    if not lag:
        return sound
    middle = (len(sound) + lag) // 2
    fade = min(lag, len(sound) - middle, middle - lag)
    first, second = sound[middle : middle + fade], sound[middle - lag : middle - lag + fade]
    return np.concatenate([sound[:middle], _fade(first, second), sound[middle - lag + fade :]])


def _lag(sound: Audio, most: int, rate: int) -> int:
    shortest, longest = rate // 400, min(most, len(sound) // 2)
    if longest <= shortest:
        return 0
    mono = np.ascontiguousarray(sound[:, int(np.argmax(np.abs(sound).sum(axis=0)))])
    return best_period(mono, shortest, longest, len(sound) - longest)


def _fade(first: Audio, second: Audio) -> Audio:
    rising = ((np.arange(len(first)) + 1) / (len(first) + 1))[:, None].astype(np.float32)
    return (1.0 - rising) * first + rising * second

"""Make a stretch of sound some milliseconds shorter or longer, in pauses for example."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.call.concealment import best_period

__all__ = ["is_quiet", "lengthen", "pitch_lag", "shorten"]

Audio = NDArray[np.float32]

_QUIET_DBFS = -50.0


def is_quiet(sound: Audio) -> bool:
    """Whether nobody hears that a piece of ``sound`` is cut out or repeated: below -50 dBFS."""
    return float(np.mean(np.square(sound))) <= 10.0 ** (_QUIET_DBFS / 10.0)


def shorten(sound: Audio, lag: int) -> Audio:
    """Cut ``lag`` samples out of the middle of ``sound`` ``(samples, channels)``."""
    middle = (len(sound) - lag) // 2
    fade = min(lag, middle, len(sound) - lag - middle)
    first, second = sound[middle : middle + fade], sound[middle + lag : middle + lag + fade]
    return np.concatenate([sound[:middle], _fade(first, second), sound[middle + lag + fade :]])


def lengthen(sound: Audio, lag: int) -> Audio:
    """Repeat ``lag`` samples in the middle of ``sound`` ``(samples, channels)``."""
    middle = (len(sound) + lag) // 2
    fade = min(lag, len(sound) - middle, middle - lag)
    first, second = sound[middle : middle + fade], sound[middle - lag : middle - lag + fade]
    return np.concatenate([sound[:middle], _fade(first, second), sound[middle - lag + fade :]])


def pitch_lag(sound: Audio, most: int, rate: int) -> int:
    """Return the lag, at most ``most``, at which ``sound`` repeats best; 0 if it is too short.

    Cut or repeated by this lag, a voice keeps its pitch.
    """
    shortest, longest = rate // 400, min(most, len(sound) // 2)
    if longest <= shortest:
        return 0
    mono = np.ascontiguousarray(sound[:, int(np.argmax(np.abs(sound).sum(axis=0)))])
    return best_period(mono, shortest, longest, len(sound) - longest)


def _fade(first: Audio, second: Audio) -> Audio:
    rising = ((np.arange(len(first)) + 1) / (len(first) + 1))[:, None].astype(np.float32)
    return (1.0 - rising) * first + rising * second

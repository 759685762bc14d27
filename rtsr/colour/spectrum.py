"""The long-term spectrum of a voice's low band, by which one source of sound is told from another.

A colour is of use on the voice, microphone or mix that it was learnt from. Whether a stream is that
one shows below its cutoff: the mean spectrum of seconds of sound, in dB and without its level,
differs less between two parts of one source than between two sources. `agreement` makes a
probability of that. How much sources vary is itself different from source to source, so both
differences are taken to follow Student's t: a large one makes another source likely, never certain.
"""

from __future__ import annotations

import bisect
import math

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.activity import SoundActivity
from rtsr.timing import HOP, SAMPLE_RATE

Audio = NDArray[np.float32]
Levels = NDArray[np.float64]

#: Third-octave bands around 400 Hz to 3.2 kHz: what telephones leave of a voice.
BANDS = 10
EDGES_HZ = 400.0 * 2.0 ** ((np.arange(BANDS + 1) - 0.5) / 3.0)

#: A running stream's older sound is forgotten, for another may take the microphone.
REMEMBERED_SECONDS = 10.0
# So few bands tell nothing.
_LEAST_BANDS = 5
# No spectrum rests on less than a hop.
_LEAST_SECONDS = HOP / SAMPLE_RATE
# A cutoff somewhat within a band leaves most of it.
_CUTOFF_TOLERANCE = 1.06

# Mean squared difference in dB^2 of two parts of a source however long they are, and what is added
# to it where they are a second long.
_SAME_DB2, _SHORT_DB2 = 2.0, 4.0
# By so much more two sources differ.
_OTHER_DB2 = 15.0
# Neighbouring bands go together: ten of them tell as much as six that do not.
_INDEPENDENT_BANDS = 6.0
# The most likely value on 69 training recordings is 2.2; this leaves the smallest errors of levels
# there, where half of the colours are of the right source.
_DEGREES_OF_FREEDOM = 3.0

_WINDOW = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(HOP) / HOP)).astype(np.float32)
# A full-scale sine gives 1.
_FULL_SCALE = 3.0 / 32.0 * HOP**2
_HZ = np.fft.rfftfreq(HOP, 1.0 / SAMPLE_RATE)
_UPPER_EDGES_HZ = EDGES_HZ[1:].tolist()
_FIRST_BINS = np.searchsorted(_HZ, EDGES_HZ)


class LongTermSpectrum:
    """The mean spectrum of sound, hop by hop; pauses are left out.

    Args:
        most_seconds: what is older than so much sound is forgotten.

    Attributes:
        seconds: of sound that it rests on.
    """

    def __init__(self, most_seconds: float = REMEMBERED_SECONDS) -> None:
        self.seconds = 0.0
        self._most_seconds = most_seconds
        self._mean = np.zeros(BANDS)
        self._activity = SoundActivity()

    @property
    def levels_db(self) -> Levels:
        """Level of each band ``(10,)`` in dB; the mean over bands is no more than the loudness."""
        return self._mean

    def add(self, hop: Audio, stands_for: int = 1) -> None:
        """Add a hop ``(480,)`` at 48 kHz, which stands for so many hops that were heard."""
        spectrum = np.fft.rfft(hop * _WINDOW)
        power = spectrum.real**2 + spectrum.imag**2
        level_db = 10.0 * math.log10(float(power.sum()) / _FULL_SCALE + 1e-20)
        if not self._activity.has_sound(level_db, stands_for):
            return
        bands = np.add.reduceat(power[: _FIRST_BINS[-1]], _FIRST_BINS[:-1])
        seconds = stands_for * HOP / SAMPLE_RATE
        self.seconds = min(self.seconds + seconds, self._most_seconds)
        self._mean += (10.0 * np.log10(bands / _FULL_SCALE + 1e-14) - self._mean) * (
            seconds / self.seconds
        )


def spectrum_of(sound: Audio) -> LongTermSpectrum:
    """Return the long-term spectrum of ``sound`` ``(samples, channels)`` at 48 kHz."""
    spectrum = LongTermSpectrum(math.inf)
    mono = sound.mean(axis=1)
    for start in range(0, len(mono) - HOP + 1, HOP):
        spectrum.add(mono[start : start + HOP])
    return spectrum


def agreement(
    learnt_db: Levels,
    learnt_seconds: float,
    stream_db: Levels,
    stream_seconds: float,
    cutoff_hz: float = SAMPLE_RATE / 2,
) -> float:
    """Return how probable it is, 0 to 1, that two spectra are of one source; 0.5 knows nothing.

    Args:
        learnt_db: levels ``(10,)`` of one.
        learnt_seconds: of sound that it rests on.
        stream_db: levels of the other.
        stream_seconds: likewise.
        cutoff_hz: what lies above is not compared.
    """
    count = bisect.bisect_right(_UPPER_EDGES_HZ, cutoff_hz * _CUTOFF_TOLERANCE)
    if count < _LEAST_BANDS or min(learnt_seconds, stream_seconds) < _LEAST_SECONDS:
        return 0.5
    difference = learnt_db[:count] - stream_db[:count]
    # The variance over bands: a difference in level alone is none.
    distance = float(difference @ difference) / count - (float(difference.sum()) / count) ** 2
    same = _SAME_DB2 + _SHORT_DB2 * (1.0 / learnt_seconds + 1.0 / stream_seconds)
    other = same + _OTHER_DB2
    # The logarithm of the ratio of two densities of Student's t in six dimensions.
    surprise = _INDEPENDENT_BANDS * distance / _DEGREES_OF_FREEDOM
    odds = 0.5 * _INDEPENDENT_BANDS * math.log(other / same)
    odds -= (
        0.5
        * (_INDEPENDENT_BANDS + _DEGREES_OF_FREEDOM)
        * math.log((1.0 + surprise / same) / (1.0 + surprise / other))
    )
    return 1.0 / (1.0 + math.exp(-odds))

"""The high band beyond 48 kHz, with no more power per Hz than the octave below it has.

A network continues a tone as it continues a voice, with a little noise. Below 24 kHz that is 50 dB
under the tone; beyond, converters and loudspeakers may make more of it than ears do. So there the
octave below decides: where that is empty, nothing is added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rtsr.engine.sources import HighBandSource
from rtsr.errors import ModelError
from rtsr.timing import HOP, SAMPLE_RATE

Audio = NDArray[np.float32]

# The longer tells a steady tone from a floor, the shorter an onset from what was before it.
_FRAMES = (1024, HOP)
_WINDOWS = [np.hanning(frame + 1)[:frame].astype(np.float32)[:, None] for frame in _FRAMES]
#: Gain of what is made: sound at double speed, which stands for most of what octaves are learnt
#: from, lacks what converters add beyond 24 kHz. Chords at 96 kHz of the training corpus lack 5 dB
#: without it, its other recordings 1.6.
LIFT = 10.0 ** (2.0 / 20.0)
#: Of power densities: a flat floor has 1, one that rises a little more.
MOST_RATIO = 2.0
#: The same in an instant, of which densities vary more by chance.
MOST_INSTANT_RATIO = 4.0
#: Samples that tell of an instant.
INSTANT = 64
#: Samples from one instant to the next, in which a gain becomes another: an onset is not over by
#: then, nor is it a click above 24 kHz.
INSTANT_STEP = 16
_LEAST_POWER = 1e-30
_NYQUIST = SAMPLE_RATE / 2


class ProportionateSource:
    """Brings another source's high band into proportion to the octave below the cutoff.

    It is raised by 2 dB, and turned down again where it is denser than that octave: it is left at
    most 3 dB more power per Hz, in the newest 1024 samples as in the newest hop, and at most 6 dB
    more at any instant: what a source spreads over a hop stays with the burst that it is for.

    Powers of the longer two are those under a Hann window, whose leakage is below -140 dB there.
    What is in proportion is only raised.

    Args:
        source: makes the high band, 32 samples or more later than its input.

    Raises:
        ModelError: the source's overlap is shorter.
    """

    def __init__(self, source: HighBandSource) -> None:
        if source.overlap < INSTANT // 2:
            raise ModelError(
                f"Beyond 48 kHz a model needs an overlap of {INSTANT // 2} samples or more, "
                f"'{source.name}' has {source.overlap}; take another one."
            )
        self._source = source
        self.name = source.name
        self.channels = source.channels
        self.hops = source.hops
        self.overlap = source.overlap
        # The high band belongs to input that is older by the overlap.
        self._heard: Audio = np.zeros((_FRAMES[0] + self.overlap, self.channels), np.float32)
        self._made: Audio = np.zeros((_FRAMES[0], self.channels), np.float32)
        self._instants = _InstantGains(self._heard, self.overlap)
        self._ramp = np.minimum((np.arange(HOP, dtype=np.float32) + 1.0) / INSTANT_STEP, 1.0)
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
        self._instants.reset()
        self._gains: Audio = np.ones(self.channels, np.float32)

    def resume(self, frame: int) -> None:
        """Go on at another hop; what it keeps of the past stays."""
        self._source.resume(frame)

    def generate(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> Audio:
        """Take one step, see :meth:`~rtsr.engine.sources.HighBandSource.generate`."""
        high_band = self._source.generate(audio, f_prior, f_target)
        high_band *= np.float32(LIFT)
        for hop in range(self.hops):
            part = slice(hop * HOP, (hop + 1) * HOP)
            cutoff_hz = float(f_prior[hop])
            _append(self._heard, audio[part])
            self._instants.fade(high_band[part], cutoff_hz, f_target)
            _append(self._made, high_band[part])
            self._fade(high_band[part], cutoff_hz, f_target)
        return high_band

    def _fade(self, high_band: Audio, cutoff_hz: float, f_target: float) -> None:
        """Bring a hop of the high band ``(480, channels)`` into proportion, in place."""
        heard = self._heard[: len(self._heard) - self.overlap]
        gains = np.ones(self.channels, np.float32)
        for window in _WINDOWS:
            frame = len(window)
            first, last = _octave_below(cutoff_hz, frame)
            top = max(round(f_target * frame / SAMPLE_RATE), last + 1)
            below = _powers(heard[-frame:] * window)[first:last].mean(axis=0)
            above = _powers(self._made[-frame:] * window)[last:top].mean(axis=0)
            is_made = above > _LEAST_POWER
            wanted = np.where(is_made, _gains(MOST_RATIO * below, above), 1.0)
            gains = np.minimum(gains, wanted).astype(np.float32)
        if gains.min() < 1.0 or self._gains.min() < 1.0:
            high_band *= self._gains + self._ramp[:, None] * (gains - self._gains)
        self._gains = gains


class _InstantGains:
    """Gains 16 samples apart, each from the 64 samples of both bands around it.

    Power below is that under a Blackman window, which lets 64 dB less of a tone of 1 kHz through.
    What is made holds the high band alone, so its power needs no spectrum. The window reaches 32
    samples beyond the hop, and the overlap is longer: nothing waits. Of what is made only the
    newest hop counts.

    Args:
        heard: ``(samples, channels)``, the newest input; it is read where it lies.
        overlap: samples by which the high band is later than the input.
    """

    def __init__(self, heard: Audio, overlap: int) -> None:
        channels = heard.shape[1]
        before = INSTANT // 2 - INSTANT_STEP
        first = len(heard) - overlap - HOP - before
        samples = before + HOP + INSTANT // 2
        self._heard_frames = sliding_window_view(heard[first : first + samples], INSTANT, axis=0)[
            ::INSTANT_STEP
        ]
        self._frames: Audio = np.zeros(self._heard_frames.shape, np.float32)
        window = np.blackman(INSTANT + 1)[:INSTANT]
        window /= np.sqrt(window @ window)
        transform = np.fft.rfft(window * np.eye(INSTANT)).astype(np.complex64)
        self._cosines, self._sines = transform.real.copy(), transform.imag.copy()
        weights = np.zeros((len(self._frames), samples))
        for row, place in zip(weights, range(0, samples, INSTANT_STEP), strict=False):
            row[place : place + INSTANT] = window**2
        weights = weights[:, before : before + HOP]
        weights /= weights.sum(axis=1, keepdims=True)
        self._weights = weights.astype(np.float32)
        instants = np.arange(HOP // INSTANT_STEP + 1)
        places = (np.arange(HOP) + 1.0) / INSTANT_STEP
        between = np.maximum(1.0 - np.abs(np.subtract.outer(places, instants)), 0.0)
        self._between = between.astype(np.float32)
        self._gains: Audio = np.ones((len(instants), channels), np.float32)

    def reset(self) -> None:
        """Forget the past."""
        self._gains.fill(1.0)

    def fade(self, high_band: Audio, cutoff_hz: float, f_target: float) -> None:
        """Bring a hop of the high band ``(480, channels)`` into proportion, in place."""
        first, last = _octave_below(cutoff_hz, INSTANT)
        np.copyto(self._frames, self._heard_frames)
        below = np.square(self._frames @ self._cosines[:, first:last]).sum(axis=-1)
        below += np.square(self._frames @ self._sines[:, first:last]).sum(axis=-1)
        below /= last - first
        above = self._weights @ np.square(high_band)
        above *= _NYQUIST / max(f_target - cutoff_hz, SAMPLE_RATE / INSTANT)
        gains = self._gains
        gains[0] = gains[-1]
        gains[1:] = _gains(MOST_INSTANT_RATIO * below, above)
        if gains.min() < 1.0:
            high_band *= self._between @ gains


def _octave_below(cutoff_hz: float, frame: int) -> tuple[int, int]:
    """Return the first bin of the octave below a cutoff, and the one behind its last."""
    first, last = (round(hz * frame / SAMPLE_RATE) for hz in (0.5 * cutoff_hz, cutoff_hz))
    return first, max(last, first + 1)


def _gains(most: NDArray[Any], powers: NDArray[Any]) -> NDArray[Any]:
    """Compute the gains that leave powers as they are, or what they may be at most."""
    gains: NDArray[Any] = np.sqrt(np.minimum(most / np.maximum(powers, _LEAST_POWER), 1.0))
    return gains


def _append(history: Audio, hop: Audio) -> None:
    """Let the newest samples of a history ``(samples, channels)`` be those of a hop."""
    history[:-HOP] = history[HOP:]
    history[-HOP:] = hop


def _powers(windowed: Audio) -> NDArray[Any]:
    """Compute powers ``(bins, channels)`` of windowed sound ``(samples, channels)``."""
    spectrum = np.fft.rfft(windowed, axis=0)
    return spectrum.real**2 + spectrum.imag**2

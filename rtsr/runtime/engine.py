"""One step of the engine at 48 kHz: the way of a hop from the detector to the crossover."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr.bandwidth import FULL_BAND_HZ
from rtsr.runtime.metadata import HOP
from rtsr.runtime.mixer import HighBandMixer
from rtsr.runtime.source import HighBandSource
from rtsr.runtime.statistics import Statistics

Audio = NDArray[np.float32]

_WARM_UP_STEPS = 4


class CutoffSource(Protocol):
    """Says for each hop where its real content ends."""

    def update(self, hop: Audio) -> float:
        """Take one hop ``(480, channels)`` and return the cutoff in Hz."""


class FixedCutoff:
    """The cutoff is known, nothing is measured."""

    def __init__(self, cutoff_hz: float) -> None:
        self._cutoff_hz = cutoff_hz

    def update(self, hop: Audio) -> float:
        """Return the known cutoff."""
        return self._cutoff_hz


class Engine:
    """Turns steps of ``480 * hops`` samples into as many enhanced ones, delayed by the overlap.

    Args:
        source: makes the high band; it fixes channels and hops of a step.
        new_cutoff_source: makes a fresh source of cutoffs; called again on every reset.
        highest_cutoff: Hz above which the input holds nothing, half of its own rate.
        f_target: Hz where the output should end; the attribute counts from the next step on.
        wet: gain of the high band; likewise.
        statistics: where step times are counted; the source counts what it could not make there.
    """

    def __init__(
        self,
        source: HighBandSource,
        new_cutoff_source: Callable[[], CutoffSource],
        highest_cutoff: float,
        f_target: float,
        wet: float,
        statistics: Statistics,
    ) -> None:
        self.step_samples = HOP * source.hops
        self.wet = wet
        self._source = source
        self._overlap = source.overlap
        self._new_cutoff_source = new_cutoff_source
        self._highest_cutoff = highest_cutoff
        self.f_target = f_target
        self._statistics = statistics
        self._mixer = HighBandMixer(source.channels)
        self._kept: Audio = np.zeros((self._overlap, source.channels), np.float32)
        self._f_prior = np.zeros(source.hops, np.float32)
        self.reset()
        self._warm_up()

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self._source.reset()
        self._mixer.reset()
        self._kept.fill(0.0)
        self._cutoffs = self._new_cutoff_source()
        self.cutoff_hz = self._highest_cutoff

    def step(self, audio: Audio, out: Audio) -> None:
        """Enhance ``audio`` into ``out``, two arrays ``(480 * hops, channels)``."""
        started = time.perf_counter_ns()
        self.measure(audio)
        self.enhance(audio, out)
        self._statistics.record_step(time.perf_counter_ns() - started)

    def measure(self, audio: Audio) -> NDArray[np.float32]:
        """The first half of :meth:`step`: where the content of each hop ends.

        Returns:
            Hz ``(hops,)``; the next step overwrites it.
        """
        for hop in range(self._source.hops):
            measured = self._cutoffs.update(audio[hop * HOP : (hop + 1) * HOP])
            self.cutoff_hz = min(float(measured), self._highest_cutoff)
            self._f_prior[hop] = self.cutoff_hz
        return self._f_prior

    def enhance(self, audio: Audio, out: Audio) -> None:
        """The second half of :meth:`step`, for the step that was measured; it is not counted."""
        high_band = self._generate(audio)
        delayed = self.step_samples - self._overlap
        out[: self._overlap] = self._kept
        out[self._overlap :] = audio[:delayed]
        self._kept[...] = audio[delayed:]
        for hop, cutoff in enumerate(self._f_prior):
            part = slice(hop * HOP, (hop + 1) * HOP)
            self._mixer.add(high_band[part], out[part], self._audible(float(cutoff)), self.wet)

    def _generate(self, audio: Audio) -> Audio:
        degraded = self._statistics.degraded_blocks
        high_band = self._source.generate(audio, self._f_prior, self.f_target)
        if self._statistics.degraded_blocks != degraded:
            self._mixer.clear_filter()
        return high_band

    def _audible(self, cutoff: float) -> float | None:
        """The crossover frequency, or ``None`` where nothing is missing above the cutoff."""
        return None if cutoff >= min(FULL_BAND_HZ, self.f_target) else cutoff

    def _warm_up(self) -> None:
        """Take a few steps that nobody hears, so that the first real one is like every other."""
        audio = np.zeros((self.step_samples, self._source.channels), np.float32)
        audio[::7] = 0.01
        out = np.empty_like(audio)
        for _ in range(_WARM_UP_STEPS):
            self.step(audio, out)
        self.reset()
        self._statistics.clear()

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
from rtsr.runtime.session import OnnxStep
from rtsr.runtime.statistics import Statistics
from rtsr_kernels.noise import fill_noise_frames

Audio = NDArray[np.float32]

# All channels share one noise, or a stereo image would fall apart above the cutoff.
_SHARED_STREAM = 0
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
        session: the graph with its state, one batch item per channel.
        new_cutoff_source: makes a fresh source of cutoffs; called again on every reset.
        highest_cutoff: Hz above which the input holds nothing, half of its own rate.
        f_target: Hz where the output should end.
        statistics: where step times and repairs are counted.
    """

    def __init__(
        self,
        session: OnnxStep,
        new_cutoff_source: Callable[[], CutoffSource],
        highest_cutoff: float,
        f_target: float,
        seed: int,
        wet: float,
        statistics: Statistics,
    ) -> None:
        channels, _, samples = session.audio.shape
        self.step_samples = samples
        self.wet = wet
        self._session = session
        self._channels = channels
        self._hops = samples // HOP
        self._overlap = session.metadata.overlap
        self._new_cutoff_source = new_cutoff_source
        self._highest_cutoff = highest_cutoff
        self._f_target = f_target
        self._seed = seed
        self._statistics = statistics
        self._mixer = HighBandMixer(channels)
        self._kept: Audio = np.zeros((self._overlap, channels), np.float32)
        self._high_band: Audio = np.zeros((HOP, channels), np.float32)
        session.f_target.fill(f_target)
        self.reset()
        self._warm_up()

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self._session.reset()
        self._mixer.reset()
        self._kept.fill(0.0)
        self._frame = 0
        self._alike = self._channels > 1
        self._cutoffs = self._new_cutoff_source()
        self.cutoff_hz = self._highest_cutoff

    def step(self, audio: Audio, out: Audio) -> None:
        """Enhance ``audio`` into ``out``, two arrays ``(480 * hops, channels)``."""
        started = time.perf_counter_ns()
        self._run_model(audio)
        delayed = self.step_samples - self._overlap
        out[: self._overlap] = self._kept
        out[self._overlap :] = audio[:delayed]
        self._kept[...] = audio[delayed:]
        f_prior = self._session.f_prior[0, 0]
        for hop in range(self._hops):
            part = slice(hop * HOP, (hop + 1) * HOP)
            np.copyto(self._high_band, self._session.high_band[:, 0, part].T)
            self._mixer.add(
                self._high_band, out[part], self._audible(float(f_prior[hop])), self.wet
            )
        self._statistics.record_step(time.perf_counter_ns() - started)

    def _run_model(self, audio: Audio) -> None:
        session = self._session
        for hop in range(self._hops):
            measured = self._cutoffs.update(audio[hop * HOP : (hop + 1) * HOP])
            self.cutoff_hz = min(float(measured), self._highest_cutoff)
            session.f_prior[:, :, hop] = self.cutoff_hz
        np.copyto(session.audio[:, 0, :], audio.T)
        fill_noise_frames(self._seed, self._frame, _SHARED_STREAM, session.noise[0])
        session.noise[1:] = session.noise[0]
        self._frame += self._hops
        high_band = session.run()
        # An infinity or a NaN fails this comparison. It would live on in the state for ever.
        if not (high_band.max() < np.inf and high_band.min() > -np.inf):
            session.reset()
            high_band.fill(0.0)
            self._mixer.clear_filter()
            self._statistics.degraded_blocks += self._hops
        # A matrix product may round each item of a batch in its own way. Channels that have been
        # the same so far must stay so to the last bit, or mono in two channels would not be mono.
        self._alike = self._alike and bool((audio[:, 1:] == audio[:, :1]).all())
        if self._alike:
            high_band[1:] = high_band[0]

    def _audible(self, cutoff: float) -> float | None:
        """The crossover frequency, or ``None`` where nothing is missing above the cutoff."""
        return None if cutoff >= min(FULL_BAND_HZ, self._f_target) else cutoff

    def _warm_up(self) -> None:
        """Take a few steps that nobody hears, so that the first real one is like every other."""
        audio = np.zeros((self.step_samples, self._channels), np.float32)
        audio[::7] = 0.01
        out = np.empty_like(audio)
        for _ in range(_WARM_UP_STEPS):
            self.step(audio, out)
        self.reset()
        self._statistics.clear()

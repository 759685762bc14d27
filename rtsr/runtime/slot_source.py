"""The high band of one stream of a batch: asked for before the batch runs, collected after it.

An engine asks its source for a high band and gets it at once. In a batch all streams must have
asked before one run answers them all, so both what the engine measures and what it asks for are
prepared beforehand here, and the engine is handed what is already there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtsr.runtime.engine import CutoffSource
from rtsr.runtime.metadata import HOP
from rtsr.runtime.slots import SlotStep
from rtsr.runtime.statistics import Statistics
from rtsr_kernels.noise import fill_noise_frames

Audio = NDArray[np.float32]

# All channels of a stream share one noise, or a stereo image would fall apart above the cutoff.
_SHARED_STREAM = 0


class SlotSource:
    """One stream's share of a batch; a :class:`~rtsr.runtime.source.HighBandSource`.

    A step is :meth:`prepare`, then ``run`` of the batch, then :meth:`generate`.

    Args:
        step: the graph of the batch.
        slots: the slot of each channel.
        seed: of the noise; all channels share it.
        statistics: where steps with an unusable result are counted.
    """

    def __init__(
        self, step: SlotStep, slots: Sequence[int], seed: int, statistics: Statistics
    ) -> None:
        samples = step.audio.shape[2]
        self.name = step.model.name
        self.channels = len(slots)
        self.hops = samples // HOP
        self.overlap = step.metadata.overlap
        self.seed = seed
        self._step = step
        self._slots = tuple(slots)
        self._statistics = statistics
        self._audio = [step.audio[slot, 0] for slot in slots]
        self._noise = [step.noise[slot] for slot in slots]
        self._f_prior = [step.f_prior[slot, 0] for slot in slots]
        self._f_target = [step.f_target[slot, 0] for slot in slots]
        self._answers = [step.high_band[slot, 0] for slot in slots]
        self._high_band: Audio = np.zeros((samples, self.channels), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past, but for the state in the slots, which ``SlotStep.clear`` resets."""
        self.frame = 0
        self._prepared = False
        self._alike = self.channels > 1

    def prepare(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> None:
        """Put the signals of the next step into the slots; the arguments of :meth:`generate`."""
        for channel, row in enumerate(self._audio):
            np.copyto(row, audio[:, channel])
            np.copyto(self._f_prior[channel], f_prior)
            self._f_target[channel].fill(f_target)
        fill_noise_frames(self.seed, self.frame, _SHARED_STREAM, self._noise[0])
        for noise in self._noise[1:]:
            np.copyto(noise, self._noise[0])
        # Channels that have been the same so far stay so to the last bit, see ModelSource.
        for channel in range(1, self.channels):
            if self._alike and not np.array_equal(self._audio[channel], self._audio[0]):
                self._alike = False
        self._prepared = True

    def generate(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> Audio:
        """Collect what the batch made of the prepared step: ``(480 * hops, channels)``.

        Silence where nothing was prepared, as while an engine warms up, and where the result is
        unusable: that is counted, and the slots start anew.
        """
        if not self._prepared:
            self._high_band.fill(0.0)
            return self._high_band
        self._prepared = False
        self.frame += self.hops
        if not all(_is_finite(answer) for answer in self._answers):
            self._step.clear(self._slots)
            self._high_band.fill(0.0)
            self._statistics.degraded_blocks += self.hops
            return self._high_band
        for channel, answer in enumerate(self._answers):
            np.copyto(self._high_band[:, channel], self._answers[0] if self._alike else answer)
        return self._high_band

    def silence(self) -> None:
        """Leave silence in the slots: the batch goes on running them."""
        for row in self._audio:
            row.fill(0.0)


class PreparedCutoffs:
    """Measures the cutoffs of a step ahead of the engine, which then is told the same ones.

    Args:
        source: where the cutoffs come from.
        highest_hz: Hz above which the input holds nothing.
        hops: of one step.
    """

    def __init__(self, source: CutoffSource, highest_hz: float, hops: int) -> None:
        self._source = source
        self._highest_hz = highest_hz
        self._f_prior = np.full(hops, highest_hz, np.float32)
        self._next = 0

    def measure(self, audio: Audio) -> NDArray[np.float32]:
        """Look at one step ``(480 * hops, channels)``; returns Hz ``(hops,)``, used again."""
        for hop in range(len(self._f_prior)):
            measured = self._source.update(audio[hop * HOP : (hop + 1) * HOP])
            self._f_prior[hop] = min(float(measured), self._highest_hz)
        self._next = 0
        return self._f_prior

    def update(self, hop: Audio) -> float:
        """The cutoff of the next hop of the step that was measured."""
        cutoff = float(self._f_prior[self._next])
        self._next = (self._next + 1) % len(self._f_prior)
        return cutoff


def _is_finite(answer: Audio) -> bool:
    # An infinity or a NaN fails this comparison.
    return bool(answer.max() < np.inf and answer.min() > -np.inf)

"""The high band of one stream of a batch: asked for before the batch runs, collected after it.

An engine asks its source for a high band and gets it at once. In a batch all streams must have
asked before one run answers them all, so what the engine asks for is prepared beforehand here, and
the engine is handed what is already there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtsr.runtime.metadata import HOP
from rtsr.runtime.slots import SlotStep
from rtsr.runtime.statistics import Statistics
from rtsr.runtime.stream_rows import StreamRows

Audio = NDArray[np.float32]


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
        self._rows = StreamRows(step, slots)
        self._statistics = statistics
        self._high_band: Audio = np.zeros((samples, self.channels), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past, but for the state in the slots, which ``SlotStep.clear`` resets."""
        self.frame = 0
        self._prepared = False
        self._rows.reset()

    def prepare(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> None:
        """Put the signals of the next step into the slots; the arguments of :meth:`generate`."""
        self._rows.fill(audio, f_prior, f_target, self.seed, self.frame)
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
        if not self._rows.collect(self._step.high_band, self._high_band):
            self._step.clear(self._slots)
            self._statistics.degraded_blocks += self.hops
        return self._high_band

    def silence(self) -> None:
        """Leave silence in the slots: the batch goes on running them."""
        self._rows.silence()

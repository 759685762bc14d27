"""Where the high band of a hop comes from: a network, or anything else with the same timing."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr.runtime.metadata import HOP
from rtsr.runtime.session import OnnxStep
from rtsr.runtime.statistics import Statistics
from rtsr.runtime.stream_rows import StreamRows

Audio = NDArray[np.float32]


class HighBandSource(Protocol):
    """Makes the content above the cutoff, one step of ``480 * hops`` samples at a time.

    Every source has the same timing, so that one can take over from another: the step that takes
    input up to sample ``480 k`` returns content for the input time
    ``[480 (k - hops) - overlap, 480 k - overlap)``. What it returns may still reach below the
    cutoff; the crossover of the mixer removes that.
    """

    @property
    def name(self) -> str:
        """What people call it: ``small``, ``replicate``."""

    @property
    def channels(self) -> int:
        """Channels of audio."""

    @property
    def hops(self) -> int:
        """Hops of 480 samples that one step takes."""

    @property
    def overlap(self) -> int:
        """Samples by which the high band is later than the input, beside the step itself."""

    def generate(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> Audio:
        """Take one step.

        A step that fails returns silence and is counted in ``Statistics.degraded_blocks``.

        Args:
            audio: ``(480 * hops, channels)`` at 48 kHz, finite.
            f_prior: ``(hops,)`` Hz where the content of each hop ends.
            f_target: Hz where the output should end.

        Returns:
            ``(480 * hops, channels)``, contiguous; the next step overwrites it.
        """

    def reset(self) -> None:
        """Forget the past: the next step is the first."""


class ModelSource:
    """A network's high band, with the noise it is fed.

    Args:
        session: the graph with its state, one batch item per channel.
        seed: of the noise.
        statistics: where steps with an unusable result are counted.

    Attributes:
        seed: may be changed between two steps.
        frame: index of the next hop; noise belongs to a frame, however steps cut the stream.
    """

    def __init__(self, session: OnnxStep, seed: int, statistics: Statistics) -> None:
        channels, _, samples = session.audio.shape
        self.model = session.model
        self.provider = session.provider
        self.name = session.model.name
        self.channels = channels
        self.hops = samples // HOP
        self.overlap = session.metadata.overlap
        self.seed = seed
        self._session = session
        self._rows = StreamRows(session, range(channels))
        self._statistics = statistics
        self._high_band: Audio = np.zeros((samples, channels), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self._session.reset()
        self._rows.reset()
        self.frame = 0

    def generate(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> Audio:
        """Take one step, see :meth:`HighBandSource.generate`."""
        self._rows.fill(audio, f_prior, f_target, self.seed, self.frame)
        self.frame += self.hops
        if not self._rows.collect(self._session.run(), self._high_band):
            # What is no number would live on in the state for ever.
            self._session.reset()
            self._statistics.degraded_blocks += self.hops
        return self._high_band

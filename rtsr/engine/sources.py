"""Where the high band of a hop comes from: a network, or anything else with the same timing."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr.engine.network_rows import network_rows, start_rows
from rtsr.engine.statistics import Statistics
from rtsr.runtime.session import OnnxStep
from rtsr.timing import HOP
from rtsr_kernels.network_rows import check_rows, fill_audio, fill_rows, read_high_band

Audio = NDArray[np.float32]


class HighBandSource(Protocol):
    """Makes the content above the cutoff, one step of ``480 * hops`` samples at a time.

    Every source has the same timing, so that one can take over from another: the step that takes
    input up to sample ``480 k`` returns content for the input time
    ``[480 (k - hops) - overlap, 480 k - overlap)``. What it returns may still reach below the
    cutoff; the crossover behind it removes that.
    """

    #: Of the noise; may be changed between two steps.
    seed: int

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

    def resume(self, frame: int) -> None:
        """Go on at another hop, as if all before it had been taken: noise belongs to a hop."""


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
        self._rows = network_rows(session, 1)
        self._row = np.zeros(1, np.int64)
        self._statistics = statistics
        self._high_band: Audio = np.zeros((samples, channels), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next step is the first."""
        self._session.reset()
        start_rows(self._rows, 0, list(range(self.channels)), self.seed, 0.0)
        self.frame = 0

    def resume(self, frame: int) -> None:
        """Go on at another hop; what the network remembers stays."""
        self.frame = frame

    def generate(self, audio: Audio, f_prior: NDArray[np.float32], f_target: float) -> Audio:
        """Take one step, see :meth:`HighBandSource.generate`."""
        values = self._rows.values[0]
        values["seed"], values["frame"], values["f_target"] = self.seed, self.frame, f_target
        fill_audio(self._rows, 0, audio)
        fill_rows(self._rows, self._row, f_prior[None, :])
        self.frame += self.hops
        self._session.run()
        if check_rows(self._rows, self._row):
            # What is no number would live on in the state for ever.
            self._session.reset()
            self._statistics.degraded_blocks += self.hops
        read_high_band(self._rows, 0, self._high_band)
        return self._high_band

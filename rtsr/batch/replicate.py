"""The replication of all streams of a batch, for steps that have no time for the network."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from rtsr.runtime import replicate_file
from rtsr.timing import HOP
from rtsr_kernels.network_rows import NetworkRows
from rtsr_kernels.replicate_rows import replicate_rows, replicate_rows_state

Audio = NDArray[np.float32]

_TIMED_HOPS = 20


class BatchReplicate:
    """Makes the high band of a batch's streams without its network.

    Args:
        network: the signals of the batch.
    """

    def __init__(self, network: NetworkRows) -> None:
        slots, _, samples = network.audio.shape
        weights = replicate_file.bundled_weights()
        self._network = network
        self._regression = weights.regression
        self._share = weights.replica_share
        self._state = replicate_rows_state(slots)
        self.high_band: Audio = np.zeros((slots, samples), np.float32)

    def clear(self, slots: list[int]) -> None:
        """Forget the past of these slots."""
        for array in (self._state.histories, self._state.contexts, self._state.tails):
            array[slots] = 0.0

    def run(self, rows: NDArray[np.int64], f_prior: Audio) -> Audio:
        """Take a step of the streams in ``rows``; returns the high band ``(slots, samples)``."""
        replicate_rows(
            self._state,
            self._network,
            rows,
            f_prior,
            self._regression,
            self._share,
            self.high_band,
        )
        return self.high_band

    def ms_per_hop(self) -> float:
        """Measure the time of one hop of one channel; the audio it measures with is forgotten."""
        audio = self._network.audio[0, 0]
        audio[::7] = 0.01
        values = self._network.values
        values["channels"][0], values["f_target"][0] = 1, 20000.0
        cutoffs = np.full((1, self.high_band.shape[1] // HOP), 4000.0, np.float32)
        times = []
        for _ in range(_TIMED_HOPS):
            started = time.perf_counter()
            self.run(np.zeros(1, np.int64), cutoffs)
            times.append(time.perf_counter() - started)
        self.clear([0])
        audio.fill(0.0)
        values["channels"][0] = 0
        return 1000.0 * float(np.median(times)) / cutoffs.shape[1]

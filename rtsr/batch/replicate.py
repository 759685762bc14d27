"""The replication of all streams of a batch, for steps that have no time for the network."""

from __future__ import annotations

import time
from collections.abc import Sequence

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
        networks: the signals of the batch, of each of the steps that it takes in turn.
    """

    def __init__(self, networks: Sequence[NetworkRows]) -> None:
        slots, _, samples = networks[0].audio.shape
        weights = replicate_file.bundled_weights()
        self._networks = tuple(networks)
        self._regression = weights.regression
        self._share = weights.replica_share
        self._state = replicate_rows_state(slots)
        self._high_bands = [np.zeros((slots, samples), np.float32) for _ in networks]

    def clear(self, slots: list[int]) -> None:
        """Forget the past of these slots."""
        for array in (self._state.histories, self._state.contexts, self._state.tails):
            array[slots] = 0.0

    def run(self, rows: NDArray[np.int64], f_prior: Audio, number: int = 0) -> Audio:
        """Take the step of that number of the streams in ``rows``.

        Returns:
            the high band ``(slots, samples)``; the next step of that number overwrites it.
        """
        high_band = self._high_bands[number]
        replicate_rows(
            self._state,
            self._networks[number],
            rows,
            f_prior,
            self._regression,
            self._share,
            high_band,
        )
        return high_band

    def ms_per_hop(self) -> float:
        """Measure the time of one hop of one channel; the audio it measures with is forgotten."""
        audio = self._networks[0].audio[0, 0]
        audio[::7] = 0.01
        values = self._networks[0].values
        values["channels"][0], values["f_target"][0] = 1, 20000.0
        cutoffs = np.full((1, audio.shape[0] // HOP), 4000.0, np.float32)
        times = []
        for _ in range(_TIMED_HOPS):
            started = time.perf_counter()
            self.run(np.zeros(1, np.int64), cutoffs)
            times.append(time.perf_counter() - started)
        self.clear([0])
        audio.fill(0.0)
        values["channels"][0] = 0
        return 1000.0 * float(np.median(times)) / cutoffs.shape[1]

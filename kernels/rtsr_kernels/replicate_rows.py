"""Spectral band replication for the streams of a batch, whose channels are rows of one array."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import float32, float64, types, void
from numpy.typing import NDArray

from .compiled import AUDIO, AUDIO_IN, INDICES_IN, MATRIX, SAMPLES, kernel
from .highpass import LOWEST_CUTOFF_HZ
from .network_rows import ROWS, NetworkRows
from .replicate import SCRATCH_ROWS, replicate_hop
from .replicate_design import (
    ANALYSIS,
    BANDS,
    CONTEXT,
    HOP,
    OVERLAP,
    bands_below,
)


class ReplicateRows(NamedTuple):
    """State of the replication of every slot, and scratch memory."""

    histories: NDArray[np.float32]
    """``(slots, 1, 1024)``"""
    contexts: NDArray[np.float64]
    """``(slots, 1, 23, bands)``"""
    tails: NDArray[np.float32]
    """``(slots, 1, 120)``"""
    noise: NDArray[np.float32]
    scratch: NDArray[np.float64]


REPLICATE = types.NamedTuple(
    [
        types.Array(float32, 3, "C"),
        types.Array(float64, 4, "C"),
        types.Array(float32, 3, "C"),
        SAMPLES,
        MATRIX,
    ],
    ReplicateRows,
)
"""numba's type of `ReplicateRows`."""


def replicate_rows_state(slots: int) -> ReplicateRows:
    """Allocate the state of `slots` slots; all zeros, as before their first hop."""
    return ReplicateRows(
        histories=np.zeros((slots, 1, ANALYSIS), np.float32),
        contexts=np.zeros((slots, 1, CONTEXT, BANDS)),
        tails=np.zeros((slots, 1, OVERLAP), np.float32),
        noise=np.zeros(ANALYSIS, np.float32),
        scratch=np.zeros((SCRATCH_ROWS, ANALYSIS)),
    )


@kernel(
    void(
        REPLICATE,
        ROWS,
        INDICES_IN,
        AUDIO_IN,
        types.Array(float32, 3, "C", readonly=True),
        float64,
        AUDIO,
    )
)
def replicate_rows(
    state: ReplicateRows,
    network: NetworkRows,
    rows: np.ndarray,
    f_prior: np.ndarray,
    weights: np.ndarray,
    replica_share: float,
    out: np.ndarray,
) -> None:
    """Synthesise the high band of a step of many streams from the audio of the network's slots.

    Args:
        state: of `replicate_rows_state`.
        network: its audio, slots, seeds, frames and targets are read; nothing there changes.
        rows: of the streams.
        f_prior: ``(streams, hops)``, Hz where the content of each hop ends.
        weights: see `rtsr_kernels.replicate.replicate_hop`.
        replica_share: likewise.
        out: ``(slots, 480 * hops)``.
    """
    for index in range(rows.shape[0]):
        row = rows[index]
        values = network.values[row]
        for channel in range(values.channels):
            slot = network.slots[row, channel]
            for hop in range(f_prior.shape[1]):
                cutoff = max(float(f_prior[row, hop]), LOWEST_CUTOFF_HZ)
                part = slice(hop * HOP, (hop + 1) * HOP)
                replicate_hop(
                    network.audio[slot, 0, part].reshape((HOP, 1)),
                    state.histories[slot],
                    state.contexts[slot],
                    state.tails[slot],
                    state.noise,
                    state.scratch,
                    weights,
                    replica_share,
                    values.seed,
                    values.frame + hop,
                    bands_below(cutoff),
                    cutoff,
                    values.f_target,
                    out[slot, part].reshape((HOP, 1)),
                )

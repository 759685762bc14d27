"""The signals of a network's step as the compiled kernels take them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtsr_kernels.crossover import MAX_CHANNELS
from rtsr_kernels.network_rows import VALUES, NetworkRows


class Signals(Protocol):
    """What goes into a step of a network and what comes out, batch first."""

    audio: NDArray[np.float32]
    noise: NDArray[np.float32]
    f_prior: NDArray[np.float32]
    f_target: NDArray[np.float32]
    high_band: NDArray[np.float32]


def network_rows(step: Signals, streams: int) -> NetworkRows:
    """Describe the arrays of a step's graph, in which ``streams`` streams take slots."""
    return NetworkRows(
        values=np.zeros(streams, VALUES),
        slots=np.zeros((streams, MAX_CHANNELS), np.int64),
        audio=step.audio,
        noise=step.noise,
        f_prior=step.f_prior,
        f_target=step.f_target,
        high_band=step.high_band,
        line=np.zeros(step.noise.shape[1], np.float32),
        alike=np.ones(streams, np.bool_),
    )


def start_rows(rows: NetworkRows, row: int, slots: list[int], seed: int, f_target: float) -> None:
    """Let a stream begin in a row: ``slots`` of its channels, ``seed`` of its noise."""
    rows.slots[row, : len(slots)] = slots
    values = rows.values[row]
    values["channels"], values["seed"], values["frame"] = len(slots), seed, 0
    values["f_target"], values["are_alike"], values["is_unusable"] = f_target, True, False

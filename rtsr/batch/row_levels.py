"""The level that each stream of a batch puts out, and how far each is on its way to another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.shedding import DRY, LEVELS, NETWORK, PREROLL_HOPS, REPLICATE, Plan

Rows = NDArray[np.int64]
Levels = NDArray[np.int8]

NETWORK_INDEX, REPLICATE_INDEX, DRY_INDEX = (
    LEVELS.index(level) for level in (NETWORK, REPLICATE, DRY)
)


class RowStep(NamedTuple):
    """What one step makes of each of its streams, in their order.

    Attributes:
        before, after: levels at the step's begin and end, as indices of :data:`LEVELS`; they are
            cross-faded if they differ.
        network: whether the network runs, whether or not it is put out.
        starts: whether it starts from nothing.
        all_network: whether all of them are at the network from begin to end.
    """

    before: Levels
    after: Levels
    network: NDArray[np.bool_]
    starts: NDArray[np.bool_]
    all_network: bool = False


class RowLevels:
    """Has each stream follow the batch's plan from the level that it was at.

    Streams step at different moments, and one may sit out any number of steps. So each of them has
    its fade, and its run-up of the network, in steps of its own.

    Args:
        streams: rows.
        hops: of a step.
    """

    def __init__(self, streams: int, hops: int) -> None:
        self._hops = hops
        self._level = np.zeros(streams, np.int8)
        # Hops that the network has yet to take; all of them where it has missed some of the sound.
        self._run_up = np.zeros(streams, np.int64)
        self._any_away = False
        # Of nearly all steps there are.
        self._usual = RowStep(
            np.full(streams, NETWORK_INDEX, np.int8),
            np.full(streams, NETWORK_INDEX, np.int8),
            np.ones(streams, np.bool_),
            np.zeros(streams, np.bool_),
        )

    def join(self, row: int, level: str) -> None:
        """Let a stream begin in a row, at this level: its sound and the network's past are new."""
        self._level[row] = LEVELS.index(level)
        self._run_up[row] = 0 if level == NETWORK else PREROLL_HOPS
        self._any_away = bool((self._level != NETWORK_INDEX).any())

    def leave(self, row: int) -> None:
        """Forget the stream of a row."""
        self.join(row, NETWORK)

    def step(self, plan: Plan, rows: Rows) -> RowStep:
        """Take a step of these streams."""
        if plan.level == NETWORK and not self._any_away:
            count = len(rows)
            usual = self._usual
            return RowStep(
                usual.before[:count],
                usual.after[:count],
                usual.network[:count],
                usual.starts[:count],
                all_network=True,
            )
        before, run_up = self._level[rows], self._run_up[rows]
        if plan.level == NETWORK:
            after = before.copy()
            after[run_up == 0] = NETWORK_INDEX
        else:
            after = np.full_like(before, LEVELS.index(plan.level))
        # What is faded out goes on for as long.
        network = (before == NETWORK_INDEX) | plan.network
        starts = network & (run_up == PREROLL_HOPS)
        self._level[rows] = after
        self._any_away = bool((self._level != NETWORK_INDEX).any())
        self._run_up[rows] = np.where(network, np.maximum(run_up - self._hops, 0), PREROLL_HOPS)
        return RowStep(before, after, network, starts)

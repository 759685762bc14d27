"""Slots on the CPU: a step runs those that are due, and costs what they cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.runtime.step_memory import HostMemory
from rtsr_kernels.state_places import (
    bring_forward,
    clear_places,
    state_places,
    take_results,
    to_places,
)

Array = NDArray[np.float32]
Indices = NDArray[np.int64]

# Up to so many every number of slots is run as it is, above that it is rounded up by at most so
# much: every number that a run may have needs bindings of its own.
_EXACT, _ROUNDING = 64, 1.0 / 16.0


def row_counts(slots: int) -> list[int]:
    """Numbers of slots that a run may take, ascending, up to ``slots``."""
    counts = list(range(1, min(slots, _EXACT) + 1))
    while counts[-1] < slots:
        counts.append(min(slots, counts[-1] + int(counts[-1] * _ROUNDING)))
    return counts


class HostSlots:
    """Runs the first rows of the batch, where it has put the states of the slots that are due.

    Args:
        memory: of a session that takes each of :func:`row_counts`.

    Attributes:
        signals: inputs by name, row ``i`` belongs to slot ``i``.
        high_band: the output, likewise.
    """

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory
        slots = memory.high_band.shape[0]
        self.signals = {name: np.zeros_like(placed) for name, placed in memory.signals.items()}
        self.high_band: Array = np.zeros_like(memory.high_band)
        self._shapes = {name: value.shape() for name, value in memory.states[0].items()}
        self._places = state_places(
            memory.copies,
            np.array(list(memory.starts.values()), np.int64),
            np.array([np.prod(shape[1:]) for shape in self._shapes.values()], np.int64),
            slots,
        )
        self._inputs = [
            (_rows(self.signals[name]), _rows(placed)) for name, placed in memory.signals.items()
        ]
        self._result = (_rows(memory.high_band), _rows(self.high_band))
        counts = row_counts(slots)
        self._count_of = [counts[np.searchsorted(counts, due)] for due in range(slots + 1)]

    def run(self, due: Indices, held: Indices) -> None:
        """See :class:`~rtsr.batch.slots.Slots`; all that are not due keep their states."""
        places = self._places
        count = self._count_of[len(due)]
        copy = bring_forward(places, due, count)
        for signal, placed in self._inputs:
            to_places(places, due, signal, placed)
        self._memory.run(copy, count)
        take_results(places, due, *self._result)

    def clear(self, slots: Indices) -> None:
        """See :class:`~rtsr.batch.slots.Slots`."""
        clear_places(self._places, slots)

    def reset(self) -> None:
        """See :class:`~rtsr.batch.slots.Slots`."""
        self._memory.reset()

    def state(self) -> dict[str, Array]:
        """See :class:`~rtsr.batch.slots.Slots`."""
        places = self._places
        copies = [self._memory.read_state(copy) for copy in range(2)]
        chosen = np.stack([places.copy_of, np.arange(len(places.copy_of))])[:, places.place_of]
        return {
            name: np.stack([copies[copy][name][place] for copy, place in chosen.T])
            for name in self._shapes
        }


def _rows(signal: Array) -> Array:
    return signal.reshape(signal.shape[0], -1)

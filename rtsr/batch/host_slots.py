"""Slots on the CPU: a step runs those that are due, and costs what they cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtsr.batch.step_signals import StepSignals
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
        memories: of sessions that take one step, two, and so on, each for any of
            :func:`row_counts`; they share one state.

    Attributes:
        parts: see :class:`~rtsr.batch.slots.Slots`; as many as there are sessions.
    """

    def __init__(self, memories: Sequence[HostMemory]) -> None:
        self._memories = tuple(memories)
        memory, most = memories[0], len(memories)
        slots = memory.high_band.shape[0]
        signals = {
            name: np.zeros((most, *placed.shape), np.float32)
            for name, placed in memory.signals.items()
        }
        high_band = np.zeros((most, *memory.high_band.shape), np.float32)
        self.parts = tuple(
            StepSignals(
                **{name: signal[part] for name, signal in signals.items()},
                high_band=high_band[part],
            )
            for part in range(most)
        )
        self._shapes = {name: value.shape() for name, value in memory.states[0].items()}
        self._places = state_places(
            memory.copies,
            np.array(list(memory.starts.values()), np.int64),
            np.array([np.prod(shape[1:]) for shape in self._shapes.values()], np.int64),
            slots,
        )
        self._inputs = [
            [(signals[name], placed) for name, placed in of.signals.items()] for of in memories
        ]
        self._high_band = high_band
        counts = row_counts(slots)
        self._count_of = [counts[np.searchsorted(counts, due)] for due in range(slots + 1)]

    def run(self, due: Indices, held: Indices, steps: int = 1, first: int = 0) -> None:
        """See :class:`~rtsr.batch.slots.Slots`; all that are not due keep their states."""
        places = self._places
        count = self._count_of[len(due)]
        copy = bring_forward(places, due, count)
        for parts, placed in self._inputs[steps - 1]:
            to_places(places, due, parts[first : first + steps], placed)
        self._memories[steps - 1].run(copy, count)
        placed = self._memories[steps - 1].high_band
        take_results(places, due, placed, self._high_band[first : first + steps])

    def clear(self, slots: Indices) -> None:
        """See :class:`~rtsr.batch.slots.Slots`."""
        clear_places(self._places, slots)

    def reset(self) -> None:
        """See :class:`~rtsr.batch.slots.Slots`."""
        self._memories[0].reset()

    def state(self) -> dict[str, Array]:
        """See :class:`~rtsr.batch.slots.Slots`."""
        places = self._places
        copies = [self._memories[0].read_state(copy) for copy in range(2)]
        chosen = np.stack([places.copy_of, np.arange(len(places.copy_of))])[:, places.place_of]
        return {
            name: np.stack([copies[copy][name][place] for copy, place in chosen.T])
            for name in self._shapes
        }

"""Bring the states of the slots that are due to the front of a batch, so that only those are run.

A session keeps its state in two copies, of which a run reads one and writes the other. A batch of
``n`` is the first ``n`` places of every tensor. Whoever is due must so lie in the first places and
in the copy that is read; all others lie where they are, in either copy, and a run does not touch
them. Slots that were due in the last step, too, are in their places already: what is moved is only
what has changed since then.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import boolean, float32, int64, types, void
from numpy.typing import NDArray

from .compiled import AUDIO, INDICES, INDICES_IN, kernel


class StatePlaces(NamedTuple):
    """The two copies of a session's state, and where in them the state of each slot lies."""

    copies: NDArray[np.float32]
    """``(2, floats)``: in each the tensors lie behind one another, each ``(places, size)``."""
    starts: NDArray[np.int64]
    """``(tensors,)``: where in a copy each tensor begins."""
    sizes: NDArray[np.int64]
    """``(tensors,)``: floats that one place of each tensor has."""
    place_of: NDArray[np.int64]
    """``(slots,)``: the place of each slot; no two have the same."""
    slot_at: NDArray[np.int64]
    """``(places,)``: the slot of each place."""
    copy_of: NDArray[np.int64]
    """``(places,)``: 0 or 1, the copy that the state in each place is in."""
    is_due: NDArray[np.bool_]
    """``(slots,)``: scratch memory, false."""


PLACES = types.NamedTuple(
    [AUDIO, INDICES, INDICES, INDICES, INDICES, INDICES, types.Array(boolean, 1, "C")],
    StatePlaces,
)
"""numba's type of `StatePlaces`."""
_PARTS = types.Array(float32, 4, "C")
_PLACED = types.Array(float32, 3, "C")


def state_places(
    copies: NDArray[np.float32], starts: NDArray[np.int64], sizes: NDArray[np.int64], slots: int
) -> StatePlaces:
    """Describe two copies of the states of ``slots`` slots, each in the place of its own number."""
    return StatePlaces(
        copies=copies,
        starts=starts,
        sizes=sizes,
        place_of=np.arange(slots),
        slot_at=np.arange(slots),
        copy_of=np.zeros(slots, np.int64),
        is_due=np.zeros(slots, np.bool_),
    )


@kernel(void(PLACES, int64, int64, int64, int64))
def _move(places: StatePlaces, source: int, from_place: int, target: int, to_place: int) -> None:
    """Copy the state in a place of copy ``source`` to a place of copy ``target``."""
    before, after = places.copies[source], places.copies[target]
    for tensor in range(places.sizes.shape[0]):
        size, start = places.sizes[tensor], places.starts[tensor]
        first, other = start + from_place * size, start + to_place * size
        for i in range(size):
            after[other + i] = before[first + i]


@kernel(void(PLACES, int64, int64, int64))
def _exchange(places: StatePlaces, front: int, back: int, copy: int) -> None:
    """Exchange the states of two places; what comes to ``front`` lies in ``copy`` then."""
    # In every place one copy is free, so nothing has to be put aside.
    _move(places, places.copy_of[front], front, 1 - places.copy_of[back], back)
    _move(places, places.copy_of[back], back, copy, front)
    places.copy_of[back] = 1 - places.copy_of[back]
    places.copy_of[front] = copy
    first, other = places.slot_at[front], places.slot_at[back]
    places.slot_at[front], places.slot_at[back] = other, first
    places.place_of[first], places.place_of[other] = back, front


@kernel(int64(PLACES, INDICES_IN, int64))
def bring_forward(places: StatePlaces, due: np.ndarray, count: int) -> int:
    """Bring the states of the slots in ``due`` into the first places of one copy.

    Args:
        places: of `state_places`.
        due: slots, each once.
        count: places that are run, no fewer than ``due`` has slots. The state of whoever lies in
            those behind is brought into the same copy, where a run does not change it.

    Returns:
        the copy, 0 or 1.
    """
    written = 0
    for index in range(due.shape[0]):
        places.is_due[due[index]] = True
        written += places.copy_of[places.place_of[due[index]]]
    copy = int64(2 * written > due.shape[0])
    front = 0
    for index in range(due.shape[0]):
        back = places.place_of[due[index]]
        if back < due.shape[0]:
            continue
        while places.is_due[places.slot_at[front]]:
            front += 1
        _exchange(places, front, back, copy)
    for place in range(count):
        if places.copy_of[place] != copy:
            _move(places, 1 - copy, place, copy, place)
            places.copy_of[place] = copy
    for index in range(due.shape[0]):
        places.is_due[due[index]] = False
    return copy


@kernel(void(PLACES, INDICES_IN))
def clear_places(places: StatePlaces, slots: np.ndarray) -> None:
    """Zero the states of these slots."""
    for index in range(slots.shape[0]):
        place = places.place_of[slots[index]]
        copy = places.copies[places.copy_of[place]]
        for tensor in range(places.sizes.shape[0]):
            size = places.sizes[tensor]
            first = places.starts[tensor] + place * size
            copy[first : first + size] = float32(0.0)


@kernel(void(PLACES, INDICES_IN, _PARTS, _PLACED))
def to_places(
    places: StatePlaces, slots: np.ndarray, parts: np.ndarray, placed: np.ndarray
) -> None:
    """Copy a signal of these slots to their places.

    Args:
        places: of `state_places`.
        slots: each once.
        parts: ``(steps, slots, channels, samples)``, a signal of one step or of several in turn.
        placed: ``(places, channels, steps * samples)``, where they lie behind one another.
    """
    steps, _, channels, samples = parts.shape
    for index in range(slots.shape[0]):
        slot = slots[index]
        place = places.place_of[slot]
        for step in range(steps):
            first = step * samples
            for channel in range(channels):
                for i in range(samples):
                    placed[place, channel, first + i] = parts[step, slot, channel, i]


@kernel(void(PLACES, INDICES_IN, _PLACED, _PARTS))
def take_results(
    places: StatePlaces, slots: np.ndarray, placed: np.ndarray, parts: np.ndarray
) -> None:
    """Take what a run has written for these slots, from ``placed`` to ``parts``, see `to_places`.

    Their states are from now on those in the copy that was written.
    """
    steps, _, channels, samples = parts.shape
    for index in range(slots.shape[0]):
        slot = slots[index]
        place = places.place_of[slot]
        places.copy_of[place] = 1 - places.copy_of[place]
        for step in range(steps):
            first = step * samples
            for channel in range(channels):
                for i in range(samples):
                    parts[step, slot, channel, i] = placed[place, channel, first + i]

"""A colour on its way from the session to the worker."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr import Colour
from rtsr.live.shared.colour import COLOUR_BYTES, SharedColour
from rtsr.live.shared.memory import LiveMemory

WEIGHTS = "0" * 64


def _colour(seed: int, *, has_spectrum: bool = True) -> Colour:
    random = np.random.default_rng(seed)
    gains = random.uniform(-12.0, 12.0, (4, 24))
    levels = tuple(random.uniform(-60.0, -20.0, 10).tolist()) if has_spectrum else None
    return Colour("small", WEIGHTS, float(seed), tuple(map(tuple, gains.tolist())), levels)


@pytest.mark.parametrize("has_spectrum", [True, False])
def test_what_is_written_is_taken_once(has_spectrum: bool) -> None:
    with LiveMemory.create(1) as memory, LiveMemory.attach(memory.name) as other:
        taken = 0.0
        assert other.colour.take(taken, "small", WEIGHTS) is None
        for seed in (1, 2):
            colour = _colour(seed, has_spectrum=has_spectrum)
            memory.colour.write(colour)
            newest = other.colour.take(taken, "small", WEIGHTS)
            assert newest is not None
            taken = newest[0]
            assert newest[1] == colour
            assert other.colour.take(taken, "small", WEIGHTS) is None


def test_who_comes_later_gets_the_newest() -> None:
    with LiveMemory.create(1) as memory:
        memory.colour.write(_colour(1))
        memory.colour.write(_colour(2))
        with LiveMemory.attach(memory.name) as other:
            newest = other.colour.take(0.0, "small", WEIGHTS)
            assert newest is not None
            assert newest[1] == _colour(2)


def test_half_a_colour_is_left_until_it_is_whole() -> None:
    buffers = [bytearray(COLOUR_BYTES) for _ in range(2)]
    writer, reader = (SharedColour(buffer) for buffer in buffers)
    old, new = _colour(1), _colour(2)
    writer.write(old)
    buffers[1][:] = buffers[0]
    first = reader.take(0.0, "small", WEIGHTS)
    assert first is not None
    assert first[1] == old
    writer.write(new)
    for length in range(8, COLOUR_BYTES, 64):
        buffers[1][:length] = buffers[0][:length]
        assert reader.take(first[0], "small", WEIGHTS) is None
    buffers[1][:] = buffers[0]
    second = reader.take(first[0], "small", WEIGHTS)
    assert second is not None
    assert second[1] == new

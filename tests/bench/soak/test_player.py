"""What the soak's player makes of JACK's count of frames."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_bench.soak import player


@pytest.mark.parametrize("begins", [0, 5_000, (1 << 32) - 1_000, (1 << 32) - 256])
def test_frames_are_counted_on_where_jack_begins_anew(begins: int) -> None:
    words = np.zeros(player._WORDS, np.int64)
    words[player._NEXT] = -1
    for cycle in range(20):
        now = player._unwrapped(words, (begins + 256 * cycle) % (1 << 32))
        assert now == begins + 256 * cycle
        player._count(words, now, 256)
    assert words[player._GAPS] == 0
    # A cycle that is lost across the wrap is one gap of its length.
    now = player._unwrapped(words, (begins + 256 * 25) % (1 << 32))
    player._count(words, now, 256)
    assert words[player._GAPS] == 1
    assert words[player._FIRST_GAP + 1] == 256 * 5

"""A telephone behind a bad network, through the bridge as a program of its own."""

from __future__ import annotations

import bad_network
import numpy as np
import pytest

pytestmark = [
    pytest.mark.clocked,
    pytest.mark.slow,
    pytest.mark.skipif(bad_network.why_not() is not None, reason=bad_network.why_not() or ""),
]


def test_a_call_goes_on_where_every_tenth_packet_is_lost(tmp_path):
    found = bad_network.measured(tmp_path, loss=0.10, jitter=0.030, seconds=14.0)
    assert 0.05 < found.lost < 0.16
    # As much leaves as was said, whatever was lost; when, `bad_network.py` measures.
    assert len(found.gaps_ms) == pytest.approx(500, abs=25)
    likeness = [np.corrcoef(said, part)[0, 1] for said, part in found.pairs]
    assert len(likeness) >= 3
    assert np.median(likeness) > 0.6

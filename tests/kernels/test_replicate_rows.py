"""Replication of a batch's streams: what each would get from a source of its own, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr.engine.replicate import ReplicateSource
from rtsr.runtime import replicate_file
from rtsr_kernels.network_rows import VALUES, NetworkRows
from rtsr_kernels.replicate_rows import replicate_rows, replicate_rows_state

HOP = 480


@pytest.mark.parametrize("hops", [1, 2])
def test_streams_get_what_each_would_alone(hops: int) -> None:
    slots, channels = 5, [2, 1, 1]
    weights = replicate_file.read(replicate_file.bundled_path())
    random = np.random.default_rng(0)
    rows = NetworkRows(
        values=np.zeros(3, VALUES),
        slots=np.zeros((3, 8), np.int64),
        audio=np.zeros((slots, 1, HOP * hops), np.float32),
        noise=np.zeros((slots, 4, hops), np.float32),
        f_prior=np.zeros((slots, 1, hops), np.float32),
        f_target=np.zeros((slots, 1, hops), np.float32),
        high_band=np.zeros((slots, 1, HOP * hops), np.float32),
        line=np.zeros(4, np.float32),
        alike=np.ones(3, np.bool_),
    )
    rows.slots[0, :2], rows.slots[1, :1], rows.slots[2, :1] = [4, 1], [0], [3]
    targets = [20000.0, 16000.0, 22000.0]
    for row, count in enumerate(channels):
        values = rows.values[row]
        values["channels"], values["seed"], values["f_target"] = count, row, targets[row]
    alone = [ReplicateSource(count, row, hops) for row, count in enumerate(channels)]
    state = replicate_rows_state(slots)
    # Not all of them in every step, and cutoffs that move, also below what a filter takes.
    f_prior = np.array([[3400.0] * hops, [7000.0] * hops, [10.0] * hops], np.float32)
    for step in range(12):
        rows.audio[:] = random.uniform(-0.3, 0.3, rows.audio.shape)
        f_prior[0, -1] = 3400.0 + 300.0 * step
        taking = [row for row in range(3) if (step + row) % 4]
        out = np.full((slots, HOP * hops), 9.0, np.float32)
        replicate_rows(
            state,
            rows,
            np.array(taking),
            f_prior,
            weights.regression,
            weights.replica_share,
            out,
        )
        for row in range(3):
            mine = rows.slots[row, : channels[row]]
            if row not in taking:
                assert np.all(out[mine] == 9.0)
                continue
            block = np.ascontiguousarray(rows.audio[mine, 0].T)
            expected = alone[row].generate(block, f_prior[row], targets[row])
            assert np.array_equal(out[mine].T, expected)
            assert np.abs(expected).max() > 0.0
            rows.values["frame"][row] += hops
        assert np.all(out[2] == 9.0)

"""A network's batch: whose noise, cutoffs and sound lie where, and what is done to a bad result."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.network_rows import (
    VALUES,
    NetworkRows,
    check_rows,
    fill_audio,
    fill_rows,
    read_high_band,
)
from rtsr_kernels.noise import fill_noise

HOP = 480
NOISE = 6


def network(hops: int = 2) -> NetworkRows:
    """Three streams of 1, 2 and 3 channels in slots that are not in order."""
    slots = 7
    rows = NetworkRows(
        values=np.zeros(3, VALUES),
        slots=np.zeros((3, 8), np.int64),
        audio=np.random.default_rng(0).standard_normal((slots, 1, HOP * hops)).astype(np.float32),
        noise=np.full((slots, NOISE, hops), 77.0, np.float32),
        f_prior=np.full((slots, 1, hops), 77.0, np.float32),
        f_target=np.full((slots, 1, hops), 77.0, np.float32),
        high_band=np.random.default_rng(1)
        .standard_normal((slots, 1, HOP * hops))
        .astype(np.float32),
        line=np.zeros(NOISE, np.float32),
        alike=np.ones(3, np.bool_),
    )
    rows.slots[0, :1], rows.slots[1, :2], rows.slots[2, :3] = [6], [2, 0], [5, 1, 4]
    for row in range(3):
        values = rows.values[row]
        values["channels"], values["seed"], values["frame"] = row + 1, 10 + row, 100 * row
        values["f_target"], values["are_alike"] = 20000.0 + row, True
    return rows


@pytest.mark.parametrize("hops", [1, 2])
def test_every_slot_gets_the_noise_and_cutoffs_of_its_stream(hops: int) -> None:
    rows = network(hops)
    f_prior = np.array([[1000, 1001], [2000, 2001], [3000, 3001]], np.float32)[:, :hops].copy()
    for turn in range(2):
        fill_rows(rows, np.array([0, 2]), f_prior)
        for row in (0, 2):
            expected = np.zeros((NOISE, hops), np.float32)
            for hop in range(hops):
                line = np.zeros(NOISE, np.float32)
                fill_noise(10 + row, 100 * row + hops * turn + hop, 0, line)
                expected[:, hop] = line
            for slot in rows.slots[row, : row + 1]:
                assert np.array_equal(rows.noise[slot], expected)
                assert np.array_equal(rows.f_prior[slot, 0], f_prior[row])
                assert np.all(rows.f_target[slot] == 20000.0 + row)
    assert rows.values["frame"].tolist() == [2 * hops, 100, 200 + 2 * hops]
    # Stream 1 and the slot that nobody has.
    for slot in (2, 0, 3):
        assert np.all(rows.noise[slot] == 77.0)
        assert np.all(rows.f_prior[slot] == 77.0)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 479, 959])
def test_what_is_no_sound_silences_its_stream_only(broken: float, place: int) -> None:
    rows = network()
    rows.alike[:] = False
    before = rows.high_band.copy()
    rows.high_band[1, 0, place] = broken
    assert check_rows(rows, np.arange(3)) == 1
    assert rows.values["is_unusable"].tolist() == [False, False, True]
    assert np.all(rows.high_band[[5, 1, 4]] == 0.0)
    assert np.array_equal(rows.high_band[[6, 2, 0]], before[[6, 2, 0]])
    rows.high_band[1, 0, place] = 1.0
    assert check_rows(rows, np.arange(3)) == 0
    assert not rows.values["is_unusable"].any()


def test_large_numbers_are_sound() -> None:
    rows = network()
    rows.high_band[6, 0, 5] = -3e38
    assert check_rows(rows, np.arange(3)) == 0


def test_channels_that_were_always_alike_get_the_same() -> None:
    rows = network()
    rows.audio[1] = rows.audio[4] = rows.audio[5]
    f_prior = np.zeros((3, 2), np.float32)
    fill_rows(rows, np.array([2]), f_prior)
    assert rows.values["are_alike"].tolist() == [True, True, True]
    check_rows(rows, np.array([2]))
    assert np.array_equal(rows.high_band[1], rows.high_band[5])
    assert np.array_equal(rows.high_band[4], rows.high_band[5])
    # One sample of one channel is enough, and it is for ever: their states differ from then on.
    rows.audio[4, 0, 959] += 1.0
    fill_rows(rows, np.array([2]), f_prior)
    assert not rows.values["are_alike"][2]
    rows.audio[4] = rows.audio[5]
    fill_rows(rows, np.array([2]), f_prior)
    rows.high_band[1] = 0.5
    check_rows(rows, np.array([2]))
    assert np.all(rows.high_band[1] == 0.5)


def test_blocks_go_to_the_slots_of_their_channels_and_back() -> None:
    rows = network()
    block = np.random.default_rng(2).standard_normal((2 * HOP, 3)).astype(np.float32)
    before = rows.audio.copy()
    fill_audio(rows, 2, block)
    assert np.array_equal(rows.audio[[5, 1, 4], 0].T, block)
    assert np.array_equal(rows.audio[[6, 2, 0, 3]], before[[6, 2, 0, 3]])
    out = np.zeros_like(block)
    read_high_band(rows, 2, out)
    assert np.array_equal(out, rows.high_band[[5, 1, 4], 0].T)

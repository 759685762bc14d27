"""The limiter: what passes untouched, what is turned down by how much, and how it recovers."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from rtsr_kernels.limiter import KNEE, limit

RATE = 48000.0


def limited(block: np.ndarray, knee: float = KNEE) -> tuple[np.ndarray, int, float]:
    out, gain = block.astype(np.float32), np.ones(1)
    count = limit(out, gain, knee, RATE)
    return out, count, float(gain[0])


def noise(frames: int, channels: int, peak: float, seed: int = 0) -> np.ndarray:
    block = np.random.default_rng(seed).uniform(-1, 1, (frames, channels))
    return (block * peak / np.abs(block).max()).astype(np.float32)


def test_knee_is_one_decibel_below_full_scale() -> None:
    assert pytest.approx(-1.0, abs=1e-9) == 20 * np.log10(KNEE)


@pytest.mark.parametrize("peak", [0.1, 0.5, 0.8912])
def test_what_is_below_the_knee_passes_bit_for_bit(peak: float) -> None:
    block = noise(4800, 2, peak)
    out, count, gain = limited(block)
    assert np.array_equal(out, block)
    assert (count, gain) == (0, 1.0)


@pytest.mark.parametrize("peak", [0.95, 1.0, 1.52, 4.0, 1000.0])
def test_nothing_leaves_full_scale(peak: float) -> None:
    out, count, gain = limited(noise(4800, 2, peak))
    assert np.abs(out).max() <= 1.0
    assert count > 0
    assert gain < 1.0


@pytest.mark.parametrize("peak", [0.9, 0.95, 1.0, 1.2, 2.0])
def test_a_peak_goes_where_the_curve_says(peak: float) -> None:
    out, count, _ = limited(np.array([[0.1], [-peak], [0.1]]))
    expected = KNEE + (1 - KNEE) * np.tanh((peak - KNEE) / (1 - KNEE))
    assert out[1, 0] == pytest.approx(-expected, abs=1e-6)
    assert out[0, 0] == np.float32(0.1)
    # The one behind it still stands under the same gain.
    assert out[2, 0] == pytest.approx(0.1 * expected / peak, rel=1e-3)
    # A gain that is next to 1 is 1 again at once.
    assert count == (2 if peak > 0.9 else 1)


def test_a_little_above_the_knee_changes_next_to_nothing() -> None:
    out, _, _ = limited(np.array([[KNEE + 0.001]]))
    assert out[0, 0] == pytest.approx(KNEE + 0.001, abs=1e-5)


def test_the_other_channel_goes_along() -> None:
    block = np.full((10, 2), 0.2, np.float32)
    block[3, 1] = 1.5
    out, _, _ = limited(block)
    ratio = out / block
    assert np.array_equal(out[:3], block[:3])
    assert np.allclose(ratio[3:, 0], ratio[3:, 1])
    assert ratio[3, 0] < 0.7


def test_the_gain_recovers_with_a_time_constant_of_fifty_milliseconds() -> None:
    block = np.full((48000, 1), 0.5, np.float32)
    block[0] = 2.0
    out, count, gain = limited(block)
    deepest = 1.0 - out[0, 0] / 2.0
    left = 1.0 - out[:, 0] / block[:, 0]
    assert left[2400] == pytest.approx(deepest / np.e, rel=0.02)
    assert left[4800] == pytest.approx(deepest / np.e**2, rel=0.03)
    assert np.all(np.diff(left[:count]) <= 1e-6)
    assert 2400 * 5 < count < 2400 * 12
    assert gain == 1.0
    assert np.array_equal(out[count:], block[count:])


def test_recovery_is_in_seconds_whatever_the_rate() -> None:
    gains = []
    for rate in (16000.0, 48000.0):
        block, gain = np.full((int(rate) // 20, 1), 0.5, np.float32), np.array([0.5])
        limit(block, gain, KNEE, rate)
        gains.append(gain[0])
    assert gains[0] == pytest.approx(gains[1], abs=1e-6)
    assert gains[0] == pytest.approx(1.0 - 0.5 / np.e, abs=1e-3)


def test_a_knee_of_one_only_holds_what_is_beyond() -> None:
    block = noise(4800, 1, 1.0)
    assert np.array_equal(limited(block, 1.0)[0], block)
    out, count, _ = limited(np.array([[0.99], [1.5], [-3.0]]), 1.0)
    assert out[:, 0] == pytest.approx([0.99, 1.0, -1.0], abs=1e-6)
    assert count == 2


def test_blocks_do_not_matter() -> None:
    sound = noise(6000, 2, 1.5) * np.repeat([1.0, 0.1, 0.9], 2000)[:, None].astype(np.float32)
    whole, count, _ = limited(sound)
    cut, gain, counted = sound.copy(), np.ones(1), 0
    random = np.random.default_rng(2)
    start = 0
    while start < len(cut):
        end = start + int(random.integers(1, 400))
        counted += limit(cut[start:end], gain, KNEE, RATE)
        start = end
    assert np.array_equal(cut, whole)
    assert counted == count


def test_any_layout_gives_the_same() -> None:
    sound = noise(1000, 3, 1.5)
    planar = np.ascontiguousarray(sound.T)
    limit(planar.T, np.ones(1), KNEE, RATE)
    assert np.array_equal(planar.T, limited(sound)[0])


@pytest.mark.parametrize("peak", [1.02, 1.6])
def test_the_bits_of_the_plain_one(plain: ModuleType, peak: float) -> None:
    sound = noise(4000, 2, peak, seed=7) * np.hanning(4000)[:, None].astype(np.float32)
    expected = plain.PlainLimiter(RATE)
    assert np.array_equal(limited(sound)[0], expected.process(sound, KNEE))
    assert limited(sound)[1] == expected.count > 0


def test_no_allocation(count_allocations: Callable[[], tuple[int, int]]) -> None:
    block, gain = noise(480, 2, 1.5), np.ones(1)
    limit(block, gain, KNEE, RATE)
    before = count_allocations()
    for _ in range(1000):
        block[5] = 1.5
        limit(block, gain, KNEE, RATE)
    after = count_allocations()
    # The two arrays that are passed.
    assert (after[0] - before[0], after[1]) == (2 * 1000, before[1])

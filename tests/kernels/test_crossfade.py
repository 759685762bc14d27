"""Cross-fades: ends, gains, long fades in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from rtsr_kernels.crossfade import (
    crossfade_equal_power,
    crossfade_equal_power_ramp,
    crossfade_linear,
    crossfade_linear_ramp,
)

RAMPS = [crossfade_linear_ramp, crossfade_equal_power_ramp]
EACH_RAMP = pytest.mark.parametrize("ramp", RAMPS, ids=["linear", "equal-power"])


def constant(value: float, frames: int = 480, channels: int = 2) -> np.ndarray:
    return np.full((frames, channels), value, dtype=np.float32)


def noise(seed: int, frames: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, 2)).astype(np.float32)


def test_linear_gains() -> None:
    out = constant(0.0)
    crossfade_linear(constant(1.0), constant(3.0), out)
    expected = 1.0 + 2.0 * (np.arange(480) + 0.5) / 480
    np.testing.assert_allclose(out, np.stack([expected, expected], 1), rtol=1e-6)


def test_linear_between_identical_signals_changes_no_bit() -> None:
    a = noise(1)
    out = np.empty_like(a)
    crossfade_linear(a, a.copy(), out)
    np.testing.assert_array_equal(out, a)


def test_equal_power_gains() -> None:
    fade_out, fade_in = constant(0.0), constant(0.0)
    crossfade_equal_power(constant(1.0), constant(0.0), fade_out)
    crossfade_equal_power(constant(0.0), constant(1.0), fade_in)
    np.testing.assert_allclose(fade_out**2 + fade_in**2, 1.0, rtol=1e-6)
    np.testing.assert_allclose(fade_in, fade_out[::-1], atol=1e-6)
    assert (np.diff(fade_in[:, 0]) > 0).all()


@EACH_RAMP
def test_long_fade_in_pieces_equals_one_fade(ramp) -> None:  # type: ignore[no-untyped-def]
    a, b = noise(1), noise(2)
    whole, pieces = np.empty_like(a), np.empty_like(a)
    ramp(a, b, whole, -100, 700)
    for start, end in [(0, 1), (1, 90), (90, 90), (90, 480), (480, 960), (960, 1000)]:
        ramp(a[start:end], b[start:end], pieces[start:end], start - 100, 700)
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_array_equal(whole[:100], a[:100])
    np.testing.assert_array_equal(whole[800:], b[800:])


@EACH_RAMP
def test_whole_block_is_the_ramp_over_it(ramp) -> None:  # type: ignore[no-untyped-def]
    whole = crossfade_linear if ramp is crossfade_linear_ramp else crossfade_equal_power
    a, b = noise(1), noise(2)
    expected, out = np.empty_like(a), np.empty_like(a)
    ramp(a, b, expected, 0, 1000)
    whole(a, b, out)
    np.testing.assert_array_equal(out, expected)


@EACH_RAMP
def test_in_place_length_zero_and_empty(ramp) -> None:  # type: ignore[no-untyped-def]
    a, b = noise(1), noise(2)
    expected = np.empty_like(a)
    ramp(a, b, expected, 0, 1000)
    in_a, in_b = a.copy(), b.copy()
    ramp(in_a, b, in_a, 0, 1000)
    ramp(a, in_b, in_b, 0, 1000)
    np.testing.assert_array_equal(in_a, expected)
    np.testing.assert_array_equal(in_b, expected)
    ramp(a, b, expected, 0, 0)
    np.testing.assert_array_equal(expected, b)
    ramp(a[:0], b[:0], expected[:0], 0, 10)


@EACH_RAMP
def test_refuses_other_shapes(ramp) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="differ in shape"):
        ramp(constant(0.0), constant(0.0, 479), constant(0.0), 0, 480)
    with pytest.raises(ValueError, match="differ in shape"):
        ramp(constant(0.0), constant(0.0), constant(0.0, 480, 1), 0, 480)

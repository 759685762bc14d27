"""The clock loop on two simulated sound cards, an hour of virtual time at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit
from variable_resampler import VariableResampler

from rtsr_kernels.drift import (
    AGE,
    FACTOR,
    INTEGRAL,
    JUMP,
    JUMPS,
    LARGEST_OFFSET,
    STATE_WORDS,
    drift_update,
)

RATE = 48_000.0
HOUR = 3600.0
JITTER = 0.002
# Enough for both the position and the pitch to be where they stay.
LOCKED = 30.0
# Frames until the resampler's filter is full.
SETTLED = 256


@njit
def two_devices(capture_offset, playback_offset, block, jitter, seconds, random):  # type: ignore[no-untyped-def]
    """What `drift_update` makes of two devices whose clocks are off by these shares.

    Both call back every `block` frames of their own clock, each up to `jitter` seconds late. The
    capture side notes how many frames there are and when it checked; the playback side extrapolates
    from that, as a device stream does. Returns, for each playback block, the factor and the
    position's true error in seconds: how far the frame that is played at the block's ideal time is
    from the frame that was captured the target's lag before it.
    """
    capture_rate = RATE * (1.0 + capture_offset)
    playback_rate = RATE * (1.0 + playback_offset)
    blocks = int(seconds * playback_rate / block)
    factors = np.empty(blocks)
    errors = np.empty(blocks)
    state = np.zeros(STATE_WORDS)
    lag = 1024.0 + 2.0 * block
    capture_blocks = 0
    captured = 0.0
    noted = 0.0
    coming = random.uniform(0.0, jitter)
    position = 0.0
    jumps = 0
    for i in range(blocks):
        ideal = 1.0 + i * block / playback_rate
        now = ideal + random.uniform(0.0, jitter)
        while (capture_blocks + 1) * block / capture_rate + coming <= now:
            capture_blocks += 1
            captured = float(capture_blocks * block)
            noted = capture_blocks * block / capture_rate + coming
            coming = random.uniform(0.0, jitter)
        estimate = captured + (now - noted) * RATE
        if i == 0:
            position = estimate - lag
        factor = drift_update(state, estimate - lag - position, block / RATE)
        if state[JUMP] != 0.0:
            position += state[JUMP]
            jumps += 1
        factors[i] = factor
        errors[i] = (ideal * capture_rate - lag - position) / RATE
        position += factor * block
    return factors, errors, jumps


def output_tone(factors: np.ndarray, frequency: float, block: int) -> np.ndarray:
    """A sine of the capture device after the variable resampler, under this track of factors."""
    resampler = VariableResampler(RATE, RATE)
    consumed = 0
    pieces = []
    for factor in factors:
        count = resampler.frames_needed(factor, block)
        instants = np.arange(consumed, consumed + count)
        tone = np.sin(2 * np.pi * frequency / RATE * instants).astype(np.float32)
        pieces.append(resampler.process(tone[:, np.newaxis], factor, block))
        consumed += count
    return np.concatenate(pieces)[:, 0].astype(np.float64)


def worst_residual_db(tone: np.ndarray, frequencies: np.ndarray, window: int) -> float:
    """What is left of the worst window, relative to the sine that is taken out of it, in dB.

    Half-overlapping windows of that many frames, a sine of constant amplitude and pitch for each:
    the pitch is the mean of `frequencies`, hertz for each frame, and the rest is fitted.
    """
    worst = 0.0
    for start in range(0, len(tone) - window + 1, window // 2):
        span = slice(start, start + window)
        phase = 2 * np.pi * frequencies[span].mean() / RATE * np.arange(window)
        basis, _ = np.linalg.qr(np.stack([np.sin(phase), np.cos(phase)], axis=1))
        rest = tone[span] - basis @ (basis.T @ tone[span])
        worst = max(worst, float(np.sqrt((rest**2).mean() / (tone[span] ** 2).mean())))
    return 20.0 * math.log10(worst)


@pytest.mark.parametrize("block", [128, 512])
@pytest.mark.parametrize(
    ("capture_offset", "playback_offset"),
    [(200e-6, -200e-6), (-200e-6, 200e-6), (200e-6, 200e-6), (0.0, -200e-6)],
    ids=["faster", "slower", "alike", "half"],
)
def test_an_hour_of_two_clocks_and_jitter(
    capture_offset: float, playback_offset: float, block: int
) -> None:
    factors, errors, jumps = two_devices(
        capture_offset, playback_offset, block, JITTER, HOUR, np.random.default_rng(block)
    )
    locked = int(LOCKED * RATE / block)
    assert jumps == 0
    # From the first block on, not only after lock-in: playback never runs dry at the start.
    assert np.abs(errors).max() < 0.002
    assert np.abs(errors[locked:]).max() < 0.0015
    difference = (1 + capture_offset) / (1 + playback_offset) - 1
    assert factors[locked:].mean() - 1 == pytest.approx(difference, abs=0.2e-6)
    # Once it is narrow the loop does not follow the jitter.
    assert factors[10 * locked :].std() < 3e-6

    stretch = int(20 * RATE / block)
    frequency = 997.0
    for start in (0, locked, len(factors) // 2, len(factors) - stretch):
        track = factors[start : start + stretch]
        output = output_tone(track, frequency, block)[SETTLED:]
        frequencies = frequency * np.repeat(track, block)[SETTLED:]
        assert worst_residual_db(output, frequencies, 1024) < (-90.0 if start else -80.0)
        if start:
            assert worst_residual_db(output, frequencies, 4096) < -80.0


def test_a_glitch_would_be_seen_by_that_measure() -> None:
    phase = 2 * np.pi * 997 / RATE * np.arange(48_000)
    frequencies = np.full(48_000, 997.0)
    assert worst_residual_db(np.sin(phase), frequencies, 1024) < -120.0
    # A jump of a hundredth of a frame; a single sample that is off by a hundredth.
    phase[24_000:] += 0.01 * 2 * np.pi * 997 / RATE
    assert worst_residual_db(np.sin(phase), frequencies, 1024) > -80.0
    click = np.sin(2 * np.pi * 997 / RATE * np.arange(48_000))
    click[24_000] += 0.01
    assert worst_residual_db(click, frequencies, 1024) > -80.0


def test_locks_in_seconds_and_never_overshoots_by_much() -> None:
    factors, errors, _ = two_devices(200e-6, -200e-6, 128, 0.0, 120.0, np.random.default_rng(1))
    assert np.abs(errors).max() < 0.001
    after = int(LOCKED * RATE / 128)
    assert np.abs(factors[after:] - 1.0004).max() < 20e-6
    assert np.abs(errors[after:]).max() < 0.0001
    assert errors.min() > -0.0001


def run(state: np.ndarray, error: float, seconds: float, block: float = 0.01) -> list[float]:
    return [drift_update(state, error, block) for _ in range(round(seconds / block))]


def test_a_fresh_loop_without_error_changes_nothing() -> None:
    state = np.zeros(STATE_WORDS)
    assert set(run(state, 0.0, 10.0)) == {1.0}
    assert state[INTEGRAL] == 0.0
    assert state[AGE] == pytest.approx(10.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_stays_within_its_limit_and_comes_back_from_it(sign: int) -> None:
    state = np.zeros(STATE_WORDS)
    factors = run(state, sign * 900.0, 600.0)
    assert max(abs(f - 1.0) for f in factors) == pytest.approx(LARGEST_OFFSET)
    assert factors[-1] == 1.0 + sign * LARGEST_OFFSET
    assert abs(state[INTEGRAL]) <= LARGEST_OFFSET
    assert state[FACTOR] == factors[-1]
    back = run(state, -sign * 48.0, 60.0)
    assert abs(back[-1] - 1.0) < LARGEST_OFFSET


def test_one_late_callback_is_no_reason_to_jump() -> None:
    state = np.zeros(STATE_WORDS)
    run(state, 0.0, 120.0)
    factor = drift_update(state, 4800.0, 0.01)
    assert abs(factor - 1.0) < 1e-6
    assert state[JUMP] == 0.0
    run(state, 0.0, 1.0)
    assert state[JUMPS] == 0.0


@pytest.mark.parametrize("error", [4800.0, -4800.0])
def test_asks_once_for_a_jump_when_slewing_is_hopeless(error: float) -> None:
    state = np.zeros(STATE_WORDS)
    state[INTEGRAL] = 150e-6
    asked = []
    for _ in range(100):
        drift_update(state, error, 0.01)
        if state[JUMP]:
            asked.append(float(state[JUMP]))
            error -= state[JUMP]
    assert asked == [4800.0 if asked[0] > 0 else -4800.0]
    assert state[JUMPS] == 1.0
    # The clocks are what they were, so that playback does not drift away again.
    assert state[INTEGRAL] == pytest.approx(150e-6, abs=50e-6)


def test_a_jump_that_is_not_made_is_asked_for_again() -> None:
    state = np.zeros(STATE_WORDS)
    run(state, 4800.0, 1.0)
    assert 5 <= state[JUMPS] <= 10


def test_long_blocks_widen_what_counts_as_far() -> None:
    state = np.zeros(STATE_WORDS)
    run(state, 0.1 * RATE, 2.0, block=0.0427)
    assert state[JUMPS] == 0.0
    run(state, 0.2 * RATE, 2.0, block=0.0427)
    assert state[JUMPS] > 0.0

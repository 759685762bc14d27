"""Estimate the drift between the clocks of two sound cards with a control loop.

The error `e` is how far, in seconds, playback lags behind where it should be. With clocks that
differ by `d` (a ratio, some 1e-4) and a playback that is sped up by `u`, `de/dt = d - u`. The loop
is proportional-integral on a low-passed error:

    s1' = (e - s1) / tau      s2' = (s1 - s2) / tau      tau = LOW_PASS / w
    i'  = w**2 * s2           u = i + 2 * DAMPING * w * s2

Without the low-pass that is the textbook second-order loop `s**2 + 2 * DAMPING * w * s + w**2` (F.
M. Gardner, "Phaselock Techniques", chapter 2), which has no error left for any constant `d`. `w`
starts wide and narrows as `ACQUISITION / age`, so that a few seconds find the clocks' difference
and after that the jitter of the callbacks hardly moves the pitch.
"""

from __future__ import annotations

import numpy as np
from numba import float64

from .compiled import VECTOR, kernel
from .timing import SAMPLE_RATE

STATE_WORDS = 8
"""Length of the float64 state; all zero is a fresh loop."""
ONCE_SMOOTHED, SMOOTHED, INTEGRAL, FACTOR, AGE, FAR, JUMP, JUMPS = range(STATE_WORDS)
"""Indices into the state; `JUMP` is the one that callers read (frames, 0 = no jump wanted)."""


# Critical: the position never overshoots its target, so that latency only ever settles.
DAMPING = 1.0
# 40 s. Crystals wander with the temperature by less than 0.1 ppm a second, which costs 1e-7 / w**2
# = 0.16 ms of position; 2 ms of callback jitter moves the pitch by some 2 ppm.
SLOWEST = 0.025
# 400 ppm (both clocks at their worst) then displace playback by 4e-4 / (w * e) = 0.7 ms before the
# loop catches up, 0.9 ms with the low-pass. Wider, and jitter could be measured in the first sound.
FASTEST = 0.2
# Four time constants of the present width have passed before the loop narrows on.
ACQUISITION = 4.0
# Each of the two poles costs atan(2 * DAMPING * 0.1) = 11 degrees; a phase margin of 54 remains.
LOW_PASS = 0.1
# Audio clocks are specified to 100 ppm or better, bad ones reach some hundred; 1.7 cents of pitch
# is inaudible even on a sustained tone.
LARGEST_OFFSET = 1e-3
# One callback that is late by a scheduling stall says little about clocks: it counts as this much.
LARGEST_ERROR = 0.005
# Slewing at 1 ms a second is hopeless beyond this, and the dry signal may not reach that far. Held
# for a while first, because a stall of one callback goes away by itself.
JUMP_ERROR = 0.020
JUMP_BLOCKS = 3.0
JUMP_SECONDS = 0.1


@kernel(float64(VECTOR, float64, float64))
def drift_update(state: np.ndarray, error_frames: float, block_seconds: float) -> float:
    """Advance the loop by one playback block; return the factor for the resampler's ratio.

    `state` is float64 `(STATE_WORDS,)`. `error_frames` is how many 48 kHz frames playback lags
    behind its target (positive: it must hurry), `block_seconds` the time since the last call. The
    factor, `1 + u`, multiplies the nominal input frames per output frame and stays within
    `LARGEST_OFFSET` of one.

    An error beyond `JUMP_ERROR` (or `JUMP_BLOCKS` blocks) that lasts `JUMP_SECONDS` is not slewed:
    `state[JUMP]` is then the frames by which the caller should move its position at once, under a
    cross-fade, and 0 after every other call. The loop assumes that the jump is made and keeps its
    estimate of the clocks' difference.
    """
    error = error_frames / SAMPLE_RATE
    state[JUMP] = 0.0
    if abs(error) > max(JUMP_ERROR, JUMP_BLOCKS * block_seconds):
        state[FAR] += block_seconds
    else:
        state[FAR] = 0.0
    if state[FAR] > JUMP_SECONDS:
        state[JUMP] = error_frames
        state[JUMPS] += 1.0
        state[FAR] = 0.0
        state[ONCE_SMOOTHED] = 0.0
        state[SMOOTHED] = 0.0
        state[AGE] = 0.0
        state[FACTOR] = 1.0 + state[INTEGRAL]
        return state[FACTOR]

    error = max(-LARGEST_ERROR, min(error, LARGEST_ERROR))
    state[AGE] += block_seconds
    width = max(SLOWEST, min(ACQUISITION / state[AGE], FASTEST))
    # The implicit Euler step: stable however long a block is.
    share = block_seconds / (LOW_PASS / width + block_seconds)
    state[ONCE_SMOOTHED] += share * (error - state[ONCE_SMOOTHED])
    state[SMOOTHED] += share * (state[ONCE_SMOOTHED] - state[SMOOTHED])
    smoothed = state[SMOOTHED]

    # Limited by itself: an integral beyond what may be applied would have to be unlearned first.
    integral = state[INTEGRAL] + width * width * smoothed * block_seconds
    state[INTEGRAL] = max(-LARGEST_OFFSET, min(integral, LARGEST_OFFSET))
    offset = state[INTEGRAL] + 2.0 * DAMPING * width * smoothed
    state[FACTOR] = 1.0 + max(-LARGEST_OFFSET, min(offset, LARGEST_OFFSET))
    return state[FACTOR]

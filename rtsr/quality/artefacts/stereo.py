"""Left and right that drift apart above the cutoff."""

from __future__ import annotations

import math

import numpy as np

from rtsr.quality.artefacts.levels import AUDIBLE_DBFS, decibels, high_band, mean_or_nan
from rtsr.spectra.stft import Signal
from rtsr.timing import SAMPLE_RATE

_BLOCK = SAMPLE_RATE // 10
_RANGE_DB = 40.0
_LOWEST_DB = -120.0


def channel_difference_db(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Measure the channel difference that a mono sound in two equal channels got, in dB.

    ``20 log10(rms(left - right) / rms(left + right))`` of the output's high band (linear-phase
    high-pass of 5 ms), limited to -120 dB, which is what equal channels give. Two independent
    textures of one level give 0.

    Args:
        reference: shape (samples, 2), at 48 kHz.
        output: likewise, aligned with it.
        cutoff_hz: where the input's content ended.

    Returns:
        dB; NaN where the reference's channels differ by more than one 16-bit step, or the output
        has no high band.
    """
    if np.max(np.abs(reference[:, 0] - reference[:, 1])) > 1.0001 / 32768.0:
        return math.nan
    side = high_band(output[:, 0] - output[:, 1], cutoff_hz)
    middle = high_band(output[:, 0] + output[:, 1], cutoff_hz)
    energy = float(middle @ middle)
    if energy <= 0.0:
        return math.nan
    return max(float(decibels(float(side @ side) / energy, -300.0)), _LOWEST_DB)


def coherence_loss(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """Measure the coherence of left and right above the cutoff that the output lost, 0 to 1.

    In blocks of 0.1 s, ``|sum l r| / sqrt(sum l^2 sum r^2)`` of the high band (linear-phase
    high-pass of 5 ms). The result is the mean over active blocks of the reference's value less the
    output's; a block is active where both channels of the reference lie within 40 dB of the loudest
    block and above -80 dBFS, and both of the output above -80 dBFS. A panned sound has coherence 1
    whatever its position, so independent textures lose 1; negative is a stereo image narrower than
    the reference's.

    Args:
        reference: shape (samples, 2), at 48 kHz.
        output: likewise, aligned with it.
        cutoff_hz: where the input's content ended.

    Returns:
        a ratio; NaN where the reference has no active block.
    """
    original, made, active = _blocks(reference, output, cutoff_hz)
    # A texture that is not there is not a different one.
    evaluated = active & np.all(_level(made) > AUDIBLE_DBFS, axis=1)
    return mean_or_nan((_coherence(original) - _coherence(made))[evaluated])


def image_shift_db(reference: Signal, output: Signal, cutoff_hz: float) -> float:
    """How far the high band of the output sits from its place between left and right, in dB.

    The mean over active blocks (as in :func:`coherence_loss`) of the absolute difference of the
    two level differences, ``|(L - R)_output - (L - R)_truth|`` with L and R the levels in dB of a
    block's high band. 0 is the same place, whatever the common level.

    Returns:
        dB; NaN where the reference has no active block.
    """
    original, made, active = _blocks(reference, output, cutoff_hz)
    return mean_or_nan(np.abs(_level_difference(original) - _level_difference(made))[active])


def _blocks(reference: Signal, output: Signal, cutoff_hz: float) -> tuple[Signal, Signal, Signal]:
    """High bands in blocks, shape (blocks, samples, 2), and which blocks count."""
    original, made = (
        np.stack([high_band(signal[:, channel], cutoff_hz) for channel in (0, 1)], axis=1)
        for signal in (reference, output)
    )
    whole = original.shape[0] // _BLOCK
    original, made = (
        signal[: whole * _BLOCK].reshape(whole, _BLOCK, 2) for signal in (original, made)
    )
    level = _level(original)
    loudest = level.max(initial=-200.0)
    active = np.all((level > loudest - _RANGE_DB) & (level > AUDIBLE_DBFS), axis=1)
    return original, made, active


def _level(blocks: Signal) -> Signal:
    """Return dB of a full-scale sine, shape (blocks, 2)."""
    return decibels(2.0 * np.mean(blocks**2, axis=1), -200.0)


def _coherence(blocks: Signal) -> Signal:
    left, right = blocks[:, :, 0], blocks[:, :, 1]
    cross = np.abs(np.sum(left * right, axis=1))
    own = np.sqrt(np.sum(left**2, axis=1) * np.sum(right**2, axis=1))
    return np.asarray(cross / np.maximum(own, 1e-30))


def _level_difference(blocks: Signal) -> Signal:
    level = np.maximum(_level(blocks), _LOWEST_DB)
    return np.asarray(level[:, 0] - level[:, 1])
